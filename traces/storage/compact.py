"""Compaction: closed log files become segments, small segments one bigger, and deleted traces leave both.

Whatever is replaced is deleted only after its segment is durable. A crash in between leaves both, readers take the
segment, and the next compaction deletes the rest; no reader or writer ever waits for it.
"""

import os
import secrets
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from journeyman.traces.base import Record
from journeyman.traces.errors import StoreError
from journeyman.traces.files import try_lock
from journeyman.traces.storage.columns import whole
from journeyman.traces.storage.layout import Progress, deleted_traces, lay_out, without
from journeyman.traces.storage.segment_file import GROUP_ROWS, Segment
from journeyman.traces.storage.segments import Segments

LOCK = "compact.lock"

SEGMENT_ROWS = 262_144
"""Spans of a full segment; those of half that size or less may be joined."""


class Compaction(Record):
    """What a compaction did."""

    busy: bool = False
    """Another compaction was at work, so this one did nothing."""
    live: int = 0
    """Log files that are still being written, and stay."""
    kept: int = 0
    """Closed log files with spans of a newer version, or whose texts are missing; they stay until they can be read."""
    files: int = 0
    """Log files that became segments."""
    spans: int = 0
    """Spans in them."""
    torn: int = 0
    """Damaged records in them, which are kept in `damaged/`."""
    merged: int = 0
    """Segments that were joined into bigger ones."""
    purged: int = 0
    """Segments that were written anew because they held deleted traces."""
    deleted: int = 0
    """Spans of deleted traces that are gone now."""
    bytes_before: int = 0
    """Of all log files and segments, before."""
    bytes_after: int = 0
    """The same, after."""


def compact(
    spans: Path,
    segments: Segments,
    *,
    fan_in: int = 2,
    purge: bool = True,
    processes: int = 1,
    progress: Progress | None = None,
) -> Compaction:
    """Compacts the log in `spans` into `segments`, in bounded memory; a second one at the same time returns at once.

    Small segments of a day are joined where at least `fan_in` are there; `purge` looks for deleted traces in segments
    too. A large log is laid out by so many `processes` at once. Raises `StoreError` if the disk or the network refuses;
    then nothing is lost, and the next one goes on.
    """
    if not spans.exists():
        return Compaction()
    with sole_compactor(spans) as origin:
        if origin is None:
            return Compaction(busy=True)
        compactor = _Compactor(spans, segments, origin, progress or (lambda what, done, total: None))
        return compactor.run(fan_in, purge, processes)


@contextmanager
def sole_compactor(spans: Path) -> Iterator[str | None]:
    """Keeps other compactions out while the block runs; gives a name of this folder, None if one is at work.

    On object storage a compaction joins only segments that bear this name, so that several machines may share a prefix.
    """
    try:
        file = try_lock(spans / LOCK)
    except OSError as error:
        raise StoreError(f"{spans / LOCK} cannot be opened: {error.strerror}") from error
    with file or nullcontext():
        if file is None:
            yield None
            return
        file.seek(0)
        origin = file.read().decode().strip()
        if not origin:
            origin = secrets.token_hex(4)
            file.write(origin.encode())
        yield origin


class _Compactor:
    def __init__(self, spans: Path, segments: Segments, origin: str, progress: Progress) -> None:
        self._spans = spans
        self._segments = segments
        self._origin = origin
        self._progress = progress
        self._deleted = deleted_traces(spans)
        self._counts: Counter[str] = Counter()

    def run(self, fan_in: int, purge: bool, processes: int) -> Compaction:
        self._counts["bytes_before"] = self._size()
        for partial in self._segments.partials():
            partial.unlink(missing_ok=True)
        files = self._segments.snapshot(self._spans).files
        self._counts.update(
            lay_out(self._spans, self._segments, self._origin, files, processes=processes, progress=self._progress)
        )
        self._delete_superseded()
        if purge and len(self._deleted):
            self._purge()
        self._merge(fan_in)
        self._counts["bytes_after"] = self._size()
        return Compaction(**self._counts)

    def _size(self) -> int:
        snapshot = self._segments.snapshot(self._spans)
        segments = sum(segment.size for segment in snapshot.segments + snapshot.superseded)
        return segments + sum(map(_file_size, snapshot.files))

    def _delete_superseded(self) -> None:
        """Also what a crash, or a failure, left behind."""
        snapshot = self._segments.snapshot(self._spans)
        waiting = list(snapshot.superseded)
        there = {path.name for path in snapshot.files}.union(one.name for one in (*snapshot.segments, *waiting))
        # What a segment replaced goes before it does: without its footer that would come back.
        while last := [segment for segment in waiting if there.isdisjoint(segment.footer.sources)]:
            for segment in last:
                self._segments.remove(segment.path)
                there.remove(segment.name)
                waiting.remove(segment)

    def _purge(self) -> None:
        segments = self._segments.snapshot().segments
        for done, segment in enumerate(segments):
            self._progress("deletions", done, len(segments))
            with suppress(StoreError, FileNotFoundError):  # A corrupt one is the doctor's.
                ids = self._segments.groups(segment.path, ["trace_id"])
                if any(pc.any(pc.is_in(group["trace_id"], self._deleted)).as_py() for group in ids):
                    self._replace([segment], map(self._without_deleted, self._segments.groups(segment.path)))
                    self._counts["purged"] += 1
        self._progress("deletions", len(segments), len(segments))

    def _merge(self, fan_in: int) -> None:
        groups = [group for group in self._mergeable() if len(group) >= fan_in]
        for done, group in enumerate(groups):
            self._progress("segments", done, len(groups))
            parts = (whole(table) for segment in group for table in self._segments.groups(segment.path))
            try:
                self._replace(group, _in_windows(parts))
            except StoreError:
                if self._segments.snapshot().damaged.keys().isdisjoint(segment.path for segment in group):
                    raise
            else:
                self._counts["merged"] += len(group)
        self._progress("segments", len(groups), len(groups))

    def _mergeable(self) -> Iterator[list[Segment]]:
        """Small segments of a day that follow each other and make a full one at most."""
        group: list[Segment] = []
        for segment in self._segments.snapshot().segments:
            small = segment.rows <= SEGMENT_ROWS // 2
            if not small or not (self._segments.local or f"-{self._origin}-" in segment.name):
                continue
            rows = sum(one.rows for one in group)
            if group and (group[0].day != segment.day or rows + segment.rows > SEGMENT_ROWS):
                yield group
                group = []
            group.append(segment)
        yield group

    def _replace(self, replaced: Sequence[Segment], tables: Iterable[pa.Table]) -> None:
        if self._write(tables, [segment.name for segment in replaced]):
            self._delete_superseded()
        else:
            for segment in replaced:
                self._segments.remove(segment.path)

    def _write(self, tables: Iterable[pa.Table], sources: list[str]) -> bool:
        """False if there was nothing to write."""
        some = (table.sort_by("start_ns") for table in tables if table.num_rows)
        first = next(some, None)
        if first is None:
            return False
        self._segments.write(chain([first], some), sources, origin=self._origin)
        return True

    def _without_deleted(self, table: pa.Table) -> pa.Table:
        kept = without(table, self._deleted)
        self._counts["deleted"] += table.num_rows - kept.num_rows
        return kept


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # A process that outlived its compaction has just replaced it.
        return 0


def _in_windows(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """A few row groups at a time, so that small ones become whole ones."""
    parts: list[pa.Table] = []
    for table in tables:
        parts.append(table)
        if sum(part.num_rows for part in parts) >= 4 * GROUP_ROWS:
            yield pa.concat_tables(parts)
            parts = []
    if parts:
        yield pa.concat_tables(parts)


if __name__ == "__main__":
    os.nice(10)
    compact(Path(sys.argv[1]), Segments(sys.argv[2]), fan_in=8, purge=False)
