"""A replay asks nobody: what a person said then is part of the record, and what needs a person now is not done."""

import asyncio
from contextlib import suppress
from pathlib import Path

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelReply, ModelRequest, ModelTable
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.questions import Consent
from journeyman.runtime.replay import Replay, find_fork
from journeyman.runtime.runstore import RunStore
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.scripted import ScriptedModel
from journeyman.tools.ask import ask
from journeyman.tools.tool import tool
from journeyman.traces.assemble import assemble
from journeyman.traces.log import SpanRecord
from journeyman.traces.reports.diff import diff
from journeyman.traces.trace import CUT_OFF, Outcome, Task, Trace
from journeyman.traces.tracer import Tracer

called: list[str] = []


@tool(approve=True)
def order(item: str) -> str:
    """Orders something."""
    called.append(item)
    return f"{item} is on its way"


@tool
def sold_out(item: str) -> str:
    """Orders something in vain."""
    return f"no {item}"


WAITER = Agent(name="waiter", instructions="Serve.", tools=("boss", "order"), limits=Limits(turns=4))
CAFE = Crew(name="cafe", orchestrator=None, workers=(WAITER,), tools={"boss": ask().renamed("boss"), "order": order})


def serves(request: ModelRequest) -> str:
    last = request.messages[-1].content
    if last.startswith("boss: "):
        return write_call("order", {"item": last.removeprefix("boss: ")})
    return write_answer(last) if last.startswith("order: ") else write_call("boss", {"question": "Which?"})


class Spans:
    """A sink that keeps the spans."""

    def __init__(self) -> None:
        self.kept: list[SpanRecord] = []

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        self.kept.append(span)


async def run(replay: Replay) -> tuple[Outcome, Trace]:
    spans = Spans()
    outcome = await Runtime(replay.crew, model=replay.models, tracer=Tracer(spans)).run(replay.task)
    return outcome, assemble(spans.kept)


async def asked(tmp_path: Path) -> Trace:
    """A run in which a person answered a question and approved a call."""
    spans = Spans()
    runs = RunStore(tmp_path / "runs.db")
    async with Runtime(CAFE, model=ScriptedModel(serves), tracer=Tracer(spans), runs=runs) as runtime:
        outcome = await runtime.run(Task(id="t", prompt="A drink"))
        for said in ("tea", Consent(approved=True)):
            known = await runs.get(outcome.run_id)
            assert known is not None
            outcome = await runtime.resume(outcome.run_id, {known.pending[0].id: said})
    assert outcome.answer == "order: tea is on its way"
    called.clear()
    return assemble(spans.kept)


async def test_what_a_person_said_is_part_of_the_record(tmp_path: Path) -> None:
    recorded = await asked(tmp_path)
    outcome, again = await run(Replay(recorded, CAFE))
    assert outcome.answer == "order: tea is on its way"
    assert called == []
    assert len(recorded.trajectories) == 3
    assert diff(recorded, again).first is None


async def test_a_live_call_that_needs_a_person_is_not_made(tmp_path: Path) -> None:
    recorded = await asked(tmp_path)
    (first, *_) = recorded.turns
    fork = find_fork(recorded, first.span_id)
    _, again = await run(Replay(recorded, CAFE, fork=fork, live=ModelTable(ScriptedModel(serves))))
    statuses = {result.tool: result.status for turn in again.turns for result in turn.tool_results}
    assert statuses == {"boss": "denied", "order": "denied"}
    model = ScriptedModel([write_call("order", {"item": "tea"}), write_answer("done")])
    _, again = await run(Replay(recorded, CAFE, fork=fork, live=ModelTable(model)))
    assert [result.status for turn in again.turns for result in turn.tool_results] == ["denied"]
    assert called == []


class Stuck(ScriptedModel):
    """Never answers its second request."""

    def __init__(self) -> None:
        super().__init__([write_call("order", {"item": "tea"})])
        self.asked = asyncio.Event()

    async def complete(self, request: ModelRequest) -> ModelReply:
        if self.requests:
            self.asked.set()
            await asyncio.Event().wait()
        return await super().complete(request)


async def test_a_run_that_was_cut_off_and_went_on_is_replayed_as_one(tmp_path: Path) -> None:
    cafe = CAFE.model_copy(update={"tools": {**CAFE.tools, "order": sold_out.renamed("order")}})
    spans = Spans()
    runs = RunStore(tmp_path / "runs.db")
    stuck = Stuck()
    async with Runtime(cafe, model=stuck, tracer=Tracer(spans), runs=runs) as runtime:
        running = asyncio.create_task(runtime.run(Task(id="t", prompt="A drink"), run_id="r"))
        await stuck.asked.wait()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    async with Runtime(cafe, model=ScriptedModel([write_answer("none")]), tracer=Tracer(spans), runs=runs) as runtime:
        outcome = await runtime.run(Task(id="t", prompt="A drink"), run_id="r")
    recorded = assemble(spans.kept)
    assert (outcome.answer, [turn.error for turn in recorded.turns]) == ("none", [None, CUT_OFF, None])
    outcome, again = await run(Replay(recorded, cafe))
    assert outcome.answer == "none"
    assert diff(recorded, again).first is None
