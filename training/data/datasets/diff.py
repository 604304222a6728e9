"""What tells two datasets apart: rows that came, that went, and that changed."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from journeyman.traces.base import Record
from journeyman.training.data.datasets.rows import DatasetRow, read_rows

Key = tuple[str, ...]


class ChangedRow(Record):
    """A row of the same recorded reply, prompt or document in both."""

    before: int
    """Its number in the first dataset."""
    after: int
    fields: tuple[str, ...]
    """Keys whose values differ."""


class Difference(Record):
    same: int
    came: tuple[int, ...]
    """Numbers in the second dataset."""
    went: tuple[int, ...]
    """Numbers in the first dataset."""
    changed: tuple[ChangedRow, ...]


def diff(first: Path, second: Path) -> Difference:
    """Rows are the same where they are equal, wherever they stand; changed where they begin at the same spans."""
    older, newer = (Counter(map(_digest, read_rows(path))) for path in (first, second))
    rows = older.total()
    left, new = _without(read_rows(first), newer), _without(read_rows(second), older)
    waiting: defaultdict[Key, list[DatasetRow]] = defaultdict(list)
    for row in new:
        waiting[_key(row)].append(row)
    changed, went = list[ChangedRow](), list[int]()
    for row in left:
        if waiting[key := _key(row)]:
            changed.append(_changed(row, waiting[key].pop(0)))
        else:
            went.append(row.number)
    came = sorted(row.number for rows in waiting.values() for row in rows)
    return Difference(same=rows - len(left), came=tuple(came), went=tuple(went), changed=tuple(changed))


def _without(rows: Iterable[DatasetRow], known: Counter[bytes]) -> list[DatasetRow]:
    """The rows that `known` doesn't have, or not as often. Only these are held in memory."""
    left = []
    for row in rows:
        if known[digest := _digest(row)]:
            known[digest] -= 1
        else:
            left.append(row)
    return left


def _digest(row: DatasetRow) -> bytes:
    return sha256(to_json(dict(sorted(row.values.items())))).digest()


def _key(row: DatasetRow) -> Key:
    """What a row is made of: the first span of each reply, or a document's sources."""
    sources = (part.values for part in row.parts) if row.parts else (row.values,)
    return (row.kind, str(row.values.get("agent")), *(_begins(values) for values in sources))


def _begins(values: Any) -> str:
    named = values.get("span_ids") or values.get("sources") or [""]
    return str(named[0])


def _changed(before: DatasetRow, after: DatasetRow) -> ChangedRow:
    names = dict.fromkeys((*before.values, *after.values))
    fields = tuple(name for name in names if before.values.get(name) != after.values.get(name))
    return ChangedRow(before=before.number, after=after.number, fields=fields)
