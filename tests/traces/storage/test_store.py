"""The store: finding traces, putting labels beside them, and saying what was left out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import Damage, SpanLog, SpanRecord
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.labels import Label
from journeyman.traces.storage.columns import to_spans, to_table
from journeyman.traces.storage.compact import compact
from journeyman.traces.storage.segments import Segments
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.tombstones import Tombstones
from journeyman.traces.trace import Origin

DATA = Path(__file__).parents[2] / "data"
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
        ({"policy": ("lookup@8", "nobody")}, [LEARNED]),
        ({"crew": "nobody"}, []),
        ({"family": "rivers"}, [TAUGHT, LEARNED]),
        ({"status": "ok"}, [TAUGHT, LEARNED]),
        ({"status": "unfinished"}, [CRASHED]),
        ({"label": "score"}, [LEARNED]),
        ({"since_ns": 1_760_000_000_000_000_001}, [CRASHED, LEARNED]),
        ({"ids": [LEARNED, CRASHED, "d" * 32]}, [CRASHED, LEARNED]),
        ({"ids": []}, []),
        ({"task_set": "gate.jsonl", "status": "ok"}, []),
        ({"until_ns": 1_760_003_600_000_000_000}, [TAUGHT]),
        ({"label": "score", "min_value": 0.5}, [LEARNED]),
        ({"label": "score", "min_value": 1.5}, []),
        ({"label": "score", "value": 1.0}, [LEARNED]),
        ({"label": "score", "value": "1"}, []),
        ({"text": "Which river runs through Riga?"}, [TAUGHT, CRASHED, LEARNED]),
        ({"text": '{"search"'}, [TAUGHT, CRASHED, LEARNED]),
        ({"text": "no such words"}, []),
        ({"session": "s"}, []),
    ],
)
def test_conditions_narrow_what_is_found(store: TraceStore, conditions: dict[str, object], expected: list[str]) -> None:
    store.label(Label(trace_id=LEARNED, name="score", source="test", value=1.0))
    store.label(Label(trace_id=TAUGHT, span_id="1" * 16, name="score", source="test", value=1.0))
    assert ids(store, **conditions) == expected
    assert store.ids(**conditions) == expected  # type: ignore[arg-type]


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


def test_of_a_label_the_newest_version_is_shown_and_asked_for(store: TraceStore) -> None:
    def score(value: float, version: int, at_ns: int) -> Label:
        return Label(trace_id="a" * 32, name="score", source="me", value=value, version=version, at_ns=at_ns)

    store.label(score(1.0, version=2, at_ns=1), score(0.0, version=1, at_ns=2))
    assert [label.value for label in store.get("a" * 32).labels] == [1.0]
    assert store.ids(label="score", min_value=0.5) == ["a" * 32]
    assert len(store.sql("SELECT * FROM labels")) == 1


def test_only_the_newest_value_of_a_label_counts(store: TraceStore) -> None:
    values: tuple[float | str, ...] = (0.0, True, "good")
    for at_ns, value in enumerate(values):
        store.label(Label(trace_id=LEARNED, name="score", source="test", value=value, at_ns=at_ns))
        assert store.ids(label="score", value=value) == [LEARNED]
        assert store.ids(label="score", min_value=1) == ([LEARNED] if value is True else [])


def test_live_and_compacted_spans_are_one_record(tmp_path: Path, golden: Golden, store: TraceStore) -> None:
    spans = [span for name in ("learned", "taught", "crashed") for span in golden(name)]
    mixed = TraceStore(tmp_path, tmp_path / "labels.jsonl")
    write(tmp_path, spans[::2])
    compact(tmp_path, Segments(tmp_path))
    write(tmp_path, spans[1::2])
    assert list(mixed.traces()) == list(store.traces())
    assert mixed.get(LEARNED) == store.get(LEARNED)
    compact(tmp_path, Segments(tmp_path))
    assert not list(tmp_path.glob("*.jsonl"))
    assert list(mixed.traces()) == list(store.traces())
    assert mixed.sql("SELECT count(*) AS spans FROM spans").to_pylist() == [{"spans": len(spans)}]
    assert not mixed.damage


def test_a_file_that_a_segment_replaces_is_not_read_twice(tmp_path: Path, golden: Golden) -> None:
    write(tmp_path, golden("learned"))
    (file,) = tmp_path.glob("*.jsonl")
    contents = file.read_bytes()
    compact(tmp_path, Segments(tmp_path))
    file.write_bytes(contents)  # As after a crash between writing the segment and deleting the file.
    found = TraceStore(tmp_path, tmp_path / "labels.jsonl").sql("SELECT count(*) AS spans FROM spans").to_pylist()
    assert found == [{"spans": len(golden("learned"))}]


def test_a_span_that_was_recorded_twice_is_one_turn(tmp_path: Path, golden: Golden) -> None:
    write(tmp_path, golden("learned"))
    compact(tmp_path, Segments(tmp_path))
    write(tmp_path, golden("learned"))
    store = TraceStore(tmp_path, tmp_path / "labels.jsonl")
    turns = list(store.turns(["span_id", "trajectory_status", "token_ids"], agent="lookup"))
    trace = store.get(LEARNED)
    assert len(turns) == len({turn[0] for turn in turns}) == sum(turn.agent == "lookup" for turn in trace.turns)


def test_turns_are_those_of_the_assembled_traces(store: TraceStore) -> None:
    columns = ["trace_id", "trajectory_id", "span_id", "agent", "trajectory_status", "finish_reason", "error"]
    rows = {row[2] + row[0]: row for row in store.turns(columns)}
    turns = {
        turn.span_id + trace.trace_id: (
            *(trace.trace_id, trajectory.span_id, turn.span_id, turn.agent),
            *(trajectory.status, turn.finish_reason, turn.error),
        )
        for trace in store.traces()
        for trajectory in trace.trajectories
        for turn in trajectory.turns
    }
    assert rows == turns


def test_a_corrupt_segment_is_left_out_and_counted(tmp_path: Path, golden: Golden) -> None:
    segments = Segments(tmp_path)
    good = segments.write(to_table(golden("learned"), segments.texts))
    bad = Path(segments.write(to_table(golden("taught"), segments.texts)))
    store = TraceStore(tmp_path, tmp_path / "labels.jsonl")
    contents = bytearray(bad.read_bytes())
    contents[8:4000] = bytes(3992)
    bad.write_bytes(contents)
    assert ids(store) == [LEARNED]
    assert store.damage == Damage(segments=1)
    assert Path(good).exists()


def test_traces_that_were_deleted_are_not_seen(tmp_path: Path, golden: Golden) -> None:
    write(tmp_path, golden("learned") + golden("taught"))
    store = TraceStore(tmp_path, tmp_path / "labels.jsonl")
    store.label(Label(trace_id=TAUGHT, name="score", source="test", value=1.0))
    assert len(ids(store)) == 2
    Tombstones(tmp_path).add([TAUGHT], reason="test")
    assert ids(store) == store.ids() == [LEARNED]
    assert store.sql("SELECT DISTINCT trace_id FROM turns").to_pylist() == [{"trace_id": LEARNED}]
    assert store.sql("FROM labels").num_rows == 0


def test_compaction_by_another_process_disturbs_no_reader(tmp_path: Path, golden: Golden, store: TraceStore) -> None:
    write(tmp_path, golden("learned") + golden("taught"))
    reader = TraceStore(tmp_path, tmp_path / "labels.jsonl")
    found = reader.traces()
    first = next(found)
    compact(tmp_path, Segments(tmp_path))
    assert [first, *found] == [store.get(TAUGHT), store.get(LEARNED)]


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("SELECT nope FROM spans", 'Binder Error: Referenced column "nope" not found'),
        ("SELEC", "Parser Error"),
        ("SELECT 1; SELECT 2", "one SELECT can be asked"),
        ("COPY spans TO '/elsewhere/stolen.parquet'", "one SELECT can be asked"),
        ("CREATE TABLE mine AS FROM spans", "one SELECT can be asked"),
        ("SELECT * FROM read_text('/etc/hostname')", "Permission Error"),
    ],
)
def test_a_query_only_asks_and_only_the_record(store: TraceStore, query: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        store.sql(query)
    assert "\n" not in str(caught.value)


def test_a_query_takes_parameters(store: TraceStore) -> None:
    query = "SELECT agent, sum(turns)::INT AS turns FROM trajectories WHERE trace_id = ? GROUP BY agent ORDER BY agent"
    assert store.sql(query, [LEARNED]).to_pylist() == [
        {"agent": "lookup", "turns": 8},
        {"agent": "orchestrator", "turns": 1},
    ]


def test_views_say_what_the_assembled_trace_says(store: TraceStore) -> None:
    store.label(Label(trace_id=LEARNED, name="score", source="test", value=0.25))
    trace = store.get(LEARNED)
    (row,) = store.sql("FROM traces WHERE trace_id = ?", [LEARNED]).to_pylist()
    assert trace.task is not None
    assert (row["crew"], row["task_id"], row["family"]) == (trace.crew, trace.task.id, trace.task.family)
    assert (row["status"], row["score"], row["seconds"]) == ("ok", 0.25, trace.seconds)
    assert (row["input_tokens"], row["output_tokens"]) == (trace.usage.input_tokens, trace.usage.output_tokens)
    assert row["model_calls"] == len(trace.turns)
    rows = store.sql("FROM trajectories WHERE trace_id = ? ORDER BY started_ns, span_id", [LEARNED]).to_pylist()
    assert [(one["span_id"], one["agent"], one["status"], one["turns"], one["goal"]) for one in rows] == [
        (one.span_id, one.agent, one.status, len(one.turns), one.goal) for one in trace.trajectories
    ]
    results = {result.span_id: result.content for turn in trace.turns for result in turn.tool_results}
    rows = store.sql("SELECT span_id, result FROM tool_calls WHERE trace_id = ?", [LEARNED]).to_pylist()
    assert {row["span_id"]: row["result"] for row in rows} == results


def test_a_run_that_was_taken_up_again_is_one_run_that_ended_once(tmp_path: Path, golden: Golden) -> None:
    spans = golden("learned")
    flow = next(span for span in spans if span.attributes[a.OPERATION] == "invoke_workflow")
    outcome = '{"task_id": "t", "trace_id": "t", "status": "needs_input"}'
    waits = {a.STATUS: "needs_input", a.OUTCOME: outcome}
    times = {"start_ns": flow.start_ns - 10**12, "end_ns": flow.start_ns - 10**12 + 500_000_000}
    before = flow.model_copy(update={"span_id": "d" * 16, "attributes": flow.attributes | waits, **times})
    write(tmp_path / "spans", [*spans, flow, before])
    for _ in ("live", "compacted"):
        store = TraceStore(tmp_path / "spans", tmp_path / "labels.jsonl")
        assert ids(store, status="ok") == ids(store, status="ok", since_ns=flow.start_ns) == [LEARNED]
        assert ids(store, status="ok", family="rivers") == ids(store) == [LEARNED]
        assert ids(store, status="needs_input") == ids(store, status="ok", until_ns=flow.start_ns) == []
        (row,) = store.sql("SELECT status, started_ns, ended_ns, seconds FROM traces").to_pylist()
        assert (row["status"], row["started_ns"], row["ended_ns"]) == ("ok", before.start_ns, flow.end_ns)
        (trace,) = store.traces()
        assert (trace.started_ns, trace.ended_ns) == (row["started_ns"], row["ended_ns"])
        compact(tmp_path / "spans", Segments(tmp_path / "spans"))


@pytest.mark.parametrize("parts", [1, 2])
def test_the_seconds_of_a_run_are_those_in_which_it_was_at_work(tmp_path: Path, golden: Golden, parts: int) -> None:
    spans = golden("learned")
    flow = next(span for span in spans if span.attributes[a.OPERATION] == "invoke_workflow")
    later = {"start_ns": flow.end_ns + 10**12, "end_ns": flow.end_ns + 10**12 + 2 * 10**9}
    again = flow.model_copy(update={"span_id": "d" * 16, **later})
    write(tmp_path / "spans", [*spans, again][: len(spans) + parts - 1])
    store = TraceStore(tmp_path / "spans", tmp_path / "labels.jsonl")
    (row,) = store.sql("SELECT seconds FROM traces").to_pylist()
    assert row["seconds"] == pytest.approx((flow.end_ns - flow.start_ns) / 1e9 + 2.0 * (parts - 1))


@pytest.mark.parametrize(
    ("name", "attribute"),
    [("family", a.TASK_FAMILY), ("session", a.CONVERSATION_ID), ("user", a.USER_ID), ("purpose", a.PURPOSE)],
)
def test_a_run_that_died_is_found_by_whose_it_is(tmp_path: Path, golden: Golden, name: str, attribute: str) -> None:
    whose = {attribute: "ann"}
    spans = [span.model_copy(update={"attributes": span.attributes | whose}) for span in golden("crashed")]
    write(tmp_path / "spans", [*spans, *golden("learned")])
    store = TraceStore(tmp_path / "spans", tmp_path / "labels.jsonl")
    found: Any = {name: "ann"}
    assert store.ids(**found) == store.ids(**found, status="unfinished") == [CRASHED]
    assert store.ids(**found, status="ok") == []
    row = store.sql(f'SELECT "{name}" AS whose FROM traces WHERE trace_id = ?', [CRASHED]).to_pylist()
    assert row == [{"whose": "ann"}]


def made_for(spans: list[SpanRecord], purpose: str) -> list[SpanRecord]:
    told = {a.PURPOSE: purpose, a.TASK_SET: "gate.jsonl", a.TASK_SET_DIGEST: "f" * 64}
    return [
        span.model_copy(update={"attributes": span.attributes | told})
        if span.attributes.get(a.OPERATION) == "invoke_workflow"
        else span
        for span in spans
    ]


def test_a_run_says_what_it_was_made_for(tmp_path: Path, golden: Golden) -> None:
    write(tmp_path / "spans", [*made_for(golden("learned"), "gate"), *golden("taught")])
    store = TraceStore(tmp_path / "spans", tmp_path / "labels.jsonl")
    assert ids(store, purpose="gate") == ids(store, purpose="gate", status="ok") == [LEARNED]
    assert store.get(LEARNED).origin == Origin(purpose="gate", task_set="gate.jsonl", task_set_digest="f" * 64)
    assert store.get(TAUGHT).origin is None
    rows = store.sql("SELECT purpose, task_set FROM traces ORDER BY trace_id").to_pylist()
    assert rows == [{"purpose": "gate", "task_set": "gate.jsonl"}, {"purpose": None, "task_set": None}]


@pytest.mark.parametrize("mixed", [False, True])
def test_a_segment_from_before_there_was_a_column_is_read_and_joined(
    tmp_path: Path, golden: Golden, mixed: bool
) -> None:
    segments = Segments(tmp_path)
    older = to_table(golden("taught"), segments.texts)
    segments.write(older.drop_columns(["purpose", "task_set", "prompt_form"]))
    new = made_for(golden("crashed") + golden("learned"), "gate") if mixed else []
    if mixed:
        segments.write(to_table(new, segments.texts))
    store = TraceStore(tmp_path, tmp_path / "labels.jsonl")
    wanted = [{"trace_id": LEARNED, "purpose": "gate"}] * mixed + [{"trace_id": TAUGHT, "purpose": None}]
    asked = "SELECT trace_id, purpose FROM traces WHERE status = 'ok' ORDER BY trace_id"
    assert store.sql(asked).to_pylist() == wanted
    assert ids(store, purpose="gate") == [LEARNED] * mixed
    assert compact(tmp_path, segments).merged == 2 * mixed
    assert store.sql(asked).to_pylist() == wanted
    spelled = to_spans(to_table([*golden("taught"), *new]))  # Lists of numbers lose their spaces.
    assert sorted(store.spans(), key=repr) == sorted(spelled, key=repr)


def test_segments_may_lie_on_object_storage(bucket: str, tmp_path: Path, golden: Golden, store: TraceStore) -> None:
    url = f"{bucket}/of-the-store"
    segments = Segments(url)
    segments.write(to_table(golden("learned"), segments.texts))
    write(tmp_path, golden("taught"))
    both = TraceStore(tmp_path, tmp_path / "labels.jsonl", segments=url)
    assert list(both.traces()) == [store.get(TAUGHT), store.get(LEARNED)]
    with pytest.raises(ConfigError, match="Permission Error"):
        both.sql("SELECT * FROM read_text('/etc/hostname')")
    compact(tmp_path, segments)
    assert list(both.traces()) == [store.get(TAUGHT), store.get(LEARNED)]


def test_what_was_stated_before_can_still_be_read(store: TraceStore) -> None:
    for version, text in enumerate(("The Neris.", "The Daugava."), start=1):
        store.label(Label(trace_id=LEARNED, name="edit", source="ann", version=version, value=text))
    store.label(Label(trace_id=LEARNED, name="score", source="test", value=1.0))
    assert [label.value for label in store.statements("edit")] == ["The Neris.", "The Daugava."]
    assert store.sql("SELECT value FROM labels WHERE name = 'edit'")["value"].to_pylist() == ["The Daugava."]
