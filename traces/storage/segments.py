"""Segments: immutable Parquet files of spans, a folder for each UTC day, on a disk or on object storage.

A footer names the log files and segments that its segment replaces for its day, and readers leave those out. So a
segment takes over in the instant in which its name appears; what it replaces can be deleted at leisure.
"""

import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from journeyman.traces.base import Record
from journeyman.traces.capture.log import utc_day
from journeyman.traces.capture.texts import Texts, filesystem_of, is_local
from journeyman.traces.errors import StoreError
from journeyman.traces.files import PARTIAL, is_closed, regular
from journeyman.traces.storage.columns import with_all_columns
from journeyman.traces.storage.segment_file import (
    CORRUPT,
    Segment,
    corrupt,
    name_of,
    open_parquet,
    read_segment,
    reason,
    write_locally,
    write_parquet,
)

T = TypeVar("T")

_TAIL_BYTES = 256 * 1024


class Snapshot(Record):
    """What there is to read at one moment: each span is in one of `files` or `segments`, and in one only."""

    files: tuple[Path, ...] = ()
    """Log files, listed before the segments; `LogReader` wants `replaced` beside them."""
    segments: tuple[Segment, ...]
    """Those that are not replaced, by day and start."""
    superseded: tuple[Segment, ...]
    """Those that are, and are still there."""
    replaced: Mapping[str, frozenset[str]]
    """Names of log files and segments, and the days for which a segment holds their spans."""
    damaged: Mapping[str, str]
    """Segments that cannot be read, and why."""

    def paths(self, since_ns: int | None = None, until_ns: int | None = None) -> list[str]:
        """Segments with spans that start in [since, until)."""
        return [
            segment.path
            for segment in self.segments
            if (since_ns is None or segment.footer.last_ns >= since_ns)
            and (until_ns is None or segment.footer.first_ns < until_ns)
        ]


class Segments:
    """The segments of a root: a folder (a workspace's `spans`) or an fsspec URL such as `s3://bucket/prefix`.

    Under the root are `segments/day=YYYY-MM-DD/*.parquet`, `texts/` and `damaged/`.
    """

    def __init__(self, root: str | Path) -> None:
        """Credentials of object storage come from the environment; raises `ConfigError` for an unknown kind of URL."""
        self.root = str(root)
        self.filesystem, self._root = filesystem_of(root)
        self.local = is_local(root)
        self.texts = Texts(root)
        self._known: dict[str, Segment] = {}
        self._damaged: dict[str, str] = {}

    def snapshot(self, spans: Path | None = None) -> Snapshot:
        """What there is now; with `spans`, the folder of the log, its files too."""
        files = () if spans is None else tuple(sorted(spans.glob("*.jsonl")))
        found = self._found()
        replaced: dict[str, frozenset[str]] = {}
        for segment in found:
            for source in segment.footer.sources:
                replaced[source] = replaced.get(source, frozenset()) | {segment.day}
        return Snapshot(
            files=files,
            segments=tuple(segment for segment in found if segment.name not in replaced),
            superseded=tuple(segment for segment in found if segment.name in replaced),
            replaced=replaced,
            damaged=dict(self._damaged),
        )

    def paths(self, since_ns: int | None = None, until_ns: int | None = None) -> list[str]:
        """Segments to read, with spans that start in [since, until)."""
        return self.snapshot().paths(since_ns, until_ns)

    def write(self, tables: pa.Table | Iterable[pa.Table], sources: Iterable[str] = (), *, origin: str = "") -> str:
        """Writes one segment, of spans of one UTC day, and gives its path; on return it is durable.

        A single table is sorted by start; several are written in the order given, in bounded memory. `sources` are
        names or paths of what the segment replaces; `origin` becomes part of its name. Raises `StoreError` if the disk
        or the network refuses: then there is no segment.
        """
        chunks = iter([tables.sort_by("start_ns")] if isinstance(tables, pa.Table) else tables)
        first = next(chunks)
        start_ns = first["start_ns"][0].as_py()
        day = utc_day(start_ns)
        path = f"{self._root}/segments/day={day}/{start_ns:019d}-{origin}-{secrets.token_hex(6)}.parquet"
        names = tuple(sorted({name_of(source) for source in sources}))
        try:
            if self.local:
                write_locally(Path(path), chain([first], chunks), names, day)
            else:
                self._upload(path, chain([first], chunks), names, day)
        except OSError as error:
            raise StoreError(f"segment {path} was not written: {reason(error)}; what it was made from is") from error
        return path

    def read(self, path: str) -> pa.Table:
        """The whole segment; raises `FileNotFoundError` if it was replaced since, `StoreError` if it is corrupt."""
        return pa.concat_tables(self.groups(path))

    def groups(self, path: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The same, a row group at a time, and only `columns` where they are given."""
        source = path if self.local else pa.BufferReader(_remotely(lambda: self.filesystem.cat_file(path)))
        try:
            with open_parquet(source) as file:
                for number in range(file.num_row_groups):
                    table = file.read_row_group(number, columns=columns)
                    yield with_all_columns(table) if columns is None else table
        except FileNotFoundError:
            raise
        except CORRUPT as error:
            self._damaged[path] = reason(error)
            raise corrupt(path, error) from error

    def check(self) -> Mapping[str, str]:
        """Reads every page against its checksum, and gives what is damaged and why; `snapshot` leaves that out then."""
        for segment in self.snapshot().segments:
            with suppress(StoreError, FileNotFoundError):
                for _ in self.groups(segment.path):
                    pass
        return self.snapshot().damaged

    def remove(self, path: str) -> None:
        """Deletes a segment, if it is still there."""
        with suppress(FileNotFoundError):
            _remotely(lambda: self.filesystem.rm_file(path))

    def set_aside(self, path: str) -> str:
        """Moves a corrupt segment to `damaged/`, and gives its path there."""
        place = f"{self._root}/damaged/{name_of(path)}"
        _remotely(lambda: self.filesystem.makedirs(f"{self._root}/damaged", exist_ok=True))
        _remotely(lambda: self.filesystem.mv(path, place))
        return place

    def aside(self) -> list[str]:
        """Names of what lies in `damaged/`."""
        return sorted(map(name_of, _remotely(lambda: self.filesystem.find(f"{self._root}/damaged"))))

    def partials(self) -> list[Path]:
        """Hidden files whose writers died; object storage has none."""
        folder = Path(self._root) / "segments"
        return [path for path in folder.glob(f"day=*/.*{PARTIAL}") if is_closed(path)] if self.local else []

    def _upload(self, path: str, tables: Iterator[pa.Table], sources: tuple[str, ...], day: str) -> None:
        with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
            write_parquet(file.file, tables, sources, day)
            file.flush()
            _remotely(lambda: self.filesystem.put_file(file.name, path))

    def _found(self) -> list[Segment]:
        """All that can be read, replaced or not, by day and start."""
        sizes = self._listing()
        while True:
            new = {path: sizes[path] for path in sizes.keys() - self._known.keys() - self._damaged.keys()}
            with ThreadPoolExecutor(1 if self.local else 8) as pool:
                read = list(pool.map(self._look_at, new.keys(), new.values()))
            self._known.update({segment.path: segment for segment in read if segment is not None})
            # While the folders were listed, a segment may have taken over from one that was not listed yet.
            before, sizes = sizes, self._listing()
            if before.keys() == sizes.keys():
                break
        self._damaged = {path: why for path, why in self._damaged.items() if path in sizes}
        self._known = {path: self._known[path] for path in sorted(sizes) if path in self._known}
        return [segment for path, segment in self._known.items() if path not in self._damaged]

    def _look_at(self, path: str, size: int) -> Segment | None:
        try:
            tail = self._tail(path, _TAIL_BYTES)
            footer_bytes = int.from_bytes(tail[-8:-4], "little") + 8
            if len(tail) < footer_bytes <= size:
                tail = self._tail(path, footer_bytes)
        except FileNotFoundError:
            return None
        try:
            return read_segment(path, tail, size)
        except CORRUPT as error:
            self._damaged[path] = reason(error)
            return None

    def _tail(self, path: str, count: int) -> bytes:
        if not self.local:
            tail: bytes = _remotely(lambda: self.filesystem.cat_file(path, start=-count))
            return tail
        with regular(Path(path)).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - count))
            return file.read()

    def _listing(self) -> dict[str, int]:
        """Size by path."""
        if not self.local:
            try:
                found = _remotely(lambda: self.filesystem.find(f"{self._root}/segments", detail=True))
            except FileNotFoundError as error:
                raise StoreError(f"the segments cannot be reached: {self._root}: {reason(error)}") from error
            return {path: file["size"] for path, file in found.items() if path.endswith(".parquet")}
        sizes = {}
        for path in Path(self._root).glob("segments/day=*/[!.]*.parquet"):
            with suppress(FileNotFoundError):
                sizes[str(path)] = path.stat().st_size
        return sizes


def _remotely(call: Callable[[], T]) -> T:
    """What object storage answers; raises `FileNotFoundError`, or `StoreError` for all else."""
    try:
        return call()
    except FileNotFoundError:
        raise
    except Exception as error:  # Every client library has errors of its own, which share no base.
        raise StoreError(f"the segments cannot be reached: {type(error).__name__}: {reason(error)}") from error
