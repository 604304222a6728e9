"""One segment: a Parquet file of spans of one UTC day, whose footer says what it replaces."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ConfigDict, Field

from journeyman.traces.base import Record
from journeyman.traces.capture.log import utc_day
from journeyman.traces.errors import StoreError
from journeyman.traces.files import whole_file

GROUP_ROWS = 16_384
"""At most so many rows in a row group: what a query skips or reads as a whole."""

GROUP_BYTES = 64 * 2**20
"""And at most so many bytes of it, unless a single row has more."""

FORMAT = 2
"""1: without the column `grown`."""

CORRUPT = (pa.ArrowException, OSError, ValueError, KeyError)
"""What reading a damaged file may raise."""

NEWER = "its format is of a newer journeyman"

_KEY = b"journeyman.segment"
# On a million spans level 3 takes 9% less room than 1 and level 6 another 3%, at half the speed.
_LEVEL = 3
_PAGE_BYTES = 8 * 2**20
_DISTINCT = ("span_id", "response_id", "start_ns", "end_ns", "input_messages", "output_messages", "attributes", "grown")
_NUMBERS = ("prompt_token_ids", "token_ids", "logprobs")


class Footer(Record):
    """What a segment says of itself."""

    model_config = ConfigDict(extra="ignore")

    format: int = Field(default=FORMAT, ge=1)
    sources: tuple[str, ...] = ()
    """Names of the log files and segments whose spans of this day it holds."""
    first_ns: int
    last_ns: int
    """Earliest and latest start of a span."""


class Segment(Record):
    """A segment that can be read."""

    path: str
    """In the file system of its `Segments`."""
    footer: Footer
    rows: int
    size: int
    """Bytes."""
    columns: frozenset[str] = frozenset()
    """Those that there were when it was written."""

    @property
    def name(self) -> str:
        return name_of(self.path)

    @property
    def day(self) -> str:
        """E.g. `2026-11-23`."""
        return self.path.rsplit("/", 2)[1].removeprefix("day=")


def name_of(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def write_parquet(file: IO[bytes], tables: Iterator[pa.Table], sources: tuple[str, ...], day: str) -> None:
    """Writes tables of spans that start on `day`, one row group after another."""
    writer = None
    first_ns, last_ns = 2**63 - 1, 0
    for table in tables:
        writer = writer or _writer(file, table.schema)
        writer.write_table(table, row_group_size=_group_rows(table))
        bounds = pc.min_max(table["start_ns"]).as_py()
        first_ns, last_ns = min(first_ns, bounds["min"]), max(last_ns, bounds["max"])
    assert writer is not None and utc_day(first_ns) == utc_day(last_ns) == day
    footer = Footer(sources=sources, first_ns=first_ns, last_ns=last_ns)
    writer.add_key_value_metadata({_KEY: footer.model_dump_json().encode()})
    writer.close()


def _group_rows(table: pa.Table) -> int:
    """How many rows of the table make a group: one at least."""
    fitting: int = GROUP_BYTES * table.num_rows // max(1, table.nbytes)
    return max(1, min(GROUP_ROWS, fitting))


def write_locally(path: Path, tables: Iterator[pa.Table], sources: tuple[str, ...], day: str) -> None:
    """The same to a file that is there whole and durable, or not at all."""
    with whole_file(path) as file:
        write_parquet(file, tables, sources, day)


def read_segment(path: str, tail: bytes, size: int) -> Segment:
    """What the end of a file says; raises one of `CORRUPT`."""
    metadata = pq.read_metadata(pa.BufferReader(tail))
    footer = Footer.model_validate_json(metadata.metadata[_KEY])
    if footer.format > FORMAT:
        raise ValueError(NEWER)
    columns = frozenset(metadata.schema.to_arrow_schema().names)
    return Segment(path=path, footer=footer, rows=metadata.num_rows, size=size, columns=columns)


def open_parquet(source: str | pa.NativeFile) -> pq.ParquetFile:
    return pq.ParquetFile(source, page_checksum_verification=True)


def corrupt(path: str, error: BaseException) -> StoreError:
    return StoreError(f"segment {path} is corrupt: {reason(error)}")


def reason(error: BaseException) -> str:
    if isinstance(error, pa.ArrowException):
        return "it isn't a whole Parquet file"  # Arrow would tell how it reads one.
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _writer(file: IO[bytes], schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        compression_level=_LEVEL,
        use_dictionary=[name for name in schema.names if name not in _DISTINCT + _NUMBERS],
        column_encoding={"logprobs.list.element": "BYTE_STREAM_SPLIT"} if "logprobs" in schema.names else {},
        data_page_size=_PAGE_BYTES,
        write_page_checksum=True,
    )
