"""A replay does what the record says and nothing else; a fork leaves the record where it is told to."""

import asyncio
import json
from collections.abc import Mapping, Sequence

import pytest

from journeyman.agents.agent import Agent, Crew, Example, Limits, MemoryConfig
from journeyman.agents.budget import Budget
from journeyman.agents.guards.permissions import Permission, Permissions
from journeyman.agents.model import BASE, ModelRequest, ModelTable
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.replay.fork import find_fork
from journeyman.runtime.replay.replay import Replay, ReplaySink
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.memory import Memory
from journeyman.tools.tool import Tool, tool
from journeyman.traces import attributes as a
from journeyman.traces.assemble import assemble, refusal
from journeyman.traces.capture.content import ContentPolicy
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.capture.tracer import Sink, Tracer
from journeyman.traces.errors import ConfigError, ModelError, ToolError
from journeyman.traces.messages import Message
from journeyman.traces.reports.diff import diff
from journeyman.traces.trace import Outcome, Task, Trace

PLAN = json.dumps(
    {
        "assignments": [
            {"worker": "lookup", "goal": "Which films?"},
            {"worker": "lookup", "goal": "Who directed {1}?", "each": 1},
        ]
    }
)
called: list[str] = []


@tool
def facts(query: str) -> str:
    """Looks facts up."""
    called.append(query)
    if query == "Jaws":
        raise ToolError("nobody knows")
    return "Alien, Jaws" if query == "films" else f"the director of {query}"


LOOKUP = Agent(
    name="lookup",
    instructions="Look up.",
    tools=("facts",),
    output="values",
    examples=(Example(user="Which moons?", assistant=write_call("facts", {"query": "moons"})),),
    limits=Limits(turns=3, seconds=5),
)
CREW = Crew(
    name="films",
    orchestrator=Agent(name="orchestrator", instructions="Plan.", replans=0),
    workers=(LOOKUP,),
    tools={"facts": facts},
)
TASK = Task(id="q1", prompt="Who directed each film?")


def answers(request: ModelRequest) -> str:
    last = request.messages[-1].content
    if request.messages[0].content == "Plan.":
        return PLAN
    if "nobody knows" in last:
        return write_answer(["nobody"])
    if last.startswith("facts: "):
        return write_answer(last.removeprefix("facts: ").split(", "))
    if last == "Which films?":
        return write_call("facts", {"query": "films"})
    return write_call("facts", {"query": last.removeprefix("Who directed ").removesuffix("?")})


class Spans:
    """A sink that keeps the spans."""

    def __init__(self) -> None:
        self.kept: list[SpanRecord] = []

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        self.kept.append(span)


@pytest.fixture(autouse=True)
def nothing_called() -> None:
    called.clear()


async def record(
    crew: Crew = CREW,
    model: ScriptedModel | None = None,
    task: Task = TASK,
    content: ContentPolicy | None = None,
    policies: Mapping[str, str] | None = None,
    memory: Memory | None = None,
) -> Trace:
    spans = Spans()
    tracer = Tracer(spans, content=content)
    runtime = Runtime(crew, model=model or ScriptedModel(answers), tracer=tracer, policies=policies, memory=memory)
    await runtime.run(task)
    called.clear()
    return assemble(spans.kept)


async def run(replay: Replay, sink: Sink | None = None) -> tuple[Outcome, Trace]:
    spans = Spans()
    sinks = (spans,) if sink is None else (sink, spans)
    runtime = Runtime(
        replay.crew,
        model=replay.models,
        tracer=Tracer(*sinks),
        policies=replay.policies,
        memory=replay.memory,
        words=replay.words,
    )
    outcome = await runtime.run(replay.task)
    return outcome, assemble(spans.kept)


async def test_a_replay_does_the_same_steps_and_calls_nothing() -> None:
    recorded = await record()
    outcome, again = await run(Replay(recorded, CREW))
    assert recorded.outcome is not None
    assert (outcome.status, outcome.answer) == (recorded.outcome.status, recorded.outcome.answer)
    assert outcome.answer == "Alien: the director of Alien; Jaws: nobody"
    assert (outcome.model_calls, outcome.tool_calls, outcome.usage) == (7, 3, recorded.outcome.usage)
    assert diff(recorded, again).first is None
    assert called == []


async def test_nobody_learns_from_a_replay() -> None:
    _, again = await run(Replay(await record(), CREW))
    reasons = {refusal(turn, one) for one in again.trajectories for turn in one.turns}
    assert reasons == {"no token ids"}


async def test_failed_calls_fail_again_and_bad_replies_are_bad_again() -> None:
    scripts: Sequence[str | Exception] = [
        "no plan at all",
        PLAN.replace(', {"worker": "lookup", "goal": "Who directed {1}?", "each": 1}', ""),
        write_call("facts", {"wrong": 1}),
        write_call("fax", {}),
        ModelError("the server is gone", kind="server_error"),
    ]
    recorded = await record(model=ScriptedModel(scripts))
    assert recorded.outcome is not None
    assert recorded.outcome.error is not None
    assert "the server is gone" in recorded.outcome.error
    outcome, again = await run(Replay(recorded, CREW))
    assert (outcome.status, outcome.error) == (recorded.outcome.status, recorded.outcome.error)
    assert diff(recorded, again).first is None


async def test_an_agent_that_ran_out_of_time_does_so_again_at_once() -> None:
    slow = LOOKUP.model_copy(update={"limits": Limits(turns=3, seconds=0.2)})
    crew = CREW.model_copy(update={"orchestrator": None, "workers": (slow,)})
    recorded = await record(crew, ScriptedModel(answers, latency_s=5.0))
    outcome, again = await run(Replay(recorded, crew))
    assert outcome.status == "timeout"
    assert diff(recorded, again).first is None


async def test_an_agent_whose_time_was_over_in_a_tool_does_so_again_at_once() -> None:
    async def facts(query: str) -> str:
        await asyncio.sleep(60)
        return query

    slow = LOOKUP.model_copy(update={"limits": Limits(turns=3, seconds=0.2)})
    crew = CREW.model_copy(update={"orchestrator": None, "workers": (slow,), "tools": {"facts": Tool(facts)}})
    recorded = await record(crew)
    outcome, again = await run(Replay(recorded, crew))
    assert recorded.outcome is not None
    assert (outcome.status, outcome.error) == ("timeout", recorded.outcome.error)
    assert diff(recorded, again).first is None


async def test_where_the_crew_has_changed_the_replay_says_where_it_left_the_record() -> None:
    recorded = await record()
    other = LOOKUP.model_copy(update={"instructions": "Look it up well."})
    outcome, _ = await run(Replay(recorded, CREW.model_copy(update={"workers": (other,)})))
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert "the replay left the record" in outcome.error
    assert "there message 1 is 'Look up. Tools:" in outcome.error
    assert "here 'Look it up well. Tools:" in outcome.error


async def test_calls_that_are_alike_are_answered_in_their_order() -> None:
    crew = CREW.model_copy(update={"orchestrator": None})
    twice = ["nonsense", "nonsense", write_answer(["done"])]
    recorded = await record(crew, ScriptedModel(twice))
    outcome, again = await run(Replay(recorded, crew))
    assert outcome.answer == "done"
    assert diff(recorded, again).first is None


async def test_a_record_with_texts_taken_out_is_replayed_as_it_is_and_one_without_texts_is_refused() -> None:
    crew = CREW.model_copy(update={"orchestrator": None})
    mail = TASK.model_copy(update={"prompt": "Who is ann@example.com?"})
    redacted = await record(crew, task=mail, content=ContentPolicy("full", ("email",)))
    assert "ann@example.com" not in redacted.model_dump_json()
    _, again = await run(Replay(redacted, crew))
    assert diff(redacted, again).first is None
    with pytest.raises(ConfigError):
        Replay(await record(content=ContentPolicy("digest", ())), CREW)


async def test_every_span_of_a_replay_names_the_trace_that_it_repeats() -> None:
    recorded = await record()
    marked = Spans()
    await run(Replay(recorded, CREW), ReplaySink(marked, recorded.trace_id))
    assert {span.attributes[a.REPLAY_OF] for span in marked.kept} == {recorded.trace_id}
    assert {span.trace_id for span in marked.kept} != {recorded.trace_id}


def live(model: ScriptedModel) -> ModelTable:
    return ModelTable(model)


def answered_live(request: ModelRequest) -> str:
    return write_answer(["live"]) if request.messages[-1].content.startswith("facts: ") else answers(request)


async def test_from_a_fork_on_the_model_and_the_tools_are_live() -> None:
    recorded = await record()
    alien = next(one for one in recorded.trajectories if one.goal == "Who directed Alien?")
    fork = find_fork(recorded, alien.turns[0].tool_results[0].span_id)
    model = ScriptedModel(answered_live)
    outcome, again = await run(Replay(recorded, CREW, fork=fork, live=live(model)))
    assert outcome.answer.startswith("Alien: live")
    assert "Alien" in called
    assert "films" not in called
    parted = diff(recorded, again).first
    assert parted is not None
    assert parted.kind == "turn"
    assert all("Which films?" not in request.messages[-1].content for request in model.requests)


async def test_after_a_fork_another_policy_answers_though_it_is_shown_no_examples() -> None:
    recorded = await record()
    alien = next(one for one in recorded.trajectories if one.goal == "Who directed Alien?")
    fork = find_fork(recorded, alien.turns[1].span_id[:12])
    assert (fork.agent, fork.span_id) == ("lookup", alien.turns[1].span_id)
    model = ScriptedModel(answered_live)
    outcome, _ = await run(Replay(recorded, CREW, fork=fork, live=live(model), policies={"lookup": "lookup@9"}))
    assert outcome.answer.startswith("Alien: live")
    assert {request.policy for request in model.requests} == {"lookup@9"}
    assert all("moons" not in request.messages[1].content for request in model.requests)


async def test_without_a_named_policy_those_answer_who_answered_then() -> None:
    recorded = await record(policies={"lookup": "lookup@3"})
    fork = find_fork(recorded, recorded.trajectories[0].span_id)
    model = ScriptedModel(answers)
    await run(Replay(recorded, CREW, fork=fork, live=live(model)))
    assert {request.policy for request in model.requests} == {BASE, "lookup@3"}


async def test_what_nobody_was_asked_then_goes_no_further_now() -> None:
    boss = Agent(name="orchestrator", instructions="Plan.", replans=0, approve=True)
    outcome, _ = await run(Replay(await record(), CREW.model_copy(update={"orchestrator": boss})))
    assert outcome.status == "blocked" and outcome.error is not None
    assert outcome.error.startswith("the plan was not followed: a person would have to be asked")


async def test_a_permission_that_denies_holds_in_a_fork_too() -> None:
    row = Permission(tool="facts", arguments={"query": "Alien"}, decision="deny", reason="not that one")
    crew = CREW.model_copy(update={"permissions": Permissions(rows=(row,))})
    recorded = await record(crew)
    fork = find_fork(recorded, recorded.turns[0].span_id)
    await run(Replay(recorded, crew, fork=fork, live=live(ScriptedModel(answers))))
    assert sorted(called) == ["Jaws", "films"]


async def test_the_session_is_what_it_was_then() -> None:
    crew = CREW.model_copy(update={"orchestrator": None, "memory": MemoryConfig(turns=4)})
    memory = Memory(config=crew.memory)
    first, second = (Task(id=name, prompt="Which films?", session="s") for name in ("a", "b"))
    await record(crew, task=first, memory=memory)
    recorded = await record(crew, task=second, memory=memory)
    assert len(recorded.turns[0].messages) > len((await record(crew, task=first)).turns[0].messages)
    outcome, again = await run(Replay(recorded, crew))
    assert diff(recorded, again).first is None
    assert outcome.answer == "Alien, Jaws"
    assert len(await memory.find()) == 2


@pytest.mark.parametrize("prefix", ["ffffffffffffffff", ""])
async def test_a_fork_names_one_step(prefix: str) -> None:
    recorded = await record()
    with pytest.raises(ConfigError, match="journeyman traces show"):
        find_fork(recorded, prefix)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"task": None}, "resume it instead"), ({"crew": "other"}, "is of crew 'other' and not of 'films'")],
)
async def test_what_cannot_be_run_again_is_refused(changes: Mapping[str, object], reason: str) -> None:
    recorded = await record()
    with pytest.raises(ConfigError, match=reason):
        Replay(recorded.model_copy(update=changes), CREW)


async def test_an_unknown_agent_is_refused() -> None:
    recorded = await record()
    fork = find_fork(recorded, recorded.turns[0].span_id)
    with pytest.raises(ConfigError, match="no agent 'lookupp'; it has: orchestrator, lookup"):
        Replay(recorded, CREW, fork=fork, live=live(ScriptedModel(answers)), policies={"lookupp": "base"})


async def test_a_budget_ends_a_replay_where_it_ended_the_run() -> None:
    crew = CREW.model_copy(update={"budget": Budget(model_calls=4)})
    recorded = await record(crew)
    assert recorded.outcome is not None
    outcome, _ = await run(Replay(recorded, crew))
    assert outcome.status == recorded.outcome.status == "over_budget"


async def test_a_call_that_failed_and_was_made_again_by_a_replacement_fails_again() -> None:
    more = json.dumps({"assignments": [{"worker": "lookup", "goal": "Which films?", "replaces": "1"}]})
    first = json.dumps({"assignments": [{"worker": "lookup", "goal": "Which films?"}]})
    one = CREW.model_copy(update={"orchestrator": Agent(name="orchestrator", instructions="Plan.", replans=1)})
    script: list[str | Message | Exception] = [first, ModelError("gone"), more, write_answer(["Alien"])]
    recorded = await record(one, ScriptedModel(script))
    assert [turn.error for turn in recorded.turns if turn.agent == "lookup"] == ["gone", None]
    outcome, again = await run(Replay(recorded, one))
    assert outcome.answer == "Alien"
    assert diff(recorded, again).first is None


async def test_who_stood_in_for_a_policy_stands_in_again() -> None:
    single = Crew(name="one", orchestrator=None, workers=(LOOKUP,), tools={"facts": facts})
    table = PolicyTable(fallbacks={"lookup": ("big",)})
    spans = Spans()
    models = ModelTable(ScriptedModel([ModelError("no")]), {"big": ScriptedModel([write_answer(["Alien"])])})
    await Runtime(single, model=models, tracer=Tracer(spans), policies=table).run(TASK)
    recorded = assemble(spans.kept)
    outcome, again = await run(Replay(recorded, single))
    assert outcome.answer == "Alien"
    assert [turn.policy for turn in again.turns] == [BASE, "big"]
    assert diff(recorded, again).first is None
