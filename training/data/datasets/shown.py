"""Rows as a person looks at them: a line each, or one in full with what of it is learned."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError, TrainingError
from journeyman.traces.messages import as_json
from journeyman.traces.storage.store import TraceStore
from journeyman.training.data.datasets.rows import DatasetRow, Part, Renderer, read_rows


class RowFilter(Record):
    """Rows that meet every condition given."""

    origin: str | None = None
    policy: str | None = None
    """Of one of its replies."""
    family: str | None = None
    """Of its task."""
    contains: str | None = None
    """Stands in a message, a reply or the document; letters may be large or small."""


class RowLine(Record):
    """A row in short."""

    number: int
    kind: str
    origin: str | None
    policies: tuple[str, ...]
    family: str | None
    weight: float
    tokens: int | None
    """Of prompt and replies in the server's tokens; None where it didn't sample them."""
    asked: str
    """What stands last in the prompt, or a document's text."""
    replied: str


class Piece(Record):
    """A part of what the model is shown."""

    text: str
    learned: bool
    """Whether the loss is computed on it."""
    token_id: int | None = None
    """None where no tokenizer is at hand: then it is a whole message or reply."""


class MaskedReply(Record):
    """One reply of a row in its prompt."""

    side: str
    """`reply`, `chosen`, `rejected`; `prompt` and `document` where nobody replies."""
    pieces: tuple[Piece, ...]

    @property
    def learned(self) -> int:
        return sum(piece.learned for piece in self.pieces)


class WholeRow(Record):
    number: int
    values: dict[str, Any]
    """The row as it stands in the file."""
    masked: tuple[MaskedReply, ...]
    without_tokens: str | None = None
    """Why it isn't in the model's tokens, where a renderer was given."""


def row_lines(dataset: Path, wanted: RowFilter, store: TraceStore) -> Iterator[RowLine]:
    """The rows that are wanted, in the file's order."""
    runs = store.sql("SELECT trace_id, family FROM traces WHERE family IS NOT NULL")
    families = dict(zip(runs["trace_id"].to_pylist(), runs["family"].to_pylist(), strict=True))
    for row in read_rows(dataset):
        if _is_wanted(row, wanted, families):
            yield _line(row, families)


def whole_row(dataset: Path, number: int, renderer: Renderer | None) -> WholeRow:
    """A row in full, in the model's tokens where a renderer is given; raises `ConfigError` where there is none."""
    last = 0
    for row in read_rows(dataset):
        last = row.number
        if row.number == number:
            return _whole(row, renderer)
    raise ConfigError(f"{dataset.name} has no row {number}: its last row is {last}")


def _whole(row: DatasetRow, renderer: Renderer | None) -> WholeRow:
    without = None
    try:
        masked = tuple(_masked(row, renderer))
    except TrainingError as error:
        masked, without = tuple(_masked(row, None)), str(error)
    return WholeRow(number=row.number, values=row.values, masked=masked, without_tokens=without)


def _is_wanted(row: DatasetRow, wanted: RowFilter, families: Mapping[str, str]) -> bool:
    return (
        (wanted.origin is None or row.origin == wanted.origin)
        and (wanted.policy is None or wanted.policy in row.policies)
        and (wanted.family is None or wanted.family in (families.get(trace_id) for trace_id in row.trace_ids))
        and (wanted.contains is None or _holds(row, wanted.contains.lower()))
    )


def _holds(row: DatasetRow, text: str) -> bool:
    texts = (row.text, row.replied, *(str(message.get("content")) for message in row.messages))
    return any(text in one.lower() for one in texts)


def _line(row: DatasetRow, families: Mapping[str, str]) -> RowLine:
    counts = [len(ids) for ids in (row.prompt_token_ids, *(part.token_ids for part in row.parts)) if ids]
    return RowLine(
        number=row.number,
        kind=row.kind,
        origin=row.origin,
        policies=tuple(dict.fromkeys(row.policies)),
        family=next((families[one] for one in row.trace_ids if one in families), None),
        weight=row.values.get("weight", 1.0),
        tokens=sum(counts) or None,
        asked=row.asked,
        replied=row.replied,
    )


def _masked(row: DatasetRow, renderer: Renderer | None) -> Iterator[MaskedReply]:
    for part in row.parts:
        yield MaskedReply(side=part.side, pieces=tuple(_pieces(row, part, renderer)))
    if not row.parts:
        shown = [*(Piece(text=_said(message), learned=False) for message in row.messages)]
        text = [Piece(text=row.text, learned=True)] if row.text else []
        yield MaskedReply(side="document" if row.text else "prompt", pieces=(*shown, *text))


def _pieces(row: DatasetRow, part: Part, renderer: Renderer | None) -> Iterator[Piece]:
    if renderer is not None:
        for ids, learned in zip(renderer.tokens(row, part), (False, True), strict=True):
            yield from (Piece(text=renderer.text([token]), learned=learned, token_id=token) for token in ids)
        return
    for message in row.messages:
        yield Piece(text=_said(message), learned=False)
    yield Piece(text="\n".join([part.text, *map(_call, part.calls)]).strip("\n"), learned=True)


def _said(message: Mapping[str, Any]) -> str:
    calls = "".join(f"\n{_call(call)}" for call in message.get("tool_calls") or ())
    return f"{message.get('role')}: {message.get('content')}{calls}"


def _call(call: Mapping[str, Any]) -> str:
    return f"{call.get('name')}({as_json(call.get('arguments'))})"
