"""Rows of a dataset of any kind, as plain values: what they show the model, what is learned of them, whose they are."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic_core import from_json

from journeyman.runtime.adapters.datasets import SIDES
from journeyman.traces.errors import TrainingError
from journeyman.traces.files import regular


class Part(NamedTuple):
    """One reply of a row; a preference row has two."""

    side: str
    """`reply`, `chosen` or `rejected`."""
    values: Mapping[str, Any]
    """Keys of the row, or of its side."""

    @property
    def text(self) -> str:
        return str(self.values.get("completion") or "")

    @property
    def calls(self) -> list[dict[str, Any]]:
        return list(self.values.get("tool_calls") or ())

    @property
    def token_ids(self) -> list[int] | None:
        """In the server's tokens, where it sampled the reply."""
        return self.values.get("token_ids")


class DatasetRow(NamedTuple):
    """A line of the file, which nobody has checked yet."""

    number: int
    """Of the line, from 1."""
    values: dict[str, Any]

    @property
    def kind(self) -> str:
        """Rows from before there were kinds are of kind `sft`."""
        return str(self.values.get("kind", "sft"))

    @property
    def origin(self) -> str | None:
        return self.values.get("origin")

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The prompt; none for a document."""
        return list(self.values.get("messages") or ())

    @property
    def text(self) -> str:
        """Of a document."""
        return str(self.values.get("text") or "")

    @property
    def parts(self) -> list[Part]:
        """The replies; none where nobody replies."""
        sides = [Part(name, self.values[name]) for name in SIDES if isinstance(self.values.get(name), dict)]
        return sides or ([Part("reply", self.values)] if "completion" in self.values else [])

    @property
    def policies(self) -> list[str]:
        named = (part.values.get("policy") for part in self.parts or [Part("prompt", self.values)])
        return [policy for policy in named if policy is not None]

    @property
    def prompt_token_ids(self) -> list[int] | None:
        return self.values.get("prompt_token_ids")

    @property
    def trace_ids(self) -> list[str]:
        named = (part.get("trace_id") for part in (self.values, *(part.values for part in self.parts)))
        return list(dict.fromkeys(trace_id for trace_id in named if trace_id is not None))

    @property
    def span_ids(self) -> list[str]:
        named = (part.get("span_ids") or () for part in (self.values, *(part.values for part in self.parts)))
        return list(dict.fromkeys(span_id for span_ids in named for span_id in span_ids))

    @property
    def asked(self) -> str:
        """What stands last in the prompt, or a document's text."""
        messages = self.messages
        return self.text if not messages else str(messages[-1].get("content") or "")

    @property
    def replied(self) -> str:
        """What is learned, in one text: replies, and the names of what they call."""
        return " | ".join(
            " ".join([part.text, *(f"{call.get('name')}(…)" for call in part.calls)]) for part in self.parts
        )


class Renderer(Protocol):
    """A base model's way to write rows; `methods/renderer.py` has it."""

    @property
    def stops(self) -> frozenset[int]:
        """The tokens at which a server of the model ends a reply."""

    def tokens(self, row: DatasetRow, part: Part) -> tuple[list[int], list[int]]:
        """Prompt and reply as training shows them: in the server's tokens where it sampled them, else as `again`."""

    def again(self, row: DatasetRow, part: Part) -> tuple[list[int], list[int]]:
        """The texts of both as tokens; raises `TrainingError` where the model's template can't write them."""

    def text(self, ids: Sequence[int]) -> str:
        """What the tokens say."""


def read_rows(path: Path) -> Iterator[DatasetRow]:
    """The rows of a file, one at a time; raises `TrainingError` where a line is none."""
    with regular(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield DatasetRow(number, _values(line, number, path))


def _values(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        values = from_json(line)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise TrainingError(f"{path}: line {number} isn't a JSON object: take it out, or mine the dataset again")
    return values
