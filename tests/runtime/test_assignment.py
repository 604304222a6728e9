"""One worker on one assignment: what cancels it from within ends it alone."""

import asyncio
import json

import pytest

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.worker import write_answer
from journeyman.runtime.events import ReportFiled
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.scripted import ScriptedModel

PLAN = json.dumps({"assignments": [{"worker": "worker", "goal": goal} for goal in ("first", "second", "third")]})
CREW = Crew(
    name="crew",
    orchestrator=Agent(name="orchestrator", instructions="Plan.", replans=0),
    workers=(Agent(name="worker", instructions="Work."),),
)


class Cancelling(ScriptedModel):
    """Cancels the work on the second assignment, or lets a cancellation out as some libraries do."""

    def __init__(self, how: str) -> None:
        super().__init__(lambda request: PLAN if goal_of(request) == "task" else write_answer(f"{goal_of(request)}!"))
        self._how = how

    async def complete(self, request: ModelRequest) -> ModelReply:
        if goal_of(request) == "second":
            if self._how == "raised":
                raise asyncio.CancelledError
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        await asyncio.sleep(0.05)
        return await super().complete(request)


def goal_of(request: ModelRequest) -> str:
    return request.messages[1].content


@pytest.mark.parametrize("how", ["raised", "asked for"])
async def test_a_worker_that_is_cancelled_from_within_leaves_its_siblings_at_work(how: str) -> None:
    reports = {}
    async for event in Runtime(CREW, model=Cancelling(how)).stream("task"):
        if isinstance(event, ReportFiled):
            reports[event.report.assignment.id] = event.report
    assert [reports[place].status for place in "123"] == ["ok", "cancelled", "ok"]
    assert (reports["1"].output, reports["3"].output) == ("first!", "third!")


async def test_a_run_that_is_cancelled_takes_its_workers_with_it() -> None:
    stopped = []

    class Waiting(ScriptedModel):
        async def complete(self, request: ModelRequest) -> ModelReply:
            if goal_of(request) == "task":
                return await super().complete(request)
            try:
                await asyncio.sleep(30)
            finally:
                stopped.append(goal_of(request))
            raise AssertionError("it was not cancelled")

    running = asyncio.create_task(Runtime(CREW, model=Waiting([PLAN])).run("task"))
    await asyncio.sleep(0.2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(stopped) == ["first", "second", "third"]
