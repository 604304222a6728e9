"""The renderer: a row of any dataset as the tokens that training shows a base model, where its tokenizer is at hand."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from journeyman.runtime.serving.embedded import INSTALL_TRAIN, pull_model, resolve_model
from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import first_mistake
from journeyman.traces.errors import ConfigError, TrainingError
from journeyman.training.data.datasets.rows import DatasetRow, Part
from journeyman.training.data.samples import SFTSample

AS_TEXT = ("agent", "policy", "trace_id", "span_ids", "messages", "completion", "tool_calls", "tools")
"""Keys of a row without which, or beside which, its reply is text."""


class ModelRenderer:
    """Writes rows as `rows` does for training."""

    def __init__(self, base_model: Path) -> None:
        from journeyman.training.methods.rows import read_tokenizer, stops_of  # They import transformers.

        self._tokenizer = read_tokenizer(base_model)
        self.stops = stops_of(base_model, self._tokenizer)

    def tokens(self, row: DatasetRow, part: Part) -> tuple[list[int], list[int]]:
        if row.prompt_token_ids and part.token_ids:
            return list(row.prompt_token_ids), list(part.token_ids)
        return self.again(row, part)

    def again(self, row: DatasetRow, part: Part) -> tuple[list[int], list[int]]:
        from journeyman.training.methods.rows import write_rows

        [written] = write_rows([_as_text(row, part)], self._tokenizer, self.stops)
        ids, mask = written["input_ids"], written["completion_mask"]
        return ids[: mask.index(1)], ids[mask.index(1) :]

    def text(self, ids: Sequence[int]) -> str:
        return cast(str, self._tokenizer.decode(list(ids)))


def renderer_of(workspace: Workspace, model: str | None) -> ModelRenderer | None:
    """That of `model`, else of the workspace's own where it lies ready on this machine; None where it doesn't.

    Raises `ConfigError` where a model that was named can't be had.
    """
    installed = find_spec("transformers") is not None
    if model is not None and not installed:
        raise ConfigError(f"tokens need transformers: {INSTALL_TRAIN}")
    folder = pull_model(model) if model is not None else _ready(workspace)
    if folder is None or not installed:
        return None
    try:
        return ModelRenderer(folder)
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


def _as_text(row: DatasetRow, part: Part) -> SFTSample:
    values = {**row.values, **part.values}
    try:
        return SFTSample.model_validate({name: values[name] for name in AS_TEXT if values.get(name) is not None})
    except ValidationError as error:
        raise TrainingError(f"row {row.number} can't be read: {first_mistake(error, SFTSample)}") from None
