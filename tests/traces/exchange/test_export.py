"""Exporting to files: what was exported comes back from a file as it was, and a file is whole or not there."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.errors import ConfigError, DeliveryError, StoreError
from journeyman.traces.exchange.conversation import Imported
from journeyman.traces.exchange.endpoint import Kind, open_endpoint
from journeyman.traces.exchange.export import BATCH, LARGEST_PARCEL, Sent, send_spans, write_spans
from journeyman.traces.exchange.importing import detect, read_file

FORMATS = {"spans.jsonl": "spans", "spans.parquet": "parquet", "spans.json": "otlp"}


def imported(path: Path) -> list[SpanRecord]:
    found = list(read_file(path, detect(path), agent="assistant", family="default"))
    assert all(isinstance(entry, Imported) for entry in found)
    return [span for entry in found if isinstance(entry, Imported) for span in entry.spans]


@pytest.mark.parametrize(("name", "format"), FORMATS.items())
def test_what_was_exported_is_imported_as_it_was(name: str, format: str, tmp_path: Path, span: SpanRecord) -> None:
    spans = [span.model_copy(update={"span_id": f"{number:016x}"}) for number in range(1, 2 * BATCH + 4)]
    assert write_spans(spans, tmp_path / "new" / name) == len(spans)
    assert detect(tmp_path / "new" / name) == format
    assert imported(tmp_path / "new" / name) == spans
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


@pytest.mark.parametrize("name", FORMATS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(
    attributes=st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1),
        st.recursive(
            st.text(st.characters(codec="utf-8"))
            | st.booleans()
            | st.integers(-(2**63), 2**63 - 1)
            | st.floats(allow_nan=False),
            lambda values: st.lists(values) | st.dictionaries(st.text(st.characters(codec="utf-8")), values),
            max_leaves=5,
        ),
    )
)
def test_whatever_a_span_says_comes_back(
    name: str, tmp_path: Path, span: SpanRecord, attributes: dict[str, object]
) -> None:
    said = span.model_copy(update={"attributes": attributes})
    write_spans([said], tmp_path / name)
    assert imported(tmp_path / name) == [said]


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_that_fails_leaves_the_file_as_it_was(name: str, tmp_path: Path, span: SpanRecord) -> None:
    def spans() -> Iterator[SpanRecord]:
        yield from [span] * 5000
        raise StoreError("the log cannot be read")

    write_spans([span], tmp_path / name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(StoreError, match="cannot be read"):
        write_spans(spans(), tmp_path / name)
    assert (tmp_path / name).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["spans.parquet", "spans.json"])
def test_no_spans_are_a_file_too(name: str, tmp_path: Path) -> None:
    assert write_spans([], tmp_path / name) == 0
    assert imported(tmp_path / name) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, span: SpanRecord) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreError, match=r"spans\.jsonl was not written: Not a directory"):
        write_spans([span], tmp_path / "taken" / "spans.jsonl")


def test_a_name_without_a_format_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in one of \.jsonl, \.parquet, \.json"):
        write_spans([], tmp_path / "spans.csv")


class Collector:
    """An endpoint in memory that fails as often as it is told to before it takes a request."""

    def __init__(self, *, failures: Sequence[DeliveryError] = (), refused: int = 0, takes: int = 99) -> None:
        self.parcels: list[list[SpanRecord]] = []
        self._failures = list(failures)
        self._refused = refused
        self._takes = takes

    def send_spans(self, spans: Sequence[SpanRecord], timeout_s: float) -> int:
        if self._failures:
            raise self._failures.pop()
        if len(self.parcels) == self._takes:
            raise DeliveryError("http://collector answered 400 to /v1/traces", retryable=False)
        self.parcels.append(list(spans))
        return self._refused


def test_an_endpoint_gets_every_span_in_requests_of_a_size_that_it_takes(span: SpanRecord) -> None:
    large = span.model_copy(update={"attributes": {"text": "x" * (LARGEST_PARCEL // 2)}})
    spans = [span] * (BATCH + 1) + [large] * 3
    collector = Collector()
    assert send_spans(iter(spans), collector) == Sent(taken=len(spans), refused=0)
    assert [span for parcel in collector.parcels for span in parcel] == spans
    assert [len(parcel) for parcel in collector.parcels] == [BATCH, 2, 2]


def test_what_an_endpoint_does_not_want_is_counted(span: SpanRecord) -> None:
    assert send_spans([span] * 5, Collector(refused=2)) == Sent(taken=3, refused=2)


def test_an_endpoint_that_is_busy_is_asked_again(span: SpanRecord) -> None:
    busy = DeliveryError("http://collector answered 503 to /v1/traces", retryable=True)
    collector = Collector(failures=[busy, busy])
    assert send_spans([span], collector, pauses_s=(0, 0)).taken == 1
    with pytest.raises(DeliveryError, match="503"):
        send_spans([span], Collector(failures=[busy] * 3), pauses_s=(0, 0))


def test_a_failure_half_way_says_how_many_were_taken(span: SpanRecord) -> None:
    with pytest.raises(DeliveryError, match=rf"answered 400 to /v1/traces; it took {BATCH} spans before"):
        send_spans([span] * (BATCH + 1), Collector(takes=1))


@pytest.mark.parametrize("kind", ["otlp-http", "otlp-grpc", "mlflow"])
def test_an_endpoint_that_is_down_is_one_line(kind: Kind, free_port: int, span: SpanRecord) -> None:
    with (
        closing(open_endpoint(f"http://127.0.0.1:{free_port}", kind)) as endpoint,
        pytest.raises(DeliveryError, match=f"127.0.0.1:{free_port} .*; it took 0 spans before"),
    ):
        send_spans([span], endpoint, pauses_s=(0,))
