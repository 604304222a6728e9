"""Merging: an adapter added into the base model's weights, as a model of its own."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from journeyman.traces.errors import StoreError
from journeyman.traces.files import publish

WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".gguf")
"""How files end that hold the base model's weights, or say where they are."""


def merge(base_model: Path, adapter: Path, target: Path) -> Path:
    """Writes `W + (alpha / r) * B A` for each layer of the adapter into `target`, with the base model's other files.

    Added in float32 and rounded once to the base model's own type. A folder of that name is always whole; one that is
    there is left as it is. Raises `StoreError` where the disk refuses.
    """
    if target.exists():
        return target
    disable_progress_bar()  # type: ignore[no-untyped-call]
    base: Any = AutoModelForCausalLM.from_pretrained(base_model, local_files_only=True, use_safetensors=True)
    rounded = base.dtype
    learned: Any = PeftModel.from_pretrained(base.to(torch.float32), str(adapter))
    merged = learned.merge_and_unload().to(rounded)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for path in base_model.iterdir():
            if path.is_file() and not path.name.endswith(WEIGHTS):
                shutil.copy(path, partial / path.name)
        merged.save_pretrained(partial)
        publish(partial, target)
    except OSError as error:
        raise StoreError(f"{target} was not written: {error.strerror or error}; free some space") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target
