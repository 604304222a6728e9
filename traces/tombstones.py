"""Tombstones: which traces were deleted, when and why. From the moment one is written, no reader shows the trace.

They keep no content. A process that still runs a deleted trace may go on writing it: its spans stay hidden too.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from time import time_ns

from pydantic import Field, ValidationError

from journeyman.traces.base import Record
from journeyman.traces.errors import StoreError
from journeyman.traces.files import RowFile

# Not `.jsonl`: whatever has that name in the folder is a span log.
FILE = "tombstones.log"


class Tombstone(Record):
    """One deletion."""

    version: int = Field(default=1, ge=1, le=1)
    at_ns: int = Field(default_factory=time_ns)
    reason: str
    """Who or what asked, e.g. `user` or `older than 30 days`; never what the traces held."""
    trace_ids: tuple[str, ...] = Field(min_length=1)
    spans: int = 0
    """How many spans the traces had when they were deleted."""
    labels: int = 0


class Tombstones:
    """The tombstones of a span log's folder; any number of processes may add and read."""

    def __init__(self, spans: Path) -> None:
        self._rows = RowFile(spans / FILE)
        self._known: tuple[tuple[int, int, int] | None, frozenset[str]] = (None, frozenset())

    def trace_ids(self) -> frozenset[str]:
        """Ids of all deleted traces. The file is read again only where it has changed."""
        state = self._state()
        if state != self._known[0]:
            ids = frozenset(trace_id for tombstone in self for trace_id in tombstone.trace_ids)
            self._known = (state, ids)
        return self._known[1]

    def add(self, trace_ids: Collection[str], *, reason: str, spans: int = 0, labels: int = 0) -> Tombstone:
        """Writes a tombstone durably; raises `StoreError` if the disk refuses, and then nothing was deleted."""
        stone = Tombstone(reason=reason, trace_ids=tuple(sorted(trace_ids)), spans=spans, labels=labels)
        try:
            self._rows.append(stone.model_dump_json().encode() + b"\n")
        except OSError as error:
            raise StoreError(f"{self._rows.path} was not written: {error.strerror}; nothing was deleted") from error
        return stone

    def __iter__(self) -> Iterator[Tombstone]:
        """Every deletion, oldest first; a row torn by a crash was never acknowledged and is left out."""
        try:
            for number, line in enumerate(self._rows, start=1):
                if stone := self._parse(number, line):
                    yield stone
        except OSError as error:
            raise StoreError(f"{self._rows.path} cannot be read: {error.strerror}") from error

    def _parse(self, number: int, line: bytes) -> Tombstone | None:
        try:
            return Tombstone.model_validate_json(line)
        except ValidationError as error:
            if error.errors()[0]["type"] == "json_invalid":
                return None  # Torn by a crash: its deletion was never acknowledged.
            raise StoreError(
                f"{self._rows.path}, line {number}: no tombstone that this journeyman knows: take a newer one"
            ) from None

    def _state(self) -> tuple[int, int, int] | None:
        try:
            status = self._rows.path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns
