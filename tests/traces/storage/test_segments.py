"""Segments: immutable, replaced in one instant, and no damage to one costs another; on a disk and on object storage."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanLog, SpanRecord
from journeyman.traces.errors import StoreError
from journeyman.traces.storage.columns import to_spans, to_table
from journeyman.traces.storage.compact import compact
from journeyman.traces.storage.segment_file import FORMAT, NEWER, Footer
from journeyman.traces.storage.segments import Segments

DAY_NS = 86_400 * 10**9
START_NS = 1_760_000_000_000_000_000 // DAY_NS * DAY_NS


def some_spans(span: SpanRecord, count: int, *, day: int = 0, first: int = 0) -> list[SpanRecord]:
    system = {a.SYSTEM_INSTRUCTIONS: "You look things up. " * 100}
    return [
        span.model_copy(
            update={
                "span_id": f"{day}-{number}",
                "start_ns": START_NS + day * DAY_NS + number,
                "attributes": span.attributes | system,
            }
        )
        for number in range(first, first + count)
    ]


def ids(segments: Segments) -> list[str]:
    return [span_id for path in segments.paths() for span_id in segments.read(path)["span_id"].to_pylist()]


@pytest.fixture
def s3(bucket: str) -> str:
    return f"{bucket}/runs"


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | Path]:
    if request.param == "folder":
        yield tmp_path / "spans"
    else:
        url = request.getfixturevalue("s3")
        yield url
        filesystem = Segments(url).filesystem
        if filesystem.exists("bucket/runs"):
            filesystem.rm("bucket/runs", recursive=True)


def test_spans_come_back_in_order_of_their_start(root: str | Path, span: SpanRecord) -> None:
    spans = some_spans(span, 50)
    segments = Segments(root)
    path = segments.write(to_table(spans[::-1], segments.texts))
    assert "/segments/day=2025-10-09/" in path
    elsewhere = Segments(root)
    assert list(to_spans(elsewhere.read(path), elsewhere.texts)) == spans


def test_a_segment_takes_over_the_moment_it_is_there(root: str | Path, span: SpanRecord) -> None:
    segments, reader = Segments(root), Segments(root)
    small = [segments.write(to_table(some_spans(span, 2, first=first))) for first in (0, 2)]
    assert reader.paths() == small
    big = segments.write(to_table(some_spans(span, 4)), sources=[*small, "one.jsonl"])
    snapshot = reader.snapshot()
    assert snapshot.paths() == [big]
    assert [segment.path for segment in snapshot.superseded] == small
    assert snapshot.replaced["one.jsonl"] == {"2025-10-09"}
    for path in small:
        segments.remove(path)
        segments.remove(path)
    assert reader.snapshot().superseded == ()
    assert sorted(ids(reader)) == ["0-0", "0-1", "0-2", "0-3"]


def test_a_segment_is_found_by_the_time_of_its_spans(root: str | Path, span: SpanRecord) -> None:
    segments = Segments(root)
    first, second = (segments.write(to_table(some_spans(span, 3, day=day))) for day in (0, 1))
    assert segments.paths() == [first, second]
    assert segments.paths(since_ns=START_NS + 2) == [first, second]
    assert segments.paths(since_ns=START_NS + 3) == [second]
    assert segments.paths(until_ns=START_NS + DAY_NS) == [first]
    assert segments.paths(until_ns=START_NS) == []


def test_what_was_replaced_while_it_was_read_is_not_found(root: str | Path, span: SpanRecord) -> None:
    segments = Segments(root)
    path = segments.write(to_table(some_spans(span, 2)))
    segments.remove(path)
    with pytest.raises(FileNotFoundError):
        segments.read(path)


@pytest.mark.parametrize("place", ["footer", "page", "cut", "empty"])
def test_a_corrupt_segment_is_reported_and_set_aside_and_the_rest_stays(
    root: str | Path, span: SpanRecord, place: str
) -> None:
    segments = Segments(root)
    good = segments.write(to_table(some_spans(span, 2)))
    bad = segments.write(to_table(some_spans(span, 200, first=10)))
    content = bytearray(segments.filesystem.cat_file(bad))
    if place == "page":
        content[60] ^= 1
    elif place == "footer":
        content[-20] ^= 0xFF
        content[-8:-4] = b"\xff\xff\xff\x7f"
    segments.filesystem.pipe_file(bad, bytes(content[: {"cut": 500, "empty": 0}.get(place)]))
    reader = Segments(root)
    assert list(reader.check()) == [bad]
    assert reader.paths() == [good]
    assert ids(reader) == ["0-0", "0-1"]
    with pytest.raises(StoreError, match=r"segment .* is corrupt"):
        reader.read(bad)
    assert reader.set_aside(bad).endswith(bad.rsplit("/", 1)[1])
    assert len(reader.aside()) == 1
    assert Segments(root).check() == {}


def test_a_segment_of_a_newer_format_is_left_alone(tmp_path: Path, span: SpanRecord) -> None:
    newer = Footer(format=FORMAT + 1, first_ns=0, last_ns=0).model_dump_json()
    folder = tmp_path / "segments" / "day=2025-10-09"
    folder.mkdir(parents=True)
    table = to_table(some_spans(span, 1)).replace_schema_metadata({"journeyman.segment": newer})
    pa.parquet.write_table(table, folder / "1.parquet")
    assert Segments(tmp_path).snapshot().damaged == {str(folder / "1.parquet"): NEWER}


def test_a_bucket_that_does_not_exist_is_a_store_error(s3: str) -> None:
    with pytest.raises(StoreError, match="the segments cannot be reached: elsewhere/runs: The specified bucket"):
        Segments("s3://elsewhere/runs").paths()


def test_object_storage_that_does_not_answer_is_a_store_error_and_no_damage(
    monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    type(Segments("s3://elsewhere").filesystem).clear_instance_cache()  # It knows another endpoint.
    segments = Segments("s3://elsewhere/runs")
    with pytest.raises(StoreError, match="cannot be reached") as refused:
        segments.paths()
    assert "hush-hush" not in str(refused.value)
    type(segments.filesystem).clear_instance_cache()


def test_logs_become_segments_on_object_storage_with_their_texts(
    s3: str, root: str | Path, tmp_path: Path, span: SpanRecord
) -> None:
    spans = tmp_path / "log"
    for first in (0, 5):
        log = SpanLog(spans)
        log.append_many(some_spans(span, 5, first=first), sync=True)
        log.close()
        compact(spans, Segments(root))
    segments = Segments(root)
    assert list(spans.glob("*.jsonl")) == []
    assert len(segments.paths()) == 1
    back = [span for path in segments.paths() for span in to_spans(segments.read(path), segments.texts)]
    assert back == some_spans(span, 10)


def test_two_machines_share_a_prefix_and_join_their_own_segments_only(
    s3: str, tmp_path: Path, span: SpanRecord
) -> None:
    for first, machine in enumerate(("one", "two", "one", "two")):
        log = SpanLog(tmp_path / machine)
        log.append_many(some_spans(span, 1, first=first), sync=True)
        log.close()
        compact(tmp_path / machine, Segments(f"{s3}/shared"))
    segments = Segments(f"{s3}/shared")
    assert len(segments.paths()) == 2
    assert sorted(ids(segments)) == ["0-0", "0-1", "0-2", "0-3"]


def test_a_disk_that_refuses_leaves_no_segment_and_no_partial(tmp_path: Path, span: SpanRecord) -> None:
    (tmp_path / "segments").mkdir()
    (tmp_path / "segments" / "day=2025-10-09").touch()
    with pytest.raises(StoreError, match="was not written"):
        Segments(tmp_path).write(to_table(some_spans(span, 1)))
    assert [path.name for path in tmp_path.rglob("*")] == ["segments", "day=2025-10-09"]
