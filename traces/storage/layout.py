"""Layout: closed log files become segments, a batch after the other, in one process or in several.

A batch's files are deleted only after its segments are durable. Processes need not know of each other: each locks the
files that it lays out, and leaves alone what is locked. Two took 33 s for a log of 118 MiB where one took 46 s.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from io import FileIO
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from journeyman.traces.capture.growth import Growths
from journeyman.traces.capture.log import LogReader, SpanRecord, parse_line, utc_day
from journeyman.traces.capture.span import shrunk
from journeyman.traces.errors import StoreError
from journeyman.traces.files import lock_closed, sync, whole_file
from journeyman.traces.storage.columns import to_table
from journeyman.traces.storage.segments import Segments
from journeyman.traces.tombstones import Tombstones

SHARE_BYTES = 16 * 2**20
"""So much of the log, two seconds of work, is worth a process of its own, which takes half a second to start."""

Progress = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is done, and how much there is."""

_BATCH_BYTES = 64 * 2**20
_BATCH_FILES = 256
"""At most so much of the log becomes a segment at once."""

_CHUNK = 4096
_DAY_NS = 86_400 * 10**9


def lay_out(
    spans: Path, segments: Segments, origin: str, files: Sequence[Path], *, processes: int, progress: Progress
) -> Counter[str]:
    """Makes segments of those of `files` that are closed, and counts as `Compaction` does.

    At most so many `processes` work at once, each on files that follow each other. Raises `StoreError` if the disk or
    the network refuses; what is not in a segment by then is still in its file.
    """
    own, *others = _shares(files, processes)
    layout = _Layout(spans, segments, origin)
    # Begun afresh: a fork would share what threads of Arrow hold.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        helpers = [pool.submit(_help, spans, segments.root, origin, share) for share in others]
        for done, batch in layout.batches(own):
            progress("log files", done, len(files))
            layout.replace(batch)
    progress("log files", len(files), len(files))
    for helper in helpers:
        try:
            layout.counts.update(helper.result())
        except BrokenProcessPool as error:
            raise StoreError(f"a process that compacted {spans} died: {error}") from None
    return layout.counts


def without(table: pa.Table, deleted: pa.Array) -> pa.Table:
    """The table less the spans of deleted traces."""
    return table.filter(pc.invert(pc.is_in(table["trace_id"], deleted))) if len(deleted) else table


def deleted_traces(spans: Path) -> pa.Array:
    return pa.array(sorted(Tombstones(spans).trace_ids()), pa.string())


class _Layout:
    """What one process does."""

    def __init__(self, spans: Path, segments: Segments, origin: str) -> None:
        self.counts: Counter[str] = Counter()
        self._spans = spans
        self._segments = segments
        self._origin = origin
        self._deleted = deleted_traces(spans)

    def batches(self, files: Sequence[Path]) -> Iterator[tuple[int, list[tuple[Path, FileIO]]]]:
        """Closed files, locked, a few at a time; and how many files were looked at before."""
        done = size = 0
        batch: list[tuple[Path, FileIO]] = []
        try:
            for place, path in enumerate(files, 1):
                handle = _closed(path)
                if handle is None:
                    self.counts["live"] += path.exists()
                    continue
                batch.append((path, handle))
                size += os.fstat(handle.fileno()).st_size
                if size >= _BATCH_BYTES or len(batch) >= _BATCH_FILES:
                    yield done, batch
                    done, size, batch = place, 0, []
            if batch:
                yield done, batch
        finally:
            for _, handle in batch:
                handle.close()

    def replace(self, batch: list[tuple[Path, FileIO]]) -> None:
        """Writes the segments of a batch, one a day, and deletes its files."""
        days: dict[str, list[pa.Table]] = defaultdict(list)
        sources: dict[str, list[str]] = defaultdict(list)
        finished = []
        try:
            # Of files that are locked by now: nobody else is making segments of them.
            replaced = self._segments.snapshot().replaced
            for path, _ in batch:
                with suppress(_KeptError):
                    for day, parts in self._read(path, replaced).items():
                        days[day] += parts
                        sources[day].append(path.name)
                    finished.append(path)
            for day, parts in days.items():
                self._segments.write(pa.concat_tables(parts), sources[day], origin=self._origin)
            for path in finished:
                path.unlink(missing_ok=True)
            # Durably, before their segments are replaced themselves and can no longer speak for them.
            sync(self._spans)
        finally:
            for _, handle in batch:
                handle.close()
        self.counts["files"] += len(finished)

    def _read(self, path: Path, replaced: Mapping[str, Collection[str]]) -> dict[str, list[pa.Table]]:
        """What is left of a file to be put into segments, by day."""
        reader = LogReader(self._spans, files=[path], replaced=replaced, whole=False)
        days: dict[str, list[pa.Table]] = defaultdict(list)
        read = 0
        for day, table in _tables_by_day(reader, self._segments):
            read += table.num_rows
            kept = without(table, self._deleted)
            if kept.num_rows:
                days[day].append(kept)
        if reader.damage.refused or reader.damage.texts:
            self.counts["kept"] += 1
            raise _KeptError
        torn = reader.damage.torn + reader.damage.corrupt
        if torn:
            _set_aside(path)
        spans = sum(part.num_rows for parts in days.values() for part in parts)
        self.counts.update(torn=torn, spans=spans, deleted=read - spans)
        return days


class _KeptError(Exception):
    """A closed log file stays as it is."""


def _help(spans: Path, root: str, origin: str, files: Sequence[Path]) -> Counter[str]:
    """Lays out a share of the files, in a process of its own."""
    layout = _Layout(spans, Segments(root), origin)
    for _, batch in layout.batches(files):
        layout.replace(batch)
    return layout.counts


def _shares(files: Sequence[Path], processes: int) -> list[list[Path]]:
    """The files in runs of about as many bytes each; the first may be empty."""
    sizes = [path.stat().st_size for path in files]
    total = sum(sizes)
    shares: list[list[Path]] = [[] for _ in range(max(1, min(processes, total // SHARE_BYTES)))]
    before = 0
    for path, size in zip(files, sizes, strict=True):
        shares[min(before * len(shares) // max(1, total), len(shares) - 1)].append(path)
        before += size
    return shares


def _closed(path: Path) -> FileIO | None:
    """The file, locked, if it is there and no process writes it any more."""
    try:
        return lock_closed(path)
    except OSError as error:
        raise StoreError(f"span log {path} cannot be read: {error.strerror}") from error


def _set_aside(path: Path) -> None:
    """Keeps the damaged records of a log file, for whoever can make sense of them."""
    with path.open("rb") as file, whole_file(path.parent / "damaged" / path.name) as copy:
        copy.writelines(line for line in file if parse_line(line, {})[1] in ("torn", "corrupt") and line != b"\n")


def _tables_by_day(spans: Iterable[SpanRecord], segments: Segments) -> Iterator[tuple[str, pa.Table]]:
    """Spans as tables of a few thousand, each of one UTC day; their large texts are durable in `segments.texts`.

    Prompts that older logs have whole are shrunk.
    """
    growths = Growths()
    rest = (shrunk(span, growths) for span in spans)
    while chunk := list(islice(rest, _CHUNK)):
        table = to_table(chunk, segments.texts)
        days = pc.divide(table["start_ns"], _DAY_NS)
        distinct = pc.unique(days).to_pylist()
        for day in distinct:
            yield utc_day(day * _DAY_NS), table if len(distinct) == 1 else table.filter(pc.equal(days, day))
