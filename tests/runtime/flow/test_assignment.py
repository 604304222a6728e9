"""One worker on one assignment: what cancels it from within ends it alone."""

import asyncio
import json

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.budget import Budget
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.worker import write_answer
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.run.events import ReportFiled
from journeyman.runtime.runtime import Runtime

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
    begun = asyncio.Semaphore(0)

    class Waiting(ScriptedModel):
        async def complete(self, request: ModelRequest) -> ModelReply:
            if goal_of(request) == "task":
                return await super().complete(request)
            begun.release()
            try:
                await asyncio.sleep(30)
            finally:
                stopped.append(goal_of(request))
            raise AssertionError("it was not cancelled")

    running = asyncio.create_task(Runtime(CREW, model=Waiting([PLAN])).run("task"))
    for _ in range(3):
        await begun.acquire()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(stopped) == ["first", "second", "third"]


async def test_a_worker_that_waits_for_its_run_s_budget_keeps_no_other_run_waiting() -> None:
    other_is_done, first_asks = asyncio.Event(), asyncio.Event()

    class Patient(ScriptedModel):
        async def complete(self, request: ModelRequest) -> ModelReply:
            if goal_of(request) == "first":
                first_asks.set()
                await other_is_done.wait()
            return await super().complete(request)

    short = json.dumps({"assignments": [{"worker": "worker", "goal": "short"}]})
    plans = {"long": PLAN, "brief": short}
    model = Patient(lambda request: plans.get(goal_of(request)) or write_answer(f"{goal_of(request)}!"))
    crew = CREW.model_copy(update={"budget": Budget(tokens=500, reserve=0.0)})
    runtime = Runtime(crew, model=model, concurrency=2)
    async with asyncio.timeout(10):
        long = asyncio.create_task(runtime.run("long"))
        await first_asks.wait()
        assert (await runtime.run("brief")).answer == "short!"
        other_is_done.set()
        assert (await long).answer == "first!; second!; third!"


async def test_the_longest_plan_and_all_that_is_added_to_it_come_to_an_answer() -> None:
    """Each assignment waits for the one before, and the last one of each plan fails."""

    def chain(first: int) -> str:
        rows: list[dict[str, object]] = [{"worker": "worker", "goal": f"step {first}"}]
        rows += [{"worker": "worker", "goal": f"step {n}", "needs": [n - 1]} for n in range(first + 1, first + 64)]
        return json.dumps({"assignments": rows})

    plans = iter([chain(1), chain(65)])

    def reply(request: ModelRequest) -> str:
        if request.messages[0].content.startswith("Plan."):
            return next(plans)
        return "nonsense" if "step 64" in request.messages[1].content else write_answer("done")

    orchestrator = Agent(name="orchestrator", instructions="Plan.", assignments=64, limits=Limits(tokens=8192))
    crew = CREW.model_copy(update={"orchestrator": orchestrator})
    outcome = await Runtime(crew, model=ScriptedModel(reply)).run("task")
    assert (outcome.status, outcome.answer) == ("ok", "done")
