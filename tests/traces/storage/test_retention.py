"""Deletion and retention: what goes is gone from every file, also when the deletion is killed on its way."""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanLog, SpanRecord
from journeyman.traces.labels import Label, LabelLog
from journeyman.traces.storage.compact import compact
from journeyman.traces.storage.retention import Deletion, Doomed, delete, find_doomed, retain, size
from journeyman.traces.storage.segments import Segments
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.tombstones import Tombstones

DAY_NS = 86_400 * 10**9

Run = Callable[..., str]


class Place:
    """A record of runs that each say a secret of their own."""

    def __init__(self, folder: Path, segments: Path | None = None) -> None:
        self.spans, self.labels = folder / "spans", folder / "labels.jsonl"
        self.log = SpanLog(self.spans)
        self.segments = Segments(segments or self.spans)
        self.store = TraceStore(self.spans, self.labels, segments=None if segments is None else str(segments))

    def run(
        self, name: str, *, day: int = 0, spans: int = 1, session: str | None = None, user: str | None = None
    ) -> str:
        trace_id = name * 32
        who = {a.CONVERSATION_ID: session, a.USER_ID: user}
        for number in range(spans):
            said = {
                a.OPERATION: "chat",
                a.SYSTEM_INSTRUCTIONS: f'["secret {name}{"." * 300}"]',
                a.GOAL: f"secret {name}",
            }
            record = SpanRecord(
                trace_id=trace_id,
                span_id=f"{name}{number:015}",
                parent_id=None,
                name="chat base",
                kind="client",
                start_ns=day * DAY_NS,
                end_ns=day * DAY_NS + 1,
                status="ok",
                attributes=said | {key: value for key, value in who.items() if value is not None},
            )
            self.log.append(record, sync=False)
        LabelLog(self.labels).append(Label(trace_id=trace_id, name="comment", source="me", value=f"secret {name}"))
        return trace_id

    def delete(self, doomed: Doomed) -> Deletion:
        return delete(self.spans, self.labels, self.segments, doomed, reason="by test")

    def retain(
        self, *, keep_days: float | None = None, keep_gb: float | None = None, now_ns: int | None = None
    ) -> Deletion:
        limits = {"keep_days": keep_days, "keep_gb": keep_gb}
        return retain(self.store, self.spans, self.labels, self.segments, **limits, now_ns=now_ns)

    def compact(self) -> None:
        self.log.close()
        compact(self.spans, self.segments)

    def holds(self, name: str) -> bool:
        """Whether a run's secret is on the disk in any form that is not compressed, or in a segment."""
        files = [path for path in self.spans.parent.rglob("*") if path.is_file() and path.suffix != ".parquet"]
        rows = (row for path in self.segments.paths() for row in self.segments.read(path).to_pylist())
        return any(f"secret {name}".encode() in path.read_bytes() for path in files) or any(
            f"secret {name}" in str(row) for row in rows
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_run_is_found_by_what_any_of_its_spans_says(place: Place) -> None:
    a_run = place.run("a", session="s1", user="ann")
    b_run = place.run("b", session="s1", user="bob", day=3)
    c_run = place.run("c", day=6, spans=2)
    assert find_doomed(place.store).trace_ids == (a_run, b_run, c_run)
    assert find_doomed(place.store, sessions=["s1"]).trace_ids == (a_run, b_run)
    assert find_doomed(place.store, sessions=["s1"], users=["bob", "cat"]).trace_ids == (b_run,)
    assert find_doomed(place.store, ended_before_ns=3 * DAY_NS).trace_ids == (a_run,)
    assert find_doomed(place.store, ids=[c_run, a_run], ended_before_ns=9 * DAY_NS).trace_ids == (a_run, c_run)
    assert find_doomed(place.store, users=["dan"]).trace_ids == ()
    assert find_doomed(place.store, ids=[]).trace_ids == ()
    found = find_doomed(place.store, ids=[c_run])
    assert (found.spans, found.span_ids) == (2, frozenset({"c000000000000000", "c000000000000001"}))


def test_the_newest_runs_are_kept_by_their_share_of_the_spans(place: Place) -> None:
    runs = [place.run(name, day=day, spans=2) for day, name in enumerate("abcde")]
    for share, kept in ((1.0, 5), (0.8, 4), (0.79, 3), (0.0, 0)):
        assert find_doomed(place.store, keep_share=share).trace_ids == tuple(runs[: 5 - kept])


@pytest.mark.parametrize("compacted", [True, False])
def test_what_is_deleted_is_gone_from_segments_log_files_labels_and_texts(place: Place, compacted: bool) -> None:
    runs = [place.run(name) for name in "ab"]
    if compacted:
        place.compact()
    place.log.close()
    done = place.delete(find_doomed(place.store, ids=runs[:1]))
    assert (done.traces, done.spans, done.labels, done.texts, done.live, done.finished) == (1, 1, 1, 1, 0, True)
    assert not place.holds("a")
    assert place.holds("b")
    assert place.store.ids() == runs[1:]
    assert [label.trace_id for label in LabelLog(place.labels)] == runs[1:]
    (stone,) = Tombstones(place.spans)
    assert (stone.reason, stone.spans, stone.labels, stone.trace_ids) == ("by test", 1, 1, (runs[0],))


def test_what_is_deleted_is_gone_also_where_segments_lie_elsewhere(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path / "elsewhere")
    runs = [place.run(name) for name in "ab"]
    place.compact()
    assert place.delete(find_doomed(place.store, ids=runs[:1])).texts == 1
    assert (place.holds("a"), place.holds("b"), place.store.ids()) == (False, True, runs[1:])


def test_what_a_running_process_holds_is_hidden_at_once_and_gone_later(place: Place) -> None:
    run = place.run("a")
    done = place.delete(find_doomed(place.store))
    assert (done.live, place.store.ids()) == (1, [])
    place.run("a", spans=2)
    assert place.store.ids() == []
    place.run("b")
    place.compact()
    place.delete(Doomed(trace_ids=(), span_ids=frozenset(), spans=0))
    assert not place.holds("a")
    assert place.store.ids() == ["b" * 32]
    assert [label.trace_id for label in LabelLog(place.labels)] == ["b" * 32]
    assert Tombstones(place.spans).trace_ids() == {run}


def test_copies_that_were_set_aside_lose_the_run_too(place: Place) -> None:
    place.run("a")
    place.run("b")
    place.log.close()
    damaged = [b"00000000" + line[8:] for line in place.log.path.read_bytes().splitlines(keepends=True)]
    with place.log.path.open("ab") as file:
        file.writelines(damaged)
    place.compact()
    assert [path.name for path in (place.spans / "damaged").iterdir()] == [place.log.path.name]
    place.delete(find_doomed(place.store, ids=["a" * 32]))
    assert not place.holds("a")
    assert b"secret b" in (place.spans / "damaged" / place.log.path.name).read_bytes()


KILLED = """
import sys
from pathlib import Path
from journeyman.traces.storage.retention import delete, find_doomed
from journeyman.traces.storage.segments import Segments
from journeyman.traces.storage.store import TraceStore

spans, labels = Path(sys.argv[1]), Path(sys.argv[2])
doomed = find_doomed(TraceStore(spans, labels), users=["ann"])
print(len(doomed.trace_ids), flush=True)
delete(spans, labels, Segments(spans), doomed, reason="by user")
print("done", flush=True)
"""


def test_a_deletion_that_was_killed_is_finished_by_the_next_one(tmp_path: Path) -> None:
    draw = random.Random(4)
    for attempt in range(2):
        place = Place(tmp_path / str(attempt))
        for name in "abcdef":
            place.run(name, spans=300, user="ann" if name in "abc" else "bob")
        place.compact()
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(place.spans), str(place.labels)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stdout.readline() == "3\n"
        time.sleep(draw.uniform(0, 0.05))
        process.kill()
        process.communicate()
        assert set(place.store.ids()) >= {name * 32 for name in "def"}
        place.delete(find_doomed(place.store, users=["ann"]))
        assert not any(map(place.holds, "abc"))
        assert sorted(place.store.ids()) == [name * 32 for name in "def"]
        assert {label.trace_id[0] for label in LabelLog(place.labels)} == set("def")


def test_retention_by_age_counts_from_the_end_of_a_run(place: Place) -> None:
    runs = [place.run(name, day=day) for day, name in enumerate("abc")]
    place.log.close()
    done = place.retain(keep_days=1, now_ns=2 * DAY_NS + 2)
    assert (done.traces, place.store.ids()) == (2, runs[2:])
    assert [stone.reason for stone in Tombstones(place.spans)] == ["older than 1 days"]
    assert place.retain(keep_days=1, now_ns=2 * DAY_NS + 2) == Deletion()


def test_retention_by_size_keeps_the_newest(place: Place) -> None:
    runs = [place.run(name, day=day, spans=50) for day, name in enumerate("abcd")]
    place.compact()
    before = size(place.spans, place.segments)
    assert place.retain(keep_gb=before / 1e9).traces == 0
    done = place.retain(keep_gb=before * 0.6 / 1e9)
    assert (done.traces, place.store.ids()) == (2, runs[2:])
    assert size(place.spans, place.segments) < 0.7 * before


def test_nothing_is_deleted_unless_asked_for(place: Place) -> None:
    place.run("a")
    assert place.retain() == Deletion()
    assert not (place.spans / "tombstones.log").exists()
