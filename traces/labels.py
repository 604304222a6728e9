"""Labels: what anyone says later of a trace or a span; rows of their own, never edits of a span."""

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from time import time_ns
from typing import Literal

from pydantic import Field, FiniteFloat, ValidationError

from journeyman.traces.base import Record
from journeyman.traces.errors import StoreError
from journeyman.traces.files import RowFile


class Label(Record):
    """One statement, keyed by trace, span, name, source and version."""

    trace_id: str
    span_id: str | None = None
    """None for a label of the whole trace."""
    name: str
    """What is stated, e.g. `score`; of people also `thumbs` (true or false), `comment` and `edit` (a better reply)."""
    source: str
    """Who states it: a scorer's name, a person."""
    source_type: Literal["human", "code", "llm_judge"] = "code"
    """What kind of source that is, in MLflow's words."""
    version: int = 1
    """Of the source's statement, e.g. of its scorer: the highest one counts, the earlier ones stay as history."""
    value: bool | FiniteFloat | str
    comment: str | None = None
    at_ns: int = Field(default_factory=time_ns)


class LabelLog:
    """An append-only file of labels; any number of processes may append. Only a deletion takes labels away."""

    def __init__(self, path: Path) -> None:
        self._rows = RowFile(path)
        self.damaged = 0
        """Rows that the last pass could not read."""

    def append(self, *labels: Label) -> None:
        """Writes all the labels durably or none; raises `StoreError` if the disk refuses."""
        rows = "".join(label.model_dump_json() + "\n" for label in labels).encode()
        try:
            self._rows.append(rows)
        except OSError as error:
            raise StoreError(f"labels were not written to {self._rows.path}: {error.strerror}") from error

    def __iter__(self) -> Iterator[Label]:
        self.damaged = 0
        try:
            for line in self._rows:
                try:
                    yield Label.model_validate_json(line)
                except ValidationError:
                    self.damaged += 1  # Torn by a crash: its label was never acknowledged.
        except OSError as error:
            raise StoreError(f"labels {self._rows.path} cannot be read: {error.strerror}") from error

    def remove(self, trace_ids: Collection[str]) -> int:
        """Takes the labels of those traces off the disk, and torn rows with them; says how many labels there were."""
        ids = frozenset(trace_ids)
        removed = 0

        def keep(line: bytes) -> bool:
            nonlocal removed
            try:
                row = json.loads(line)
            except ValueError:
                return False
            deleted = isinstance(row, dict) and str(row.get("trace_id")) in ids
            removed += deleted
            return not deleted

        try:
            self._rows.rewrite(keep)
        except OSError as error:
            raise StoreError(f"labels {self._rows.path} were not rewritten: {error.strerror}") from error
        return removed


def newest(labels: Iterable[Label]) -> list[Label]:
    """Of each label its last word: for one trace, span, name and source the highest version, of that the latest row."""
    last: dict[tuple[str, str | None, str, str], Label] = {}
    for label in labels:
        known = last.get(_key(label))
        if known is None or (known.version, known.at_ns) <= (label.version, label.at_ns):
            last[_key(label)] = label
    return list(last.values())


def unsaid(said: Iterable[Label], known: Iterable[Label]) -> list[Label]:
    """Of each source its last word, where `known` does not have it, or has another one that is older.

    For labels that come from elsewhere: times are compared, in the milliseconds that MLflow keeps, as a version counts
    only among labels of one place.
    """
    last = {_key(label): label for label in newest(_unnumbered(known))}
    return [
        label
        for label in newest(_unnumbered(said))
        if (before := last.get(_key(label))) is None
        or (_statement(before) != _statement(label) and before.at_ns // 10**6 < label.at_ns // 10**6)
    ]


def numbered(labels: Iterable[Label], known: Iterable[Label]) -> list[Label]:
    """The labels, each with the version after the last one that is known of its source."""
    versions = {_key(label): label.version for label in newest(known)}
    return [label.model_copy(update={"version": versions.get(_key(label), 0) + 1}) for label in labels]


def _unnumbered(labels: Iterable[Label]) -> Iterator[Label]:
    return (label.model_copy(update={"version": 1}) for label in labels)


def _key(label: Label) -> tuple[str, str | None, str, str]:
    return label.trace_id, label.span_id, label.name, label.source


def _statement(label: Label) -> tuple[type, bool | float | str, str | None]:
    return type(label.value), label.value, label.comment
