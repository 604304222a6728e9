"""Pairs out of runs as the runtime records them: complaints, forks, a judged crew."""

import json
from collections.abc import Callable, Sequence

import pytest

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.model import ModelReply, ModelRequest, ModelTable
from journeyman.agents.worker import write_answer
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.replay.fork import find_fork
from journeyman.runtime.replay.replay import Replay, ReplaySink
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.workspace import Workspace
from journeyman.traces.capture.log import SpanLog
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.labels import Label
from journeyman.traces.trace import Task, Trace
from journeyman.training.data.mine import KINDS
from journeyman.training.data.samples import PreferenceSample
from journeyman.training.data.source import MineConfig, Source

TASK = Task(id="t", prompt="How many moons has Mars?")
WORKER = Agent(name="worker", instructions="Answer.", verify=("integer",))
ALONE = Crew(name="moons", orchestrator=None, workers=(WORKER,), tools={})
PLAN = json.dumps({"assignments": [{"worker": "worker", "goal": TASK.prompt}]})


class Sampled(ScriptedModel):
    """Whose tokens are the letters, as its server would count them."""

    async def complete(self, request: ModelRequest) -> ModelReply:
        reply = await super().complete(request)
        prompt = tuple(ord(letter) for message in request.messages for letter in message.content)
        ids = tuple(map(ord, reply.content))
        return reply.model_copy(
            update={"prompt_token_ids": prompt, "token_ids": ids, "logprobs": tuple(-0.5 for _ in ids)}
        )


class Record:
    def __init__(self, workspace: Workspace) -> None:
        self.store = workspace.store
        self._spans = workspace.spans

    async def run(self, replies: Sequence[str] | Callable[[ModelRequest], str], crew: Crew = ALONE) -> Trace:
        log = SpanLog(self._spans)
        table = PolicyTable(agents={agent.name: "any@1" for agent in crew.agents}, digests={"any@1": "d"})
        runtime = Runtime(crew, model=Sampled(replies), tracer=Tracer(log), policies=table)
        outcome = await runtime.run(TASK)
        log.close()
        return self.store.get(outcome.trace_id)

    async def fork(self, trace: Trace, span_id: str, replies: Sequence[str]) -> Trace:
        log = SpanLog(self._spans)
        live = ModelTable(Sampled(replies))
        replay = Replay(trace, ALONE, fork=find_fork(trace, span_id), live=live)
        runtime = Runtime(
            replay.crew,
            model=replay.models,
            policies=replay.policies,
            memory=replay.memory,
            words=replay.words,
            tracer=Tracer(ReplaySink(log, trace.trace_id)),
        )
        outcome = await runtime.run(replay.task, origin=replay.origin)
        log.close()
        return self.store.get(outcome.trace_id)

    def score(self, trace: Trace, value: float) -> None:
        self.store.label(Label(trace_id=trace.trace_id, name="score", source="test", value=value))

    def pairs(self, agent: str = "worker") -> list[PreferenceSample]:
        mining = KINDS["preference"](Source(self.store, agent, MineConfig()))
        return [PreferenceSample.model_validate_json(line) for line in mining]


@pytest.fixture
def record(workspace: Workspace) -> Record:
    return Record(workspace)


def ids(pair: PreferenceSample) -> tuple[int, ...]:
    return tuple(ord(letter) for message in pair.messages for letter in message.content)


async def test_what_cannot_be_read_and_what_a_verifier_refuses_stand_against_what_is_accepted(record: Record) -> None:
    await record.run(["two", write_answer("two"), write_answer("2")])
    unreadable, unverified = record.pairs()
    assert {unreadable.origin, unverified.origin} == {"complaint"}
    assert (unreadable.rejected.completion, unverified.rejected.completion) == ("two", write_answer("two"))
    assert {pair.chosen.completion for pair in (unreadable, unverified)} == {write_answer("2")}
    assert [message.content for message in unreadable.messages] == ["Answer.", TASK.prompt]
    assert unverified.messages[-1].content.startswith(f"{TASK.prompt}\n\nYour last reply was not usable")
    assert [pair.prompt_token_ids for pair in (unreadable, unverified)] == [ids(unreadable), ids(unverified)]


async def test_a_plan_that_was_refused_stands_against_the_next_one(record: Record) -> None:
    crew = ALONE.model_copy(update={"orchestrator": Agent(name="boss", instructions="Plan.", replans=0)})
    await record.run(["no plan", PLAN, write_answer("2")], crew)
    (pair,) = record.pairs("boss")
    assert (pair.origin, pair.chosen.completion, pair.rejected.completion) == ("complaint", PLAN, "no plan")


async def test_a_replay_that_left_its_original_stands_beside_it(record: Record) -> None:
    original = await record.run([write_answer("9")])
    (turn,) = original.turns
    fork = await record.fork(original, turn.span_id, [write_answer("2")])
    record.score(original, 0.0)
    record.score(fork, 1.0)
    (pair,) = record.pairs()
    assert (pair.origin, pair.margin, pair.chosen.trace_id) == ("fork", 1.0, fork.trace_id)
    assert (pair.rejected.span_ids, pair.prompt_token_ids) == ((turn.span_id,), ids(pair))


async def test_runs_that_the_crews_judge_told_apart(record: Record) -> None:
    boss = Agent(name="boss", instructions="Plan.", replans=0, judge=True)
    crew = ALONE.model_copy(update={"orchestrator": boss})
    for answer, sufficient in (("9", False), ("2", True)):
        verdict = json.dumps({"reason": "it is so", "sufficient": sufficient})
        await record.run([PLAN, write_answer(answer), verdict], crew)
    (pair,) = record.pairs()
    assert (pair.origin, pair.margin) == ("judge", 1.0)
    assert (pair.chosen.completion, pair.rejected.completion) == (write_answer("2"), write_answer("9"))
