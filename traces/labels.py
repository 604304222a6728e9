"""Labels: what anyone says later of a trace or a span; rows of their own, never edits of a span."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from time import time_ns

from pydantic import Field, FiniteFloat, ValidationError

from journeyman.traces.errors import StoreError
from journeyman.traces.record import Record


class Label(Record):
    """One statement, keyed by trace, span, name, source and version."""

    trace_id: str
    span_id: str | None = None
    """None for a label of the whole trace."""
    name: str
    """What is stated, e.g. `score`."""
    source: str
    """Who states it: a scorer's name, a person."""
    version: int = 1
    value: bool | FiniteFloat | str
    comment: str | None = None
    at_ns: int = Field(default_factory=time_ns)


class LabelLog:
    """An append-only file of labels; any number of processes may append."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damaged = 0
        """Rows that the last pass could not read."""

    def append(self, *labels: Label) -> None:
        """Writes all the labels durably or none; raises `StoreError` if the disk refuses."""
        rows = "".join(label.model_dump_json() + "\n" for label in labels).encode()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                _append(file, rows)
        except OSError as error:
            raise StoreError(f"labels were not written to {self._path}: {error.strerror}") from error

    def __iter__(self) -> Iterator[Label]:
        self.damaged = 0
        if not self._path.exists():
            return
        try:
            with self._path.open("rb") as file:
                for line in file:
                    try:
                        yield Label.model_validate_json(line)
                    except ValidationError:
                        self.damaged += 1  # Torn by a crash: its label was never acknowledged.
        except OSError as error:
            raise StoreError(f"labels {self._path} cannot be read: {error.strerror}") from error


def _append(file: FileIO, rows: bytes) -> None:
    """Appends under the writer's lock, after a row that a crash tore on a line of its own."""
    end = file.seek(0, os.SEEK_END)
    if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
        rows = b"\n" + rows
    try:
        rest = memoryview(rows)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            file.truncate(end)
        raise
