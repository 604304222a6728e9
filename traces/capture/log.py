"""The span log: append-only files of JSON lines, one file for each process, that lose no acknowledged span.

A line is the CRC-32 of the JSON in 8 hex characters, a space, the JSON, a newline. A crash or a full disk tears the
line being written, and no other. Large repeated texts lie in `texts/`; the line names them by digest. A process holds
a kernel lock on the file it writes, so that compaction knows which files are closed, however their process ended.
"""

import logging
import os
import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from weakref import WeakSet

from journeyman.traces import attributes as a
from journeyman.traces.base import Record
from journeyman.traces.capture.growth import GROWING, Growths
from journeyman.traces.capture.span import SPAN_VERSION, SpanRecord, format_line, parse_line, shrunk, utc_day
from journeyman.traces.capture.texts import Texts
from journeyman.traces.capture.wholes import Wholes, part_of
from journeyman.traces.errors import StoreError
from journeyman.traces.files import make_folder, regular, sync, try_lock

__all__ = [
    "SPAN_VERSION",
    "Damage",
    "LogReader",
    "SpanLog",
    "SpanRecord",
    "parse_line",
    "read_spans",
    "utc_day",
]

ROTATE_BYTES = 16 * 2**20

_AT_A_TIME = 256
"""Spans of a write: half a megabyte or so stays in the processor's cache."""

_logger = logging.getLogger(__name__)


class SpanLog:
    """Appends spans to this process's file in `directory`; threads may share it, a fork begins a file of its own."""

    def __init__(
        self,
        directory: Path,
        *,
        on_full: Literal["stop", "continue"] = "stop",
        rotate_bytes: int = ROTATE_BYTES,
        on_rotate: Callable[[], None] | None = None,
    ) -> None:
        """`on_full`: when the disk refuses, "stop" raises `StoreError`, "continue" counts the span in `dropped`.

        A file that would grow beyond `rotate_bytes` is closed for good and another begun; then `on_rotate` is called
        by the thread that appends, which waits for it.
        """
        self.dropped = 0
        """Spans that the disk refused; always 0 with `on_full="stop"`."""
        self._directory = directory
        self._on_full = on_full
        self._rotate_bytes = rotate_bytes
        self._on_rotate = on_rotate
        self._texts = Texts(directory)
        self._handle: int | None = None
        self._begin()
        _logs.add(self)

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        """Hands the span to the kernel, so that it survives the process; with `sync` it survives the machine too."""
        self.append_many((span,), sync=sync)

    def append_many(self, spans: Sequence[SpanRecord], *, sync: bool) -> None:
        """The same for several, some at a time; if the disk refuses half-way, the first ones are kept."""
        with self._lock:
            left, rest = len(spans), memoryview(b"")
            try:
                self._open()  # Before a text is kept: while a file is locked, nobody removes texts.
                for start in range(0, len(spans), _AT_A_TIME):
                    some = spans[start : start + _AT_A_TIME]
                    path, lines = self.path, self._lines(some)
                    handle = self._file_for(len(lines))
                    if self.path != path:
                        lines = self._lines(some)  # A file says everything by itself: here nothing has grown yet.
                        self._size = len(lines)
                    left, rest = left - len(some), memoryview(lines)
                    while rest:
                        rest = rest[os.write(handle, rest) :]
                        self._torn = len(rest) > 0
                if sync:
                    os.fsync(self._open())
            except OSError as error:
                self._refused(error, left + bytes(rest).count(b"\n") or 1)

    def sync(self) -> None:
        """Returns once every span that was appended before is on the disk; others may be appended meanwhile."""
        with self._lock:
            # A twin, because the file may be full and closed before this is done; that syncs it too.
            handle = None if self._handle is None else os.dup(self._handle)
        if handle is not None:
            try:
                os.fsync(handle)
            except OSError as error:
                self._refused(error, 1)
            finally:
                os.close(handle)

    def close(self) -> None:
        """Closes the file; a span that comes later begins another."""
        with self._lock:
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None
                self._closed = True
                # Without an open file nobody can tell that this process still counts on texts that it kept before.
                self._texts = Texts(self._directory)

    def _lines(self, spans: Sequence[SpanRecord]) -> bytes:
        return b"".join([format_line(shrunk(span, self._growths), self._texts) for span in spans])

    def _begin(self) -> None:
        """Also in the child of a fork, where the lock may be held by a thread that does not exist there."""
        self._lock = threading.Lock()
        self._handle = None
        self._name_file()

    def _name_file(self) -> None:
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self.path = self._directory / f"{started}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self._size = 0
        self._growths = Growths()
        self._torn = False
        self._closed = False

    def _file_for(self, size: int) -> int:
        handle = self._open()
        if self._size and self._size + size > self._rotate_bytes:
            # The end of a trajectory, synced later, answers for its spans in this file too.
            os.fsync(handle)
            full, self._handle, self._closed = handle, None, True
            try:
                handle = self._open()
            finally:
                os.close(full)
            if self._on_rotate is not None:
                self._on_rotate()
        if self._torn:
            # A newline ends the torn record, so that the next one is not glued to it.
            os.write(handle, b"\n")
            self._torn = False
        self._size += size
        return handle

    def _open(self) -> int:
        while self._handle is None:
            if self._closed:
                self._name_file()
            make_folder(self.path.parent)
            with try_lock(self.path, mode=0o600) or nullcontext() as file:
                self._closed = file is None  # By a compaction, since its name appeared.
                if file is not None:
                    sync(self.path.parent)
                    self._handle = os.dup(file.fileno())
        return self._handle

    def _refused(self, error: OSError, spans: int) -> None:
        self._growths = Growths()  # Nothing may have grown from a span that isn't there.
        if self._on_full == "stop":
            raise StoreError(
                f"a span was not written to {self.path}: {error.strerror}; what was written before it is intact"
            ) from error
        if self.dropped == 0:
            _logger.warning("spans are lost: %s cannot be written: %s", self.path, error.strerror)
        self.dropped += spans


class Damage(Record):
    """What a reader had to leave out."""

    torn: int = 0
    """Last records that a crash cut short, or that are being written at this moment."""
    corrupt: int = 0
    """Records whose checksum is wrong."""
    refused: int = 0
    """Intact records of a version, or of a form, that this journeyman does not know."""
    texts: int = 0
    """Texts that are missing, or what a prompt grew from; their spans are there without them."""
    segments: int = 0
    """Segments that cannot be read."""
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
            "missing texts": self.texts,
            "corrupt segments": self.segments,
            "unusable traces": self.traces,
            "unreadable labels": self.labels,
        }
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


class LogReader:
    """Reads the files of a directory, oldest first, also while other processes write and compact them."""

    def __init__(
        self,
        directory: Path,
        *,
        files: Sequence[Path] | None = None,
        replaced: Mapping[str, Collection[str]] | None = None,
        whole: bool = True,
    ) -> None:
        """`files`: those to read, all that there are by default.

        `replaced`: names of files, and the UTC days of which their spans lie in a segment by now. Without `whole`, of
        lists that grew come the new parts, as they are on the disk.
        """
        self._directory = directory
        self._files = files
        self._replaced = replaced or {}
        self._whole = whole
        self._texts = Texts(directory)
        self.damage = Damage()
        """Counted anew by each pass over the log."""
        self.vanished: tuple[str, ...] = ()
        """Files that the last pass listed and did not find any more: a segment written since then has their spans."""

    def __iter__(self) -> Iterator[SpanRecord]:
        """Every readable span; raises `StoreError` if a file cannot be read at all."""
        self.damage, self.vanished = Damage(), ()
        for path in sorted(self._directory.glob("*.jsonl")) if self._files is None else self._files:
            try:
                yield from self.scan_file(path)
            except FileNotFoundError:
                self.vanished += (path.name,)

    def scan_file(self, path: Path) -> Iterator[SpanRecord]:
        """The same for one file; adds to `damage`. Raises `FileNotFoundError`."""
        days = self._replaced.get(path.name, ())
        earlier: dict[tuple[str, str], SpanRecord] = {}
        wholes = Wholes(lambda trace_id, span_id, name: part_of(earlier.get((trace_id, span_id)), name))
        for line in _lines(path):
            if line == b"\n":  # It ends a torn record.
                continue
            span, flaw = parse_line(line, self._texts)
            if span is not None and self._whole and any(name in span.attributes for name in GROWING):
                earlier[span.trace_id, span.span_id] = span
                span = wholes.span(span)
                flaw = flaw or ("texts" if a.DIGEST_ONLY in map(span.attributes.get, GROWING) else "")
            if flaw:
                self.damage = self.damage.model_copy(update={flaw: getattr(self.damage, flaw) + 1})
            if span is not None and not (days and utc_day(span.start_ns) in days):
                yield span


def read_spans(directory: Path) -> LogReader:
    """The spans of a log; `damage` of what is returned says what had to be left out."""
    return LogReader(directory)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with regular(path).open("rb") as file:
            yield from file
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"span log {path} cannot be read: {error.strerror}") from error


_logs: WeakSet[SpanLog] = WeakSet()


def _after_fork() -> None:
    for log in list(_logs):
        if log._handle is not None:
            os.close(log._handle)  # The lock stays with the parent, whose file it is.
        log._begin()


os.register_at_fork(after_in_child=_after_fork)
