"""Merging: an adapter added into the base model's weights, as a model of its own."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from journeyman.runtime.serving.embedded import MANIFEST
from journeyman.traces.errors import StoreError
from journeyman.traces.files import publish

WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".gguf")
"""How files end that hold the base model's weights, or say where they are."""


def merge(base_model: Path, adapter: Path, target: Path) -> Path:
    """Writes `W + (alpha / r) * B A` for each layer of the adapter into `target`, with the base model's other files.

    Added in float32 and rounded once to the base model's own type. A folder of that name is always whole; one that is
    there is left as it is. Raises `StoreError` where the disk refuses.
    """
    return target if target.exists() else write_model(merged(base_model, adapter), base_model, target)


def merged(base_model: Path, adapter: Path) -> PreTrainedModel:
    """The same as a model in memory."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    base: Any = AutoModelForCausalLM.from_pretrained(base_model, local_files_only=True, use_safetensors=True)
    rounded = base.dtype
    learned: Any = PeftModel.from_pretrained(base.to(torch.float32), str(adapter))
    model: PreTrainedModel = learned.merge_and_unload().to(rounded)
    return model


def write_model(model: PreTrainedModel, base_model: Path, target: Path) -> Path:
    """Writes a model of the base's kind, with the base model's other files; all or nothing."""
    partial: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        fill(model, base_model, partial)
        partial.chmod(0o755)
        publish(partial, target)
    except OSError as error:
        raise StoreError(f"{target} was not written: {error.strerror or error}; free some space") from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def fill(model: PreTrainedModel, base_model: Path, folder: Path) -> None:
    """The same into a folder that is there."""
    for path in base_model.iterdir():
        if path.is_file() and path.name != MANIFEST and not path.name.endswith(WEIGHTS):
            shutil.copy(path, folder / path.name)
    model.save_pretrained(folder)
