"""The bulk path: many finished spans straight into segments."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from journeyman.traces.log import SpanRecord, utc_day
from journeyman.traces.storage.columns import to_table
from journeyman.traces.storage.segments import Segments

SEGMENT_ROWS = 262_144
"""Spans of a full segment; those of half that size or less may be joined."""

_CHUNK = 4096
_DAY_NS = 86_400 * 10**9


def write_segments(spans: Iterable[SpanRecord], segments: Segments) -> list[str]:
    """Writes finished spans straight into segments, in bounded memory, and gives their paths: the way in for imports.

    A thread compresses while the next spans are laid out. Raises `StoreError` if the disk refuses; segments that were
    written before that stay.
    """
    waiting: dict[str, list[pa.Table]] = defaultdict(list)
    writing: list[Future[str]] = []
    with ThreadPoolExecutor(1) as pool:

        def write(day: str) -> None:
            for earlier in writing[-1:]:
                earlier.result()
            writing.append(pool.submit(segments.write, pa.concat_tables(waiting.pop(day))))

        for day, table in tables_by_day(spans, segments):
            waiting[day].append(table)
            if sum(map(_rows, waiting.values())) >= SEGMENT_ROWS // 2:
                write(max(waiting, key=lambda day: _rows(waiting[day])))
        for day in list(waiting):
            write(day)
        return [written.result() for written in writing]


def tables_by_day(spans: Iterable[SpanRecord], segments: Segments) -> Iterator[tuple[str, pa.Table]]:
    """Spans as tables of a few thousand, each of one UTC day; their large texts are durable in `segments.texts`."""
    rest = iter(spans)
    while chunk := list(islice(rest, _CHUNK)):
        table = to_table(chunk, segments.texts)
        days = pc.divide(table["start_ns"], _DAY_NS)
        distinct = pc.unique(days).to_pylist()
        for day in distinct:
            yield utc_day(day * _DAY_NS), table if len(distinct) == 1 else table.filter(pc.equal(days, day))


def _rows(tables: Iterable[pa.Table]) -> int:
    return sum(table.num_rows for table in tables)
