"""A replay of a run that was cancelled ends where the record does, as cancelled."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.decision import Point
from journeyman.agents.guards.guardrails import Guardrail
from journeyman.agents.model import ModelReply, ModelRequest, ModelTable
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.flow import control as interventions
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.replay.fork import Fork
from journeyman.runtime.replay.replay import Replay
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.questions import Consent
from journeyman.runtime.store.run_store import RunStore
from journeyman.tools.ask import ask
from journeyman.tools.tool import Tool, tool
from journeyman.traces.assemble import assemble
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import ConfigError
from journeyman.traces.reports.diff import diff
from journeyman.traces.trace import CUT_OFF, Outcome, Task, Trace

TASK = Task(id="t", prompt="Tea and milk")
PLAN = json.dumps({"assignments": [{"worker": "waiter", "goal": "tea"}, {"worker": "waiter", "goal": "milk"}]})


@tool(approve=True)
def order(item: str) -> str:
    """Orders something."""
    return f"{item} is on its way"


@tool
def menu(item: str) -> str:
    """What something costs."""
    return f"{item}: 3 euros"


def cafe(used: Tool, *, approve: bool = False, asks_at: tuple[Point, ...] = ()) -> Crew:
    """A crew whose waiter has one tool; a person is asked about every text with tea at these places."""
    return Crew(
        name="cafe",
        orchestrator=Agent(name="orchestrator", instructions="Plan.", approve=approve),
        workers=(Agent(name="waiter", instructions="Serve.", tools=(used.name,), limits=Limits(turns=2)),),
        tools={used.name: used},
        guardrails=tuple(
            Guardrail(name="tea", check=lambda text, _: "again" if "ea" in text else None, at=(point,), action="ask")
            for point in asks_at
        ),
    )


def serves(crew: Crew) -> Any:
    """A script: milk is there at once, for tea the tool is used."""
    (name,) = crew.tools
    argument = next(iter(crew.tools[name].parameters["properties"]))

    def script(request: ModelRequest) -> str:
        last = request.messages[-1].content
        if "assignments" in (request.json_schema or {}).get("properties", {}):
            return PLAN
        if last == "milk" or last.startswith(f"{name}: "):
            return write_answer(last)
        return write_call(name, {argument: last})

    return script


class Spans:
    """A sink that keeps the spans."""

    def __init__(self) -> None:
        self.kept: list[SpanRecord] = []
        self.served = asyncio.Event()
        """Set when the first waiter is done."""

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        self.kept.append(span)
        if span.name == "invoke_agent waiter":
            self.served.set()


async def again(recorded: Trace, crew: Crew) -> tuple[Outcome, Trace]:
    spans = Spans()
    replay = Replay(recorded, crew)
    runtime = Runtime(replay.crew, model=replay.models, tracer=Tracer(spans), words=replay.words)
    outcome = await runtime.run(replay.task)
    return outcome, assemble(spans.kept)


async def ends_alike(recorded: Trace, crew: Crew) -> None:
    assert recorded.outcome is not None and recorded.outcome.status == "cancelled"
    outcome, repeated = await again(recorded, crew)
    assert (outcome.status, outcome.answer) == ("cancelled", "")
    assert diff(recorded, repeated).first is None
    done = [sum(turn.response is not None for turn in trace.turns) for trace in (recorded, repeated)]
    assert done[0] == done[1]


@pytest.mark.parametrize(
    "crew",
    [
        cafe(menu, approve=True),
        cafe(order),
        cafe(ask().renamed("boss")),
        *(cafe(menu, asks_at=(point,)) for point in ("task", "agent", "call", "result", "output", "answer")),
    ],
)
async def test_one_that_waited_for_a_person(crew: Crew, tmp_path: Path) -> None:
    spans, runs = Spans(), RunStore(tmp_path / "runs.db")
    tracer = Tracer(spans)
    async with Runtime(crew, model=ScriptedModel(serves(crew)), tracer=tracer, runs=runs) as runtime:
        assert (await runtime.run(TASK, run_id="r")).status == "needs_input"
        await interventions.cancel(runs, "r", tracer)
    await ends_alike(assemble(spans.kept), crew)


async def test_one_that_waited_for_a_person_a_second_time(tmp_path: Path) -> None:
    crew = cafe(order, approve=True)
    spans, runs = Spans(), RunStore(tmp_path / "runs.db")
    tracer = Tracer(spans)
    async with Runtime(crew, model=ScriptedModel(serves(crew)), tracer=tracer, runs=runs) as runtime:
        await runtime.run(TASK, run_id="r")
        known = await runs.get("r")
        assert known is not None
        waiting = await runtime.resume("r", {known.pending[0].id: Consent(approved=True)})
        assert waiting.status == "needs_input" and "order" in (waiting.error or "")
        await interventions.cancel(runs, "r", tracer)
    recorded = assemble(spans.kept)
    assert [turn.agent for turn in recorded.turns].count("waiter") == 2
    await ends_alike(recorded, crew)


class Hung:
    """Something that never ends, and says that it began."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.over = asyncio.Event()

    async def __call__(self) -> None:
        self.begun.set()
        await self.over.wait()

    @property
    def tool(self) -> Tool:
        async def brew(item: str) -> str:
            await self()
            return item

        return Tool(brew)


class Stuck(ScriptedModel):
    """Never says anything about tea."""

    def __init__(self, crew: Crew, hung: Hung) -> None:
        super().__init__(serves(crew))
        self._hung = hung

    async def complete(self, request: ModelRequest) -> ModelReply:
        if request.messages[-1].content == "tea":
            await self._hung()
        return await super().complete(request)


async def cut_off(crew: Crew, model: ScriptedModel, hung: Hung, path: Path) -> Trace:
    """A run that somebody cancelled once the milk was there and it hung in the tea."""
    spans, runs = Spans(), RunStore(path)
    async with Runtime(crew, model=model, tracer=Tracer(spans), runs=runs) as runtime:
        running = asyncio.create_task(runtime.run(TASK, run_id="r"))
        await spans.served.wait()
        await hung.begun.wait()
        await interventions.cancel(runs, "r", Tracer())
        assert (await running).status == "cancelled"
    return assemble(spans.kept)


async def test_one_that_was_in_a_model_call(tmp_path: Path) -> None:
    crew, hung = cafe(menu), Hung()
    recorded = await cut_off(crew, Stuck(crew, hung), hung, tmp_path / "runs.db")
    assert [turn.error for turn in recorded.turns].count(CUT_OFF) == 1
    await ends_alike(recorded, crew)


async def test_one_that_was_in_a_tool_call(tmp_path: Path) -> None:
    hung = Hung()
    crew = cafe(hung.tool)
    recorded = await cut_off(crew, ScriptedModel(serves(crew)), hung, tmp_path / "runs.db")
    assert [result.content for turn in recorded.turns for result in turn.tool_results] == [CUT_OFF]
    await ends_alike(recorded, crew)


async def test_one_that_was_stopped_between_two_steps(tmp_path: Path) -> None:
    crew = cafe(menu)
    spans, runs = Spans(), RunStore(tmp_path / "runs.db")
    tracer = Tracer(spans)
    async with Runtime(crew, model=ScriptedModel(serves(crew)), tracer=tracer, runs=runs) as runtime:
        runtime.drain()
        assert (await runtime.run(TASK, run_id="r")).status == "paused"
        await interventions.cancel(runs, "r", tracer)
    await ends_alike(assemble(spans.kept), crew)


async def test_live_a_call_that_was_cut_off_is_made_after_all(tmp_path: Path) -> None:
    crew, hung = cafe(menu), Hung()
    recorded = await cut_off(crew, Stuck(crew, hung), hung, tmp_path / "runs.db")
    late = Fork(span_id="f", agent="waiter", at_ns=recorded.ended_ns)
    replay = Replay(recorded, crew, fork=late, live=ModelTable(ScriptedModel(serves(crew))))
    outcome = await Runtime(replay.crew, model=replay.models, words=replay.words).run(replay.task)
    assert (outcome.status, outcome.answer) == ("ok", "menu: tea: 3 euros; milk")


async def test_where_the_crew_has_changed_that_is_what_is_told(tmp_path: Path) -> None:
    crew, hung = cafe(menu), Hung()
    recorded = await cut_off(crew, Stuck(crew, hung), hung, tmp_path / "runs.db")
    other = crew.model_copy(update={"orchestrator": Agent(name="orchestrator", instructions="Plan well.")})
    outcome, repeated = await again(recorded, other)
    assert outcome.status == "failed"
    assert "the replay left the record" in (outcome.error or "")
    assert diff(recorded, repeated).first is not None


async def test_a_run_that_an_app_gave_up_has_no_end_to_go_to() -> None:
    hung, spans = Hung(), Spans()
    crew = cafe(hung.tool)
    running = asyncio.create_task(Runtime(crew, model=ScriptedModel(serves(crew)), tracer=Tracer(spans)).run(TASK))
    await hung.begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(ConfigError, match="is unfinished: its run did not end"):
        Replay(assemble(spans.kept), crew)


async def test_a_tool_call_that_was_cut_off_and_made_again_is_replayed_as_one(tmp_path: Path) -> None:
    hung, spans = Hung(), Spans()
    crew, runs = cafe(hung.tool), RunStore(tmp_path / "runs.db")
    async with Runtime(crew, model=ScriptedModel(serves(crew)), tracer=Tracer(spans), runs=runs) as runtime:
        running = asyncio.create_task(runtime.run(TASK, run_id="r"))
        await hung.begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        hung.over.set()
        done = await runtime.run(TASK, run_id="r")
    recorded = assemble(spans.kept)
    outcome, repeated = await again(recorded, crew)
    assert (outcome.status, outcome.answer) == ("ok", done.answer)
    assert diff(recorded, repeated).first is None
