"""Assembling traces from spans in any order, and the contract that makes a turn training data."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.assemble import assemble, refusal
from journeyman.traces.capture.log import LogReader, SpanRecord
from journeyman.traces.errors import StoreError
from journeyman.traces.labels import Label
from journeyman.traces.messages import Message
from journeyman.traces.trace import Trace, Trajectory, Turn

Golden = Callable[[str], list[SpanRecord]]

DATA = Path(__file__).parent.parent / "data"
SPANS = list(LogReader(DATA / "spans"))
LEARNED = [span for span in SPANS if span.trace_id == "a" * 32]


def engine(chat: SpanRecord, queue_s: float = 0.25, **attributes: JsonValue) -> SpanRecord:
    """The server's own span of a call: half a millisecond later, because the network lies between."""
    return chat.model_copy(
        update={
            "span_id": f"e{chat.span_id[1:]}",
            "parent_id": chat.span_id,
            "name": "llm_request",
            "kind": "server",
            "start_ns": chat.start_ns + 500_000,
            "attributes": {a.ENGINE_QUEUE: queue_s, a.ENGINE_PREFILL: 0.5, a.ENGINE_DECODE: 1, **attributes},
        }
    )


CHATS = [span for span in LEARNED if span.attributes[a.OPERATION] == "chat"]
SERVED = [*LEARNED, *map(engine, CHATS)]


def trajectory(trace: Trace, assignment: str | None) -> Trajectory:
    return next(one for one in trace.trajectories if one.assignment == assignment)


def plan_span(spans: list[SpanRecord]) -> SpanRecord:
    return next(span for span in spans if span.attributes[a.OPERATION] == "plan")


def without(spans: list[SpanRecord], operation: str, agent: str | None = None) -> list[SpanRecord]:
    return [
        span
        for span in spans
        if span.attributes[a.OPERATION] != operation or agent not in (None, span.attributes.get(a.AGENT_NAME))
    ]


@pytest.mark.parametrize("name", ["learned", "taught", "crashed"])
def test_a_golden_run_assembles_to_its_golden_trace(name: str, golden: Golden) -> None:
    expected = (DATA / "traces" / f"{name}.json").read_text(encoding="utf-8")
    assert assemble(golden(name)) == Trace.model_validate_json(expected)


@given(st.permutations(SERVED), st.lists(st.sampled_from(SERVED)))
def test_order_and_repetition_change_nothing(spans: list[SpanRecord], again: list[SpanRecord]) -> None:
    assert assemble([*spans, *again]) == assemble(SERVED)


@given(st.sets(st.sampled_from(range(len(SERVED))), min_size=1))
def test_any_part_of_a_run_assembles_with_every_model_call_that_it_holds(kept: set[int]) -> None:
    spans = [SERVED[place] for place in kept]
    trace = assemble(spans)
    chats = {span.span_id for span in spans if span.attributes.get(a.OPERATION) == "chat"}
    assert {turn.span_id for turn in trace.turns} == chats
    assert len(trace.turns) == len(chats)
    assert trace == assemble(reversed(spans))


@given(st.permutations(SERVED), st.integers(min_value=1, max_value=len(SERVED)))
def test_a_span_that_comes_late_leaves_the_trace_as_if_it_had_come_in_time(spans: list[SpanRecord], known: int) -> None:
    early = assemble(spans[:known])
    assert {turn.span_id for turn in early.turns} <= {turn.span_id for turn in assemble(spans).turns}
    assert assemble([*spans[known:], *spans[:known]]) == assemble(SERVED)


@given(st.sets(st.sampled_from(range(len(CHATS)))))
def test_a_turn_has_its_servers_times_where_the_server_told_them(told: set[int]) -> None:
    trace = assemble([*LEARNED, *(engine(CHATS[place]) for place in told)])
    ids = {CHATS[place].span_id for place in told}
    for turn in trace.turns:
        times = (turn.queue_s, turn.prefill_s, turn.decode_s)
        assert times == ((0.25, 0.5, 1.0) if turn.span_id in ids else (None, None, None))


@given(st.sets(st.sampled_from(range(len(LEARNED)))))
def test_every_turn_is_training_data_or_is_refused_for_a_reason_that_can_be_counted(lost: set[int]) -> None:
    spans = [span for place, span in enumerate(LEARNED) if place not in lost] or LEARNED
    trace = assemble(spans)
    reasons = Counter(refusal(turn, one) for one in trace.trajectories for turn in one.turns)
    assert reasons.total() == len(trace.turns)
    assert reasons.keys() <= {None, "call failed", "trajectory unfinished"}
    unfinished = [turn for one in trace.trajectories if one.status is None for turn in one.turns if turn.error is None]
    assert reasons["trajectory unfinished"] == len(unfinished)


def test_two_spans_of_one_id_are_settled_the_same_way_in_either_order(golden: Golden) -> None:
    spans = golden("learned")
    other = spans[0].model_copy(update={"end_ns": spans[0].end_ns + 1})
    assert assemble([other, *spans]) == assemble([*spans, other])


def part(spans: list[SpanRecord], number: int, status: str, *, start_ns: int, end_ns: int) -> SpanRecord:
    """A workflow span of a run that was interrupted and taken up again."""
    flow = next(span for span in spans if span.attributes[a.OPERATION] == "invoke_workflow")
    outcome = json.loads(str(flow.attributes[a.OUTCOME])) | {"status": status, "answer": status}
    told = {a.STATUS: status, a.OUTCOME: json.dumps(outcome)}
    times = {"start_ns": start_ns, "end_ns": end_ns}
    return flow.model_copy(update={"span_id": f"{number:f>16}", "attributes": flow.attributes | told, **times})


@given(st.permutations(range(3)))
def test_of_a_run_that_was_taken_up_again_the_last_part_says_how_it_ended(order: list[int]) -> None:
    first, last = min(span.start_ns for span in LEARNED), max(span.end_ns for span in LEARNED)
    parts = [
        part(LEARNED, 1, "needs_input", start_ns=first - 900, end_ns=first - 800),
        part(LEARNED, 2, "paused", start_ns=first - 500, end_ns=first - 400),
        part(LEARNED, 3, "ok", start_ns=first, end_ns=last),
    ]
    trace = assemble([*without(LEARNED, "invoke_workflow"), *(parts[place] for place in order)])
    assert trace.outcome is not None and trace.task is not None
    assert (trace.outcome.status, trace.outcome.answer) == ("ok", "ok")
    assert (trace.started_ns, trace.ended_ns) == (first - 900, last)
    assert trace.seconds == (100 + 100 + last - first) / 1e9


def test_a_run_that_waits_after_it_was_taken_up_is_not_what_it_was_before(golden: Golden) -> None:
    spans = golden("learned")
    last = max(span.end_ns for span in spans)
    outcome = assemble([*spans, part(spans, 1, "needs_input", start_ns=last + 5, end_ns=last + 9)]).outcome
    assert outcome is not None and outcome.status == "needs_input"


def test_a_run_that_was_killed_and_taken_up_again_lasted_from_its_first_span_on(golden: Golden) -> None:
    left = without(golden("learned"), "invoke_workflow")
    first, last = min(span.start_ns for span in left), max(span.end_ns for span in left)
    resumed = part(golden("learned"), 1, "ok", start_ns=last + 10, end_ns=last + 20)
    trace = assemble([*left, resumed])
    assert (trace.started_ns, trace.ended_ns) == (first, last + 20)


def test_agents_form_a_tree(golden: Golden) -> None:
    orchestrator, *workers = assemble(golden("learned")).trajectories
    assert (orchestrator.agent, orchestrator.parent, orchestrator.assignment) == ("orchestrator", None, None)
    assert {worker.parent for worker in workers} == {orchestrator.span_id}
    assert [worker.assignment for worker in workers] == ["1", "2.1", "2.2", "2.3"]
    assert [worker.status for worker in workers] == ["ok", "failed", "ok", "ok"]
    assert [len(worker.turns) for worker in workers] == [2, 2, 2, 2]


def test_the_planning_call_and_the_plan_belong_to_the_orchestrator(golden: Golden) -> None:
    orchestrator = assemble(golden("learned")).trajectories[0]
    assert [turn.policy for turn in orchestrator.turns] == ["orchestrator@3"]
    assert orchestrator.plan == json.loads(str(plan_span(golden("learned")).attributes[a.PLAN]))


def test_a_tool_result_belongs_to_the_turn_that_asked_for_it(golden: Golden) -> None:
    asked, answered = trajectory(assemble(golden("learned")), "2.2").turns
    (result,) = asked.tool_results
    assert (result.tool, result.arguments, result.status) == ("search", {"query": "river Riga"}, "ok")
    assert result.content == "Riga lies on the Daugava. [3]"
    assert answered.tool_results == ()


def test_a_failed_call_is_a_turn_without_a_response(golden: Golden) -> None:
    failed = trajectory(assemble(golden("learned")), "2.1").turns[-1]
    assert failed.response is None
    assert failed.error == "the server answered 503: engine is overloaded"


def test_a_tool_call_that_was_cancelled_counts_as_failed(golden: Golden) -> None:
    def cancelled(span: SpanRecord) -> SpanRecord:
        if span.attributes[a.OPERATION] != "execute_tool":
            return span
        kept = {
            name: value for name, value in span.attributes.items() if name not in (a.TOOL_STATUS, a.TOOL_CALL_RESULT)
        }
        return span.model_copy(update={"status": "error", "attributes": {**kept, a.ERROR: "CancelledError"}})

    (result,) = trajectory(assemble(map(cancelled, golden("learned"))), "1").turns[0].tool_results
    assert (result.status, result.content) == ("failed", "CancelledError")


def test_a_crashed_run_has_no_task_and_no_outcome_but_all_its_turns(golden: Golden) -> None:
    trace = assemble(golden("crashed"))
    assert (trace.task, trace.outcome, trace.crew) == (None, None, None)
    assert len(trace.turns) == 8
    orchestrator, *workers = trace.trajectories
    assert (orchestrator.agent, orchestrator.status) == ("orchestrator", None)
    assert [worker.status for worker in workers] == ["ok", "ok", "ok", None]
    assert [worker.parent for worker in workers[:3]] == [orchestrator.span_id] * 3


def test_an_agent_whose_own_span_a_kill_took_has_the_number_that_its_calls_have(golden: Golden) -> None:
    spans = [
        span.model_copy(update={"attributes": {**span.attributes, a.ASSIGNMENT_ID: "2.4"}})
        for span in golden("crashed")
        if span.attributes[a.OPERATION] == "chat"
    ]
    assert {one.assignment for one in assemble(spans).trajectories} == {"2.4"}


def test_in_a_crew_without_an_orchestrator_the_worker_has_no_parent(golden: Golden) -> None:
    flow = next(span for span in golden("learned") if span.attributes[a.OPERATION] == "invoke_workflow")
    alone = [
        span.model_copy(update={"parent_id": flow.span_id}) if span.attributes.get(a.ASSIGNMENT_ID) == "1" else span
        for span in without(without(golden("learned"), "invoke_agent", "orchestrator"), "plan")
        if span.attributes.get(a.AGENT_NAME) != "orchestrator"
    ]
    assert trajectory(assemble(alone), "1").parent is None


def test_a_chat_outside_any_agent_is_kept_as_a_trajectory_of_its_own(golden: Golden) -> None:
    chat = golden("learned")[0].model_copy(update={"parent_id": None})
    (only,) = assemble([chat]).trajectories
    assert (only.span_id, only.agent, only.status, len(only.turns)) == (chat.span_id, "orchestrator", None, 1)


def test_parents_in_a_ring_do_not_hang(golden: Golden) -> None:
    first, second, *_ = (span for span in golden("learned") if span.attributes[a.OPERATION] == "chat")
    ring = [
        first.model_copy(update={"parent_id": second.span_id}),
        second.model_copy(update={"parent_id": first.span_id}),
    ]
    assert len(assemble(ring).turns) == 2


def test_labels_come_with_the_trace_oldest_first(golden: Golden) -> None:
    labels = [Label(trace_id="a" * 32, name="score", source="test", value=value, at_ns=value) for value in (2, 1)]
    trace = assemble(golden("learned"), labels)
    assert [label.value for label in trace.labels] == [1.0, 2.0]
    newest = trace.label("score")
    assert newest is not None and newest.value == 2.0


def test_of_a_call_that_was_tried_again_the_account_of_the_answer_counts(golden: Golden) -> None:
    chat = next(span for span in golden("learned") if span.attributes.get(a.RESPONSE_ID))
    answered = engine(chat, 0.25, **{a.RESPONSE_ID: chat.attributes[a.RESPONSE_ID]})
    refused = engine(chat, 9.0, **{a.RESPONSE_ID: "chatcmpl-refused"})
    refused = refused.model_copy(update={"span_id": "f" * 16, "end_ns": answered.end_ns + 1})
    (turn,) = assemble([chat, refused, answered]).turns
    assert turn.queue_s == 0.25
    (turn,) = assemble([chat, refused]).turns
    assert turn.queue_s == 9.0


def test_a_servers_span_alone_is_no_turn(golden: Golden) -> None:
    assert assemble([engine(golden("learned")[0])]).turns == ()


def test_what_another_program_left_as_values_reads_like_our_text(golden: Golden) -> None:
    chat = golden("learned")[0]
    texts = (a.INPUT_MESSAGES, a.OUTPUT_MESSAGES, a.SYSTEM_INSTRUCTIONS, a.TOKEN_IDS)
    values = {name: json.loads(str(chat.attributes[name])) for name in texts}
    told = chat.model_copy(update={"attributes": {**chat.attributes, **values}})
    assert assemble([told]) == assemble([chat])


def test_messages_that_make_no_sense_are_named(golden: Golden) -> None:
    chat = golden("learned")[0]
    broken = chat.model_copy(update={"attributes": {**chat.attributes, a.INPUT_MESSAGES: "[1]"}})
    with pytest.raises(StoreError, match=f"span {chat.span_id} has an unusable {a.INPUT_MESSAGES}: a message must be"):
        assemble([broken])


def test_no_spans_make_no_trace() -> None:
    with pytest.raises(StoreError, match="a trace needs at least one"):
        assemble([])


def test_an_attribute_that_makes_no_sense_is_named(golden: Golden) -> None:
    broken = golden("learned")[0]
    broken = broken.model_copy(update={"attributes": {**broken.attributes, a.TOKEN_IDS: '["x"]'}})
    with pytest.raises(StoreError, match=f"span {broken.span_id} has an unusable {a.TOKEN_IDS}"):
        assemble([broken])


def test_a_status_that_is_none_of_ours_is_named(golden: Golden) -> None:
    agents = [span for span in golden("learned") if span.attributes[a.OPERATION] == "invoke_agent"]
    broken = agents[0].model_copy(update={"attributes": {**agents[0].attributes, a.STATUS: "splendid"}})
    with pytest.raises(StoreError, match="cannot be assembled: 'status'"):
        assemble([broken])


FINISHED = Trajectory(span_id="2", agent="lookup", parent="1", status="ok", turns=(), started_ns=0, ended_ns=2)
SAMPLED = Turn(
    span_id="3",
    agent="lookup",
    policy="lookup@8",
    served_by="lookup@8",
    adapter_digest="sha256:8",
    messages=(Message(role="user", content="?"),),
    response=Message(role="assistant", content="!"),
    finish_reason="stop",
    prompt_token_ids=(1, 2),
    token_ids=(3, 4),
    logprobs=(-0.5, 0.0),
    started_ns=0,
    ended_ns=1,
)


def test_a_turn_that_keeps_the_contract_may_be_training_data() -> None:
    assert refusal(SAMPLED, FINISHED) is None


def test_a_turn_of_the_base_model_needs_no_adapter_digest() -> None:
    base = SAMPLED.model_copy(update={"policy": "base", "served_by": "base", "adapter_digest": None})
    assert refusal(base, FINISHED) is None


@pytest.mark.parametrize(
    ("lack", "reason"),
    [
        ({"error": "503", "response": None}, "call failed"),
        ({"response": None, "finish_reason": None}, "no response"),
        ({"response": None}, "content not recorded"),
        ({"finish_reason": "length"}, "truncated"),
        ({"agent": ""}, "no agent"),
        ({"served_by": None}, "serving policy unknown"),
        ({"served_by": "base"}, "served by another policy"),
        ({"served_by": "large-1", "token_ids": None, "logprobs": None}, "another model's reply"),
        ({"token_ids": None}, "no token ids"),
        ({"token_ids": (), "logprobs": ()}, "no token ids"),
        ({"prompt_token_ids": None}, "no token ids"),
        ({"logprobs": None}, "no logprobs"),
        ({"logprobs": (-0.5,)}, "token ids and logprobs differ in number"),
        ({"logprobs": (-0.5, float("nan"))}, "a logprob is not finite"),
        ({"adapter_digest": None}, "no adapter digest"),
    ],
)
def test_a_turn_that_lacks_something_is_refused_with_the_reason(lack: dict[str, object], reason: str) -> None:
    assert refusal(SAMPLED.model_copy(update=lack), FINISHED) == reason


def test_a_turn_of_an_agent_that_never_ended_is_refused() -> None:
    assert refusal(SAMPLED, FINISHED.model_copy(update={"status": None})) == "trajectory unfinished"


def test_a_demonstration_is_allowed_as_text(golden: Golden) -> None:
    trace = assemble(golden("taught"))
    assert {refusal(turn, one) for one in trace.trajectories for turn in one.turns} == {None}
    assert all(turn.token_ids is None and turn.demonstration for turn in trace.turns)


@pytest.mark.parametrize(
    ("lack", "reason"),
    [
        ({"finish_reason": "length"}, "truncated"),
        ({"served_by": None}, "serving policy unknown"),
        ({"policy": "big", "served_by": "org/large"}, None),
    ],
)
def test_a_demonstration_must_still_be_whole_but_its_server_may_call_it_otherwise(
    lack: dict[str, object], reason: str | None
) -> None:
    told = {"demonstration": True, "token_ids": None, "logprobs": None, "prompt_token_ids": None}
    assert refusal(SAMPLED.model_copy(update={**told, **lack}), FINISHED) == reason
