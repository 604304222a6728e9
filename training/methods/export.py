"""Export: what was trained for other programs, as PEFT's folder or as a model of its own."""

import shutil
from pathlib import Path
from tempfile import mkdtemp

from journeyman.runtime.adapters.adapter import CONFIG, WEIGHTS, Adapter, find_adapter, load_adapter
from journeyman.runtime.serving.embedded import IDENTITY, INSTALL_TRAIN, model_digest
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError, ConfigError, StoreError
from journeyman.traces.files import make_folder, publish, sync

MODEL = (*IDENTITY, "generation_config.json", "*.safetensors.index.json", "*.model")
"""Files of a model of its own; those of ours are left out."""


def export_adapter(workspace: Workspace, policy: str, target: Path) -> Path:
    """Writes the files that PEFT and vLLM read, or of a model of its own the model, all or nothing.

    Raises `AdapterError` where the adapter isn't whole or `target` is there, `StoreError` where the disk refuses.
    """
    folder, adapter = _checked(workspace, policy, target)
    names = _model_files(folder) if adapter.is_model else [folder / CONFIG, folder / WEIGHTS]
    partial: Path | None = None
    try:
        make_folder(target.absolute().parent)
        partial = Path(mkdtemp(prefix=f".{target.name}.", dir=target.absolute().parent))
        partial.chmod(0o755)
        for path in names:
            shutil.copy(path, partial / path.name)
            sync(partial / path.name)
        publish(partial, target)
    except OSError as error:
        raise StoreError(f"{target} was not written: {error.strerror or error}; choose another folder") from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def export_merged(workspace: Workspace, policy: str, target: Path, base_model: Path) -> Path:
    """Writes the base model with the adapter in its weights: safetensors and tokenizer, as transformers and vLLM load
    them. Raises like `export_adapter`, and `AdapterError` for another base model than the adapter's.
    """
    folder, adapter = _checked(workspace, policy, target)
    if adapter.is_model:
        return export_adapter(workspace, policy, target)
    if adapter.base_digest != (digest := model_digest(base_model)):
        raise AdapterError(
            f"{policy} was trained on base model {adapter.base_digest[:12]}, {base_model.name} is {digest[:12]}: "
            "name the one that it was trained on with --model"
        )
    try:
        from journeyman.training.methods.trainers.merge import merge
    except ImportError as error:
        raise ConfigError(f"merging needs {error.name}: {INSTALL_TRAIN}") from None
    return merge(base_model, folder, target)


def _model_files(folder: Path) -> list[Path]:
    return sorted({path for pattern in MODEL for path in folder.glob(pattern)})


def _checked(workspace: Workspace, policy: str, target: Path) -> tuple[Path, Adapter]:
    """The adapter's folder, once it is whole and `target` is free."""
    folder = find_adapter(workspace.adapters, policy)
    adapter = load_adapter(folder)
    if adapter.is_prompt:
        raise AdapterError(f"{policy} is a prompt without weights: export those of {adapter.weights}")
    if target.exists():
        raise AdapterError(f"{target} exists already: name a folder that doesn't")
    return folder, adapter
