"""Exporting: spans into one file, all of them or no file at all, or to an endpoint; a batch in memory at a time."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import sleep
from typing import IO, Protocol

from journeyman.traces.base import Record
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.errors import ConfigError, DeliveryError, StoreError
from journeyman.traces.files import whole_file

BATCH = 1000
"""Spans that are in memory at once."""

IN_MEMORY = 16 * 2**20
"""Characters of them."""

LARGEST_PARCEL = 2 * 2**20
"""Bytes of text in one request; a gRPC server takes 4 MiB by default."""

UNSPEAKABLE = "unspeakable"

TIMEOUT_S = 30.0

PAUSES_S = (0.2, 0.6, 1.8)
"""Before a request is tried again that the endpoint could not take at that moment."""


def write_spans(spans: Iterable[SpanRecord], path: Path) -> int:
    """Writes the spans in the format that the file's name ends with, and says how many there were.

    `.jsonl` holds a `SpanRecord` a line, `.parquet` the columns of `columns.SCHEMA`, `.json` OTLP JSON. What the file
    held before is replaced when all spans are on the disk, and stays if that fails (`StoreError`).
    """
    write = check_name(path)
    try:
        with whole_file(path) as file:
            return write(spans, file)
    except OSError as error:
        raise StoreError(f"{path} was not written: {error.strerror or error}") from error


class SpanEndpoint(Protocol):
    """What takes spans: an `endpoint.Endpoint`."""

    def send_spans(self, spans: Sequence[SpanRecord], timeout_s: float) -> int: ...


class Sent(Record):
    taken: int
    refused: int
    """Spans that the endpoint got and did not want."""


def send_spans(spans: Iterable[SpanRecord], endpoint: SpanEndpoint, *, pauses_s: Sequence[float] = PAUSES_S) -> Sent:
    """Sends all the spans; raises `DeliveryError` that says how many were taken before the endpoint failed."""
    taken = refused = 0
    for parcel in batches(spans, BATCH, LARGEST_PARCEL):
        try:
            unwanted = _deliver(parcel, endpoint, pauses_s)
        except DeliveryError as error:
            raise DeliveryError(f"{error}; it took {taken} spans before", retryable=error.retryable) from None
        refused += unwanted
        taken += len(parcel) - unwanted
    return Sent(taken=taken, refused=refused)


def check_name(path: Path) -> Callable[[Iterable[SpanRecord], IO[bytes]], int]:
    """What writes a file of that name; raises `ConfigError` where its ending names no format."""
    if path.suffix not in _WRITERS:
        raise ConfigError(f"{path}: to export, name a file that ends in one of {', '.join(_WRITERS)}")
    return _WRITERS[path.suffix]


def _deliver(parcel: Sequence[SpanRecord], endpoint: SpanEndpoint, pauses_s: Sequence[float]) -> int:
    for pause_s in pauses_s:
        try:
            return endpoint.send_spans(parcel, TIMEOUT_S)
        except DeliveryError as error:
            if not error.retryable:
                raise
        sleep(pause_s)
    return endpoint.send_spans(parcel, TIMEOUT_S)


def batches(spans: Iterable[SpanRecord], most: int, room: int) -> Iterator[list[SpanRecord]]:
    """At most so many spans at a time, and not more text than there is room for, in characters, unless it is one."""
    batch: list[SpanRecord] = []
    weight = 0
    for span in spans:
        size = sum(len(value) for value in span.attributes.values() if isinstance(value, str))
        if batch and (len(batch) == most or weight + size > room):
            yield batch
            batch, weight = [], 0
        batch.append(span)
        weight += size
    if batch:
        yield batch


def _json_lines(spans: Iterable[SpanRecord], file: IO[bytes]) -> int:
    count = 0
    for span in spans:
        file.write(span_line(span).encode())
        count += 1
    return count


def span_line(span: SpanRecord) -> str:
    """A span as strict JSON on a line of its own, which `importing` reads back.

    What JSON has no form for (`NaN`, half a surrogate pair) is a text under `unspeakable`, as in a segment's column.
    """
    from journeyman.traces.storage.columns import json_texts

    attributes, unspeakable = json_texts(span.attributes)
    odd = "" if unspeakable is None else f',"{UNSPEAKABLE}":{json.dumps(unspeakable)}'
    return f'{span.model_dump_json(exclude={"attributes", "grown"})[:-1]},"attributes":{attributes}{odd}}}\n'


def _otlp_json(spans: Iterable[SpanRecord], file: IO[bytes]) -> int:
    """One document, each batch of spans a group of its own on a line of its own."""
    from journeyman.traces.exchange.otlp import to_json

    count = 0
    file.write(b'{"resourceSpans": [')
    for batch in batches(spans, BATCH, IN_MEMORY):
        for group in to_json(batch)["resourceSpans"]:
            file.write(((",\n" if count else "\n") + json.dumps(group, ensure_ascii=False)).encode())
            count += sum(len(scope["spans"]) for scope in group["scopeSpans"])
    file.write(b"\n]}\n")
    return count


def _parquet(spans: Iterable[SpanRecord], file: IO[bytes]) -> int:
    import pyarrow.parquet as pq

    from journeyman.traces.storage.columns import SCHEMA, to_table

    count = 0
    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        for batch in batches(spans, 8 * BATCH, IN_MEMORY):
            writer.write_table(to_table(batch))
            count += len(batch)
    return count


_WRITERS: dict[str, Callable[[Iterable[SpanRecord], IO[bytes]], int]] = {
    ".jsonl": _json_lines,
    ".parquet": _parquet,
    ".json": _otlp_json,
}
