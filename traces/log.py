"""The span log: append-only files of JSON lines, one file for each process, that lose no acknowledged span.

A line is the CRC-32 of the JSON in 8 hex characters, a space, the JSON, a newline. A crash or a full disk tears the
line being written, and no other.
"""

import json
import logging
import os
import secrets
import threading
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import PydanticSerializationError

from journeyman.traces.errors import StoreError
from journeyman.traces.record import Record

SPAN_VERSION = 1

_logger = logging.getLogger(__name__)


class SpanRecord(Record):
    """A finished span as it is on the disk."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    version: int = Field(default=SPAN_VERSION, ge=1, le=SPAN_VERSION)
    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    """`internal`, or `client` for a call to a server."""
    start_ns: int
    end_ns: int
    status: Literal["ok", "error"]
    attributes: dict[str, JsonValue]


class SpanLog:
    """Appends spans to this process's file in `directory`; any number of threads may share it."""

    def __init__(self, directory: Path, *, on_full: Literal["stop", "continue"] = "stop") -> None:
        """`on_full`: when the disk refuses, "stop" raises `StoreError`, "continue" counts the span in `dropped`."""
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self.path = directory / f"{started}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self.dropped = 0
        """Spans that the disk refused; always 0 with `on_full="stop"`."""
        self._on_full = on_full
        self._lock = threading.Lock()
        self._handle: int | None = None
        self._torn = False

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        """Hands the span to the kernel, so that it survives the process; with `sync` it survives the machine too."""
        line = _line(span)
        with self._lock:
            try:
                self._write(line)
                if sync:
                    os.fsync(self._open())
            except OSError as error:
                self._refused(error)

    def close(self) -> None:
        """Closes the file; a span that comes later opens it again."""
        with self._lock:
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None

    def _write(self, line: bytes) -> None:
        handle = self._open()
        # After a torn record a newline comes first, so that this one is not glued to it.
        rest = memoryview(b"\n" + line if self._torn else line)
        while rest:
            written = os.write(handle, rest)
            rest = rest[written:]
            self._torn = len(rest) > 0

    def _open(self) -> int:
        if self._handle is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _sync_folder(self.path.parent)
        return self._handle

    def _refused(self, error: OSError) -> None:
        if self._on_full == "stop":
            raise StoreError(
                f"a span was not written to {self.path}: {error.strerror}; what was written before it is intact"
            ) from error
        self.dropped += 1
        if self.dropped == 1:
            _logger.warning("spans are lost: %s cannot be written: %s", self.path, error.strerror)


class Damage(Record):
    """What a reader had to leave out."""

    torn: int = 0
    """Last records that a crash cut short, or that are being written at this moment."""
    corrupt: int = 0
    """Records whose checksum is wrong."""
    refused: int = 0
    """Intact records of a version, or of a form, that this journeyman does not know."""
    traces: int = 0
    """Traces whose spans are readable and make no sense together."""
    labels: int = 0
    """Label rows that cannot be read."""

    def __bool__(self) -> bool:
        return str(self) != ""

    def __str__(self) -> str:
        counts = {
            "torn spans": self.torn,
            "corrupt spans": self.corrupt,
            "spans of an unknown version": self.refused,
            "unusable traces": self.traces,
            "unreadable labels": self.labels,
        }
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


class Place(NamedTuple):
    """Where a record lies."""

    path: Path
    offset: int


class LogReader:
    """Reads the files of a directory, oldest first, also while other processes write them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.damage = Damage()
        """Counted anew by each pass over the log."""

    def __iter__(self) -> Iterator[SpanRecord]:
        return (span for _, span in self.scan())

    def scan(self) -> Iterator[tuple[Place, SpanRecord]]:
        """Every readable span with its place; raises `StoreError` if a file cannot be read at all."""
        counts = {"torn": 0, "corrupt": 0, "refused": 0}
        self.damage = Damage()
        for path in sorted(self._directory.glob("*.jsonl")):
            for offset, line in _lines(path):
                if line == b"\n":  # It ends a torn record.
                    continue
                span = _parse(line)
                if isinstance(span, SpanRecord):
                    yield Place(path, offset), span
                else:
                    counts[span] += 1
                    self.damage = Damage(**counts)

    def read(self, *places: Place) -> Iterator[SpanRecord]:
        """The spans at places that a scan gave."""
        for place in places:
            span = _parse(next(_lines(place.path, place.offset))[1])
            if not isinstance(span, SpanRecord):
                raise StoreError(f"{place.path} changed while it was read: the span at byte {place.offset} is gone")
            yield span


def read_spans(directory: Path) -> LogReader:
    """The spans of a log; `damage` of what is returned says what had to be left out."""
    return LogReader(directory)


def _line(span: SpanRecord) -> bytes:
    try:
        text = span.model_dump_json().encode()
    except PydanticSerializationError:
        # A model can write half a surrogate pair as a JSON escape; it has no UTF-8 form, and must not cost us the span.
        text = json.dumps(span.model_dump(), ensure_ascii=False).encode("utf-8", "replace")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _lines(path: Path, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            for line in file:
                yield offset, line
                offset += len(line)
    except OSError as error:
        raise StoreError(f"span log {path} cannot be read: {error.strerror}") from error


def _parse(line: bytes) -> SpanRecord | Literal["torn", "corrupt", "refused"]:
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return "corrupt" if line.endswith(b"\n") else "torn"
    try:
        return SpanRecord.model_validate_json(text)
    except ValidationError:
        return "refused"


def _sync_folder(folder: Path) -> None:
    """Makes the name of a new file as durable as its contents."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
