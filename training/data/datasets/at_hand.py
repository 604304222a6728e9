"""The base model's tokenizer, where it is at hand."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from journeyman.runtime.serving.embedded import INSTALL_TRAIN, pull_model, resolve_model
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError

if TYPE_CHECKING:
    from journeyman.training.data.datasets.rendering import Renderer


def renderer_of(workspace: Workspace, model: str | None) -> "Renderer | None":
    """That of `model`, else of the workspace's own where it lies ready on this machine; None where it doesn't.

    Raises `ConfigError` where a model that was named can't be had.
    """
    installed = find_spec("transformers") is not None
    if model is not None and not installed:
        raise ConfigError(f"tokens need transformers: {INSTALL_TRAIN}")
    folder = pull_model(model) if model is not None else _ready(workspace)
    if folder is None or not installed:
        return None
    from journeyman.training.data.datasets.rendering import Renderer

    try:
        return Renderer(folder)
    except (OSError, ValueError) as error:
        if model is None:
            return None
        raise ConfigError(f"{folder} has no tokenizer that can be read: {str(error).splitlines()[0]}") from None


def _ready(workspace: Workspace) -> Path | None:
    try:
        found = resolve_model(workspace.config.server.model)
    except ConfigError:
        return None
    return found if isinstance(found, Path) else None
