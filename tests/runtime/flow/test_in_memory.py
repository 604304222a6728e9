"""Runs that nobody keeps take their steps without LangGraph, and end as they would with it."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest
from langchain_core.runnables import RunnableLambda

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.worker import write_answer
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.run.endings import CancelledRunError
from journeyman.runtime.runtime import Runtime
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import StoreError
from journeyman.traces.trace import Outcome

CREW = Crew(
    name="pair",
    orchestrator=Agent(name="boss", instructions="Plan.", replans=0),
    workers=(Agent(name="quick", instructions="Be quick."), Agent(name="slow", instructions="Take your time.")),
)
PLAN = json.dumps({"assignments": [{"worker": "quick", "goal": "Stop."}, {"worker": "slow", "goal": "Go on."}]})


class Stopping:
    """A model whose answer to the quick worker stops the run, while the slow one is still at work."""

    provider = "test"
    demonstrates = False

    def __init__(self, stop: Exception) -> None:
        self._stop = stop
        self._says = ScriptedModel([PLAN, write_answer("done")])
        self.slow_ended = False

    async def complete(self, request: ModelRequest) -> ModelReply:
        if request.messages[-1].content == "Stop.":
            raise self._stop
        if request.messages[-1].content == "Go on.":
            await asyncio.sleep(0.05)
            self.slow_ended = True
        return await self._says.complete(request)

    async def aclose(self) -> None: ...


class Spans(list[SpanRecord]):
    def append(self, span: SpanRecord, *, sync: bool = False) -> None:
        super().append(span)


async def in_memory(runtime: Runtime) -> Outcome:
    return await runtime.run("Do both.")


async def through_langgraph(runtime: Runtime) -> Outcome:
    return await RunnableLambda(runtime.run).ainvoke("Do both.")


either_way = pytest.mark.parametrize("run", [in_memory, through_langgraph])
Way = Callable[[Runtime], Awaitable[Outcome]]


@either_way
async def test_work_beside_what_stops_a_run_comes_to_its_own_end(run: Way) -> None:
    model = Stopping(CancelledRunError())
    spans = Spans()
    outcome = await run(Runtime(CREW, model=model, tracer=Tracer(spans)))
    assert (outcome.status, outcome.answer, model.slow_ended) == ("cancelled", "", True)
    assert {span.name: span.status for span in spans}["invoke_agent slow"] == "ok"


@either_way
async def test_work_beside_what_cannot_be_recorded_is_ended(run: Way) -> None:
    model = Stopping(StoreError("the disk is full"))
    with pytest.raises(StoreError, match="the disk is full"):
        await run(Runtime(CREW, model=model))
    await asyncio.sleep(0.1)
    assert not model.slow_ended


def test_langgraph_is_not_even_imported() -> None:
    code = (
        "import sys; from journeyman.runtime import Agent, Crew, Runtime, ScriptedModel\n"
        "crew = Crew(name='one', orchestrator=None, workers=(Agent(name='a', instructions='Answer.'),))\n"
        "outcome = Runtime(crew, model=ScriptedModel(['{\"answer\": \"yes\"}'])).run_sync('Is it so?')\n"
        "print(outcome.answer, [name for name in sys.modules if name.startswith(('langgraph', 'langchain'))])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "yes []"
