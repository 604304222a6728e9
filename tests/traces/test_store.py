"""The store: finding traces, putting labels beside them, and saying what was left out."""

from collections.abc import Callable
from pathlib import Path

import pytest

from journeyman.traces import attributes as a
from journeyman.traces.errors import StoreError
from journeyman.traces.labels import Label
from journeyman.traces.log import Damage, SpanLog, SpanRecord
from journeyman.traces.store import TraceStore

DATA = Path(__file__).parent.parent / "data"
LEARNED, TAUGHT, CRASHED = "a" * 32, "b" * 32, "c" * 32

Golden = Callable[[str], list[SpanRecord]]


@pytest.fixture
def store(tmp_path: Path) -> TraceStore:
    """The golden runs: taught, then crashed, then learned."""
    return TraceStore(DATA / "spans", tmp_path / "labels.jsonl")


def ids(store: TraceStore, **conditions: object) -> list[str]:
    return [trace.trace_id for trace in store.traces(**conditions)]  # type: ignore[arg-type]


def write(directory: Path, spans: list[SpanRecord]) -> None:
    log = SpanLog(directory)
    for span in spans:
        log.append(span, sync=False)
    log.close()


def test_traces_come_oldest_first_or_newest_first(store: TraceStore) -> None:
    assert ids(store) == [TAUGHT, CRASHED, LEARNED]
    assert ids(store, newest_first=True) == [LEARNED, CRASHED, TAUGHT]
    assert not store.damage


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"agent": "lookup"}, [TAUGHT, CRASHED, LEARNED]),
        ({"agent": "nobody"}, []),
        ({"policy": "lookup@8"}, [LEARNED]),
        ({"policy": "teacher", "family": "rivers"}, [TAUGHT]),
        ({"family": "rivers"}, [TAUGHT, LEARNED]),
        ({"status": "ok"}, [TAUGHT, LEARNED]),
        ({"status": "unfinished"}, [CRASHED]),
        ({"label": "score"}, [LEARNED]),
        ({"since_ns": 1_760_000_000_000_000_001}, [CRASHED, LEARNED]),
        ({"ids": [LEARNED, CRASHED, "d" * 32]}, [CRASHED, LEARNED]),
        ({"ids": []}, []),
    ],
)
def test_conditions_narrow_what_is_found(store: TraceStore, conditions: dict[str, object], expected: list[str]) -> None:
    store.label(Label(trace_id=LEARNED, name="score", source="test", value=1.0))
    store.label(Label(trace_id=TAUGHT, span_id="1" * 16, name="score", source="test", value=1.0))
    assert ids(store, **conditions) == expected


def test_a_label_is_seen_with_its_trace(store: TraceStore) -> None:
    store.label(Label(trace_id=LEARNED, name="score", source="test", value=0.25))
    score = store.get(LEARNED).label("score")
    assert score is not None and score.value == 0.25
    assert store.get(TAUGHT).labels == ()


def test_a_trace_is_found_by_the_start_of_its_id(store: TraceStore) -> None:
    assert store.get("aaaa").trace_id == LEARNED
    assert store.get("AAAA") == next(store.traces(ids=[LEARNED]))


def test_an_unknown_id_is_an_error_that_says_where_to_look(store: TraceStore) -> None:
    with pytest.raises(StoreError, match=r"no trace 'feed' in .*spans: `journeyman traces list` shows"):
        store.get("feed")


def test_an_ambiguous_id_is_an_error_that_names_the_candidates(tmp_path: Path, span: SpanRecord) -> None:
    write(
        tmp_path, [span.model_copy(update={"trace_id": "ab1" + "0" * 29}), span.model_copy(update={"trace_id": "ab2"})]
    )
    with pytest.raises(StoreError, match="2 traces start with 'ab' \\(ab1000000000, ab2, …\\): give more of the id"):
        TraceStore(tmp_path, tmp_path / "labels.jsonl").get("ab")


def test_an_empty_workspace_has_no_traces(tmp_path: Path) -> None:
    assert ids(TraceStore(tmp_path / "spans", tmp_path / "labels.jsonl")) == []


def test_a_run_in_several_files_is_one_trace(tmp_path: Path, golden: Golden, store: TraceStore) -> None:
    spans = golden("learned")
    write(tmp_path / "spans", spans[1::2])
    write(tmp_path / "spans", golden("taught"))
    write(tmp_path / "spans", spans[::2])
    both = TraceStore(tmp_path / "spans", tmp_path / "labels.jsonl")
    assert list(both.traces()) == [store.get(TAUGHT), store.get(LEARNED)]


def test_a_run_grows_while_it_is_read(tmp_path: Path, golden: Golden) -> None:
    store = TraceStore(tmp_path, tmp_path / "labels.jsonl")
    *most, last = golden("learned")
    write(tmp_path, most)
    assert store.get(LEARNED).outcome is None
    write(tmp_path, [last])
    assert store.get(LEARNED).outcome is not None


def test_what_was_left_out_is_counted(tmp_path: Path, golden: Golden, span: SpanRecord) -> None:
    write(tmp_path / "spans", golden("learned"))
    write(tmp_path / "spans", [span.model_copy(update={"attributes": {**span.attributes, a.STATUS: "splendid"}})])
    first, second = sorted((tmp_path / "spans").iterdir())
    first.write_bytes(first.read_bytes()[:-5])
    second.write_bytes(b"00000000 {}\n" + second.read_bytes())
    (tmp_path / "labels.jsonl").write_text("half a la")
    store = TraceStore(tmp_path / "spans", tmp_path / "labels.jsonl")
    assert ids(store) == [LEARNED]
    assert store.damage == Damage(torn=1, corrupt=1, traces=1, labels=1)
    assert str(store.damage) == "1 torn spans, 1 corrupt spans, 1 unusable traces, 1 unreadable labels"
