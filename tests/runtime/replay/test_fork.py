"""A fork asks one recorded call anew: what stands before it stays, what follows is live or only where it differs."""

import json
from collections.abc import Callable

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelRequest, ModelTable
from journeyman.agents.worker import write_answer
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.replay.fork import Fork, Replacement, changed, find_fork
from journeyman.runtime.replay.replay import Replay
from journeyman.runtime.runtime import Runtime
from journeyman.traces import attributes as a
from journeyman.traces.assemble import assemble
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Outcome, Task, Trace, Turn

TASK = Task(id="t", prompt="Add 1 and 2.")
PLAN = {
    "assignments": [
        {"worker": "reader", "goal": "one"},
        {"worker": "reader", "goal": "two"},
        {"worker": "adder", "goal": "{1} + {2}", "needs": [1, 2]},
    ]
}
CREW = Crew(
    name="sums",
    orchestrator=Agent(name="planner", instructions="Plan.", replans=0),
    workers=(
        Agent(name="reader", instructions="Read.", limits=Limits(turns=1)),
        Agent(name="adder", instructions="Add.", limits=Limits(turns=1)),
    ),
)
NUMBERS = {"one": "1", "two": "2"}


def says(request: ModelRequest) -> str:
    last = request.messages[-1].content
    if request.messages[0].content == "Plan.":
        return json.dumps(PLAN)
    if last in NUMBERS:
        return write_answer(NUMBERS[last])
    return write_answer(str(sum(map(int, last.split(" + ")))))


class Spans:
    def __init__(self) -> None:
        self.kept: list[SpanRecord] = []

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        self.kept.append(span)


async def record(script: Callable[[ModelRequest], str] = says, crew: Crew = CREW) -> Trace:
    spans = Spans()
    await Runtime(crew, model=ScriptedModel(script), tracer=Tracer(spans)).run(TASK)
    return assemble(spans.kept)


async def fork(
    trace: Trace, turn: Turn, replacement: Replacement, model: ScriptedModel
) -> tuple[Outcome, list[SpanRecord]]:
    spans = Spans()
    replay = Replay(trace, CREW, fork=find_fork(trace, turn.span_id), live=ModelTable(model), replacement=replacement)
    runtime = Runtime(
        replay.crew,
        model=replay.models,
        tracer=Tracer(spans),
        policies=replay.policies,
        memory=replay.memory,
        words=replay.words,
        revise=replay.revise,
    )
    outcome = await runtime.run(replay.task)
    assert replay.forked
    return outcome, spans.kept


def turn_about(trace: Trace, text: str) -> Turn:
    return next(turn for turn in trace.turns if turn.messages[-1].content == text)


async def test_only_what_is_asked_otherwise_than_it_was_is_asked_again() -> None:
    recorded = await record()
    seven = ScriptedModel(lambda request: says(request) if "+" in request.messages[-1].content else write_answer("7"))
    outcome, _ = await fork(recorded, turn_about(recorded, "one"), Replacement(rest="recorded"), seven)
    assert outcome.answer == "9"
    assert [request.messages[-1].content for request in seven.requests] == ["one", "7 + 2"]


async def test_a_replacement_that_says_the_same_costs_one_call_and_changes_nothing() -> None:
    recorded = await record()
    model = ScriptedModel(says)
    outcome, _ = await fork(recorded, turn_about(recorded, "one"), Replacement(rest="recorded"), model)
    assert recorded.outcome is not None
    assert outcome.answer == recorded.outcome.answer == "3"
    assert len(model.requests) == 1


async def test_a_live_rest_is_asked_of_the_model_as_it_is_now() -> None:
    recorded = await record()
    plan = recorded.turns[0]
    model = ScriptedModel(says)
    outcome, _ = await fork(recorded, plan, Replacement(rest="live"), model)
    assert outcome.answer == "3"
    assert len(model.requests) == 4
    last = ScriptedModel(lambda request: write_answer("8"))
    outcome, _ = await fork(recorded, turn_about(recorded, "1 + 2"), Replacement(rest="live"), last)
    assert (outcome.answer, len(last.requests)) == ("8", 1)


async def test_the_record_says_who_was_asked_and_how_at_the_fork_alone() -> None:
    recorded = await record()
    sampled = Replacement(policy="teacher", temperature=1.0, seed=7)
    _, spans = await fork(recorded, turn_about(recorded, "one"), sampled, ScriptedModel(says))
    asked = [
        tuple(span.attributes[name] for name in (a.REQUEST_MODEL, a.REQUEST_TEMPERATURE, a.REQUEST_SEED))
        for span in spans
        if span.attributes.get(a.OPERATION) == "chat"
    ]
    assert sorted(asked) == [("base", 0.0, 0)] * 3 + [("teacher", 1.0, 7)]
    assert [span.name for span in spans if span.name.endswith("teacher")] == ["chat teacher"]


async def test_of_calls_that_are_alike_the_one_that_was_named_is_replaced() -> None:
    twice = {"assignments": [{"worker": "reader", "goal": "one"}, {"worker": "reader", "goal": "one"}]}
    recorded = await record(
        lambda request: json.dumps(twice) if request.messages[0].content == "Plan." else says(request)
    )
    first, second = (turn for turn in recorded.turns if turn.agent == "reader")
    for named, position in ((first, 0), (second, 1)):
        seven = ScriptedModel(lambda request: write_answer("7"))
        _, spans = await fork(recorded, named, Replacement(policy="other", rest="recorded"), seven)
        again = [turn.policy for turn in assemble(spans).turns if turn.agent == "reader"]
        assert [policy == "other" for policy in again] == [position == 0, position == 1]
        assert len(seven.requests) == 1


@pytest.mark.parametrize(
    ("worker", "reason"),
    [
        (Agent(name="reader", instructions="Read well."), "reader is shown another prompt now"),
        (Agent(name="scanner", instructions="Read."), "the crew has no agent reader now"),
    ],
)
async def test_a_run_of_a_crew_that_has_changed_cannot_be_forked(worker: Agent, reason: str) -> None:
    recorded = await record()
    other = CREW.model_copy(update={"workers": (worker, CREW.workers[1])})
    assert changed(recorded, CREW) is None
    assert changed(recorded, other) == reason
    named = find_fork(recorded, recorded.turns[0].span_id)
    with pytest.raises(ConfigError, match=f"can't be forked: {reason}; name the crew"):
        Replay(recorded, other, fork=named, live=ModelTable(ScriptedModel(says)), replacement=Replacement())


async def test_only_a_model_call_can_be_replaced() -> None:
    recorded = await record()
    agent = Fork(span_id=recorded.trajectories[0].span_id, agent="planner", at_ns=0)
    with pytest.raises(ConfigError, match="can be replaced: name one as the fork"):
        Replay(recorded, CREW, fork=agent, live=ModelTable(ScriptedModel(says)), replacement=Replacement())
