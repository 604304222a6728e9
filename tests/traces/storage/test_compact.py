"""Compaction: nothing is lost or doubled, whatever happens on the way, and nobody waits for it."""

import fcntl
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from random import Random
from time import sleep

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journeyman.traces.capture.log import SPAN_VERSION, LogReader, SpanLog, SpanRecord, utc_day
from journeyman.traces.capture.texts import REPEATED
from journeyman.traces.errors import StoreError
from journeyman.traces.storage.background import compact_in_background
from journeyman.traces.storage.columns import to_spans, to_table
from journeyman.traces.storage.compact import Compaction, compact, sole_compactor
from journeyman.traces.storage.segments import Segments
from journeyman.traces.tombstones import Tombstones

DAY_NS = 86_400 * 10**9

Make = Callable[..., SpanRecord]


@pytest.fixture
def make(span: SpanRecord) -> Make:
    return lambda number, day=0, **changes: span.model_copy(
        update={"span_id": str(number), "start_ns": day * DAY_NS + number, **changes}
    )


def write_log(spans: Path, *records: SpanRecord) -> Path:
    log = SpanLog(spans)
    log.append_many(records, sync=True)
    log.close()
    return log.path


def write_segments(records: Iterable[SpanRecord], segments: Segments) -> list[str]:
    """A segment for each day, as if their log had been compacted."""
    days: dict[str, list[SpanRecord]] = {}
    for record in records:
        days.setdefault(utc_day(record.start_ns), []).append(record)
    return [segments.write(to_table(of_day, segments.texts)) for of_day in days.values()]


def everything(spans: Path) -> list[SpanRecord]:
    """What a reader finds, files first."""
    segments = Segments(spans)
    snapshot = segments.snapshot(spans)
    live = list(LogReader(spans, files=snapshot.files, replaced=snapshot.replaced))
    return live + [span for path in snapshot.paths() for span in to_spans(segments.read(path), segments.texts)]


def ids(spans: Path) -> list[str]:
    return sorted(span.span_id for span in everything(spans))


def test_closed_files_become_one_segment_a_day(tmp_path: Path, make: Make) -> None:
    records = [make(number, day=number % 2) for number in range(20)]
    write_log(tmp_path, *records[:10])
    write_log(tmp_path, *records[10:])
    done = compact(tmp_path, Segments(tmp_path))
    assert (done.files, done.spans, done.live, done.busy) == (2, 20, 0, False)
    assert list(tmp_path.glob("*.jsonl")) == []
    assert len(Segments(tmp_path).paths()) == 2
    assert sorted(everything(tmp_path), key=lambda span: int(span.span_id)) == records
    assert compact(tmp_path, Segments(tmp_path)).files == 0


def test_a_log_that_does_not_exist_has_nothing_to_compact(tmp_path: Path) -> None:
    assert compact(tmp_path / "spans", Segments(tmp_path / "spans")) == Compaction()
    assert not (tmp_path / "spans").exists()


def test_a_file_that_is_being_written_stays(tmp_path: Path, make: Make) -> None:
    log = SpanLog(tmp_path)
    log.append(make(1), sync=False)
    write_log(tmp_path, make(2))
    done = compact(tmp_path, Segments(tmp_path))
    assert (done.files, done.live) == (1, 1)
    log.append(make(3), sync=False)
    assert ids(tmp_path) == ["1", "2", "3"]
    log.close()
    compact(tmp_path, Segments(tmp_path))
    assert ids(tmp_path) == ["1", "2", "3"]


def test_small_segments_of_a_day_are_joined(tmp_path: Path, make: Make) -> None:
    segments = Segments(tmp_path)
    for number in range(4):
        write_segments([make(number), make(number, day=1)], segments)
    done = compact(tmp_path, segments)
    assert done.merged == 8
    assert len(segments.paths()) == 2
    assert ids(tmp_path) == sorted("01230123")
    assert compact(tmp_path, segments).merged == 0


def test_few_small_segments_may_be_left_for_later(tmp_path: Path, make: Make) -> None:
    segments = Segments(tmp_path)
    for number in range(3):
        write_segments([make(number)], segments)
    assert compact(tmp_path, segments, fan_in=4).merged == 0
    assert compact(tmp_path, segments, fan_in=3).merged == 3


def test_a_crash_before_the_log_is_deleted_doubles_nothing(tmp_path: Path, make: Make) -> None:
    path = write_log(tmp_path, make(1), make(2, day=1))
    before = path.read_bytes()
    compact(tmp_path, Segments(tmp_path))
    path.write_bytes(before)
    assert ids(tmp_path) == ["1", "2"]
    done = compact(tmp_path, Segments(tmp_path))
    assert (done.files, done.spans) == (1, 0)
    assert not path.exists()
    assert ids(tmp_path) == ["1", "2"]


def test_a_crash_between_two_days_of_a_log_loses_nothing(tmp_path: Path, make: Make) -> None:
    path = write_log(tmp_path, make(1), make(2, day=1), make(3))
    segments = Segments(tmp_path)
    segments.write(to_table([make(1), make(3)]), sources=[path.name])
    assert ids(tmp_path) == ["1", "2", "3"]
    compact(tmp_path, segments)
    assert not path.exists()
    assert ids(tmp_path) == ["1", "2", "3"]


def test_a_crash_before_joined_segments_are_deleted_doubles_nothing(tmp_path: Path, make: Make) -> None:
    segments = Segments(tmp_path)
    small = [write_segments([make(number)], segments)[0] for number in range(3)]
    segments.write(to_table([make(number) for number in range(3)]), sources=small)
    assert ids(tmp_path) == ["0", "1", "2"]
    compact(tmp_path, segments)
    assert segments.snapshot().superseded == ()
    assert ids(tmp_path) == ["0", "1", "2"]


def test_a_replaced_segment_goes_after_what_it_replaced_itself(tmp_path: Path, make: Make) -> None:
    newer = make(2).model_construct(**{**dict(make(2)), "version": SPAN_VERSION + 1})
    log = write_log(tmp_path, make(1), newer)  # Stays, because it cannot all be read.
    segments = Segments(tmp_path)
    first = segments.write(to_table([make(1)]), sources=[log.name])
    segments.write(to_table([make(1)]), sources=[first])
    compact(tmp_path, segments)
    assert ids(tmp_path) == ["1"]


def test_segments_of_a_chain_go_oldest_first(tmp_path: Path, make: Make) -> None:
    segments = Segments(tmp_path)
    paths = [segments.write(to_table([make(1)]))]
    for _ in range(5):
        paths.append(segments.write(to_table([make(1)]), sources=paths[-1:]))
    assert ids(tmp_path) == ["1"]
    compact(tmp_path, segments)
    assert segments.paths() == paths[-1:]
    assert [str(path) for path in tmp_path.rglob("*.parquet")] == paths[-1:]


def test_very_many_small_files_are_compacted(tmp_path: Path, make: Make) -> None:
    for number in range(300):
        log = SpanLog(tmp_path)
        log.append(make(number), sync=False)
        log.close()
    done = compact(tmp_path, Segments(tmp_path))
    assert (done.files, done.merged) == (300, 2)
    assert len(ids(tmp_path)) == 300


def test_a_partial_segment_of_a_dead_writer_is_removed_and_of_a_living_one_not(tmp_path: Path, make: Make) -> None:
    folder = Path(write_segments([make(1)], Segments(tmp_path))[0]).parent
    for name in (".dead.parquet.partial", ".alive.parquet.partial"):
        (folder / name).write_bytes(b"PAR1")
    with (folder / ".alive.parquet.partial").open("rb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        compact(tmp_path, Segments(tmp_path))
    assert [path.name for path in folder.glob(".*")] == [".alive.parquet.partial"]


def test_a_second_compaction_at_the_same_time_does_nothing(tmp_path: Path, make: Make) -> None:
    write_log(tmp_path, make(1))
    with sole_compactor(tmp_path) as origin:
        assert origin is not None
        assert compact(tmp_path, Segments(tmp_path)) == Compaction(busy=True)
    assert compact(tmp_path, Segments(tmp_path)).files == 1
    with sole_compactor(tmp_path) as again:
        assert again == origin


def test_damaged_records_are_kept_for_whoever_can_read_them(tmp_path: Path, make: Make) -> None:
    path = write_log(tmp_path, make(1), make(2))
    first, second = path.read_bytes().splitlines(keepends=True)
    damaged = first[:20] + b"?" + first[21:] + second + b"half a rec"
    path.write_bytes(damaged)
    done = compact(tmp_path, Segments(tmp_path))
    assert (done.files, done.spans, done.torn) == (1, 1, 2)
    assert ids(tmp_path) == ["2"]
    assert (tmp_path / "damaged" / path.name).read_bytes() == damaged.replace(second, b"")


def test_a_file_with_spans_of_a_newer_version_waits_for_a_newer_journeyman(tmp_path: Path, make: Make) -> None:
    newer = make(1).model_construct(**{**dict(make(1)), "version": SPAN_VERSION + 1})
    path = write_log(tmp_path, newer, make(2))
    before = path.read_bytes()
    done = compact(tmp_path, Segments(tmp_path))
    assert (done.files, done.kept) == (0, 1)
    assert path.read_bytes() == before


def test_a_file_whose_text_is_missing_waits_for_it(tmp_path: Path, make: Make) -> None:
    path = write_log(tmp_path, make(1, attributes={REPEATED[0]: "You plan. " * 100}))
    (text,) = (tmp_path / "texts").iterdir()
    content = text.read_bytes()
    text.unlink()
    assert compact(tmp_path, Segments(tmp_path)).kept == 1
    assert path.exists()
    text.write_bytes(content)
    assert compact(tmp_path, Segments(tmp_path)).kept == 0
    assert everything(tmp_path) == [make(1, attributes={REPEATED[0]: "You plan. " * 100})]


def test_deleted_traces_leave_logs_and_segments(tmp_path: Path, make: Make) -> None:
    write_segments([make(1, trace_id="a" * 32), make(2, trace_id="b" * 32)], Segments(tmp_path))
    write_segments([make(3, day=1, trace_id="a" * 32)], Segments(tmp_path))
    write_log(tmp_path, make(4, trace_id="a" * 32), make(5, trace_id="b" * 32))
    Tombstones(tmp_path).add(["a" * 32], reason="user")
    done = compact(tmp_path, Segments(tmp_path))
    assert (done.purged, done.deleted) == (2, 3)
    assert ids(tmp_path) == ["2", "5"]
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
    assert compact(tmp_path, Segments(tmp_path)).purged == 0


def test_a_corrupt_segment_does_not_stop_the_rest(tmp_path: Path, make: Make) -> None:
    segments = Segments(tmp_path)
    bad = Path(write_segments([make(number) for number in range(50)], segments)[0])
    content = bytearray(bad.read_bytes())
    content[60] ^= 1
    bad.write_bytes(content)
    write_segments([make(60)], segments)
    write_log(tmp_path, make(70))
    done = compact(tmp_path, Segments(tmp_path))
    assert done.files == 1
    assert bad.exists()
    assert compact(tmp_path, segments).merged in (0, 2)


def test_a_full_disk_stops_a_compaction_and_loses_nothing(tmp_path: Path, make: Make) -> None:
    write_log(tmp_path, *(make(number, attributes={"text": os.urandom(400).hex()}) for number in range(50)))
    code = f"""
import resource
from pathlib import Path
from journeyman.traces.storage.compact import compact
from journeyman.traces.errors import StoreError
from journeyman.traces.storage.segments import Segments
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
try:
    compact(Path({str(tmp_path)!r}), Segments({str(tmp_path)!r}))
except StoreError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert "was not written" in said
    assert list(tmp_path.rglob("*.parq*")) == []
    assert len(ids(tmp_path)) == 50
    assert compact(tmp_path, Segments(tmp_path)).spans == 50


def test_progress_is_told(tmp_path: Path, make: Make) -> None:
    told = []
    for number in range(3):
        write_log(tmp_path, make(number))
    compact(tmp_path, Segments(tmp_path), progress=lambda what, done, total: told.append((what, done, total)))
    assert told[0] == ("log files", 0, 3)
    assert ("log files", 3, 3) in told


def test_a_long_lived_process_may_have_it_done_elsewhere(tmp_path: Path, make: Make) -> None:
    write_log(tmp_path, make(1))
    compact_in_background(tmp_path, tmp_path).join()
    assert list(tmp_path.glob("*.jsonl")) == []
    assert ids(tmp_path) == ["1"]


def test_a_failure_elsewhere_is_logged(tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    write_log(tmp_path, make(1))
    compact_in_background(tmp_path, "nowhere://at/all").join()
    (record,) = caplog.records
    assert record.name == "journeyman.traces.storage.background"
    assert "nowhere" in record.message


class Died(BaseException):
    """The process is gone."""


class MortalSegments(Segments):
    """Segments of a process that dies at its `breath`th write or removal, before or after it takes effect."""

    def __init__(self, root: Path, breath: int, after: bool) -> None:
        super().__init__(root)
        self._breath = breath
        self._after = after

    def write(self, tables: pa.Table | Iterable[pa.Table], sources: Iterable[str] = (), *, origin: str = "") -> str:
        self._die(after=False)
        path = super().write(tables, sources, origin=origin)
        self._die(after=True)
        return path

    def remove(self, path: str) -> None:
        self._die(after=False)
        super().remove(path)
        self._die(after=True)

    def _die(self, *, after: bool) -> None:
        if after == self._after:
            self._breath -= 1
            if self._breath == 0:
                raise Died


steps = st.lists(
    st.one_of(st.sampled_from(["write", "close", "bulk", "compact"]), st.tuples(st.integers(1, 9), st.booleans())),
    max_size=14,
)


@given(steps=steps)
@settings(max_examples=40, deadline=None)
def test_whenever_a_compaction_dies_every_span_is_there_once(
    steps: list[str | tuple[int, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    spans = tmp_path_factory.mktemp("spans")
    log = SpanLog(spans)
    count = 0
    for step in steps:
        if step in ("write", "bulk"):
            records = [
                SpanRecord(
                    trace_id="t", span_id=str(number), parent_id=None, name="n", kind="internal",
                    start_ns=number % 2 * DAY_NS, end_ns=1, status="ok", attributes={},
                )
                for number in range(count, count + 3)
            ]  # fmt: skip
            count += 3
            if step == "write":
                log.append_many(records, sync=False)
            else:
                write_segments(records, Segments(spans))
        elif step == "close":
            log.close()
        elif step == "compact":
            compact(spans, Segments(spans))
        elif isinstance(step, tuple):
            with suppress(Died):
                compact(spans, MortalSegments(spans, *step))
        assert Counter(ids(spans)) == Counter(map(str, range(count)))
    log.close()


def large_logs(spans: Path, make: Make) -> list[str]:
    """Closed log files of 12 MB each, the last with a damaged record; gives the ids of their spans."""
    names = [str(number) for number in range(9)]
    for place in range(0, 9, 3):
        hard = [Random(number).randbytes(3 * 2**20).hex() for number in range(place, place + 3)]
        records = [make(place + at, day=(place + at) % 2, name=name) for at, name in enumerate(hard)]
        path = write_log(spans, *records)
    with path.open("ab") as file:
        file.write(b"torn\n")
    return names


def test_several_processes_lay_out_a_large_log(tmp_path: Path, make: Make) -> None:
    names = large_logs(tmp_path, make)
    log = SpanLog(tmp_path)
    log.append(make(99), sync=False)
    told: list[tuple[int, int]] = []
    done = compact(
        tmp_path, Segments(tmp_path), processes=2, progress=lambda what, done, total: told.append((done, total))
    )
    assert (done.files, done.spans, done.torn, done.live) == (3, 9, 1, 1)
    assert ids(tmp_path) == sorted([*names, "99"])
    assert [path.name for path in tmp_path.glob("*.jsonl")] == [log.path.name]
    assert told[0] == (0, 4) and (4, 4) in told
    log.close()


def test_a_log_that_is_empty_is_no_trouble(tmp_path: Path, make: Make) -> None:
    names = large_logs(tmp_path, make)
    (tmp_path / "99990101T000000.000000Z-1-00000000.jsonl").touch()
    compact(tmp_path, Segments(tmp_path))
    assert ids(tmp_path) == sorted(names)


def test_a_process_that_fails_is_told_of_and_loses_nothing(tmp_path: Path, make: Make) -> None:
    names = large_logs(tmp_path, make)
    (tmp_path / "z.jsonl").mkdir()
    with pytest.raises(StoreError, match=r"z\.jsonl cannot be read: Is a directory"):
        compact(tmp_path, Segments(tmp_path), processes=2)
    (tmp_path / "z.jsonl").rmdir()
    assert ids(tmp_path) == sorted(names)
    compact(tmp_path, Segments(tmp_path), processes=2)
    assert ids(tmp_path) == sorted(names)


def test_a_process_that_outlives_its_compaction_doubles_nothing(tmp_path: Path, make: Make) -> None:
    names = large_logs(tmp_path, make)
    code = f"""
from pathlib import Path
from journeyman.traces.storage.compact import compact
from journeyman.traces.storage.segments import Segments
compact(Path({str(tmp_path)!r}), Segments({str(tmp_path)!r}), processes=2)
"""
    compaction = subprocess.Popen([sys.executable, "-c", code])
    children = Path(f"/proc/{compaction.pid}/task/{compaction.pid}/children")
    while compaction.poll() is None and not (started := children.read_text().split()):
        sleep(0.01)
    compaction.kill()
    compaction.wait()
    while any(tmp_path.glob("*.jsonl")):
        compact(tmp_path, Segments(tmp_path), processes=2)
        assert ids(tmp_path) == sorted(names)
    assert started and ids(tmp_path) == sorted(names)


def test_a_folder_that_cannot_be_read_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(StoreError, match="cannot be read: Is a directory"):
        compact(tmp_path, Segments(tmp_path))
