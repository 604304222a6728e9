"""The runtime with a scripted model: a crew at work, what it records, and how failures stay where they happened."""

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.budget import Budget
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.run.events import Ended, SpentSoFar, ToolCalled
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.run_store import RunStore
from journeyman.tools.tool import tool
from journeyman.traces import attributes as a
from journeyman.traces.assemble import refusal
from journeyman.traces.capture.log import SpanLog, SpanRecord
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import ConfigError, ModelError, StoreError
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.trace import Task

DIRECTORS = {"Alien": "Ridley Scott", "Jaws": "Steven Spielberg"}
PLAN = json.dumps(
    {
        "assignments": [
            {"worker": "lookup", "goal": "Which films?"},
            {"worker": "lookup", "goal": "Who directed {1}?", "each": 1},
        ]
    }
)


@tool
def facts(query: str) -> str:
    """Looks facts up."""
    return DIRECTORS.get(query, ", ".join(DIRECTORS))


CREW = Crew(
    name="films",
    orchestrator=Agent(name="orchestrator", instructions="Plan."),
    workers=(Agent(name="lookup", instructions="Look up.", tools=("facts",), output="values", limits=Limits(turns=2)),),
    tools={"facts": facts},
)
TASK = Task(id="q1", prompt="Who directed each film?", reference={"Alien": "Ridley Scott"}, family="films")


def answers(request: ModelRequest) -> str:
    """A model that plans, looks its goal up, and repeats what it finds."""
    prompt = request.messages[-1].content
    if request.messages[0].content == "Plan.":
        return PLAN
    if prompt.startswith("facts: "):
        return write_answer(prompt.removeprefix("facts: ").split(", "))
    return write_call("facts", {"query": prompt.removeprefix("Who directed ").removesuffix("?")})


class FailingModel(ScriptedModel):
    """Answers like `answers`, except where the goal is the one it fails on."""

    def __init__(self, goal: str, error: Exception) -> None:
        super().__init__(answers)
        self._goal = goal
        self._error = error

    async def complete(self, request: ModelRequest) -> ModelReply:
        if any(message.content == self._goal for message in request.messages):
            raise self._error
        return await super().complete(request)


async def test_a_crew_plans_fans_out_and_joins() -> None:
    outcome = await Runtime(CREW, model=ScriptedModel(answers)).run(TASK)
    assert (outcome.status, outcome.error) == ("ok", None)
    assert outcome.answer == "Alien: Ridley Scott; Jaws: Steven Spielberg"
    assert (outcome.model_calls, outcome.tool_calls) == (7, 3)


async def test_the_orchestrator_is_told_what_its_workers_do() -> None:
    model = ScriptedModel(answers)
    described = CREW.workers[0].model_copy(update={"description": "Looks films up."})
    boss = Agent(name="orchestrator", instructions="Plan the work.")
    await Runtime(CREW.model_copy(update={"workers": (described,), "orchestrator": boss}), model=model).run(TASK)
    assert model.requests[0].messages[0].content == "Plan the work.\nWorkers:\n- lookup: Looks films up."


async def test_without_an_orchestrator_the_first_worker_gets_the_task() -> None:
    crew = CREW.model_copy(update={"orchestrator": None})
    outcome = await Runtime(crew, model=ScriptedModel(answers)).run("Alien")
    assert outcome.answer == "Ridley Scott"


async def test_every_step_is_recorded_under_its_parent(tmp_path: Path) -> None:
    log = SpanLog(tmp_path / "spans")
    runtime = Runtime(CREW, model=ScriptedModel(answers), tracer=Tracer(log), policies={"lookup": "lookup@3"})
    outcome = await runtime.run(TASK)
    log.close()
    trace = TraceStore(tmp_path / "spans", tmp_path / "labels.jsonl").get(outcome.trace_id)
    assert trace.task == TASK
    assert trace.outcome == outcome
    boss, *workers = trace.trajectories
    assert (boss.agent, boss.parent) == ("orchestrator", None)
    assert [worker.assignment for worker in workers] == ["1", "2.1", "2.2"]
    assert {worker.parent for worker in workers} == {boss.span_id}
    assert [len(trajectory.turns) for trajectory in trace.trajectories] == [1, 2, 2, 2]
    assert {turn.policy for worker in workers for turn in worker.turns} == {"lookup@3"}
    assert workers[0].turns[0].tool_results[0].content == "Alien, Jaws"
    assert trace.usage == outcome.usage


async def test_agents_never_see_the_reference() -> None:
    model = ScriptedModel(answers)
    secret = TASK.model_copy(update={"reference": "the secret reference"})
    await Runtime(CREW, model=model).run(secret)
    assert all("secret" not in request.model_dump_json() for request in model.requests)


@pytest.mark.parametrize("error", [ModelError("the server is gone", kind="unreachable"), RuntimeError("a bug")])
async def test_a_failed_worker_is_a_report_and_its_siblings_finish(error: Exception) -> None:
    outcome = await Runtime(CREW, model=FailingModel("Who directed Alien?", error)).run(TASK)
    assert outcome.status == "ok"
    assert outcome.answer == "Jaws: Steven Spielberg"
    assert outcome.error is not None
    assert outcome.error.startswith("1 of 3 assignments did not end well; first: 2.1 (lookup) failed: ")
    assert str(error) not in outcome.answer


async def test_dependents_of_a_failed_assignment_are_skipped_and_the_run_fails_with_the_cause() -> None:
    outcome = await Runtime(CREW, model=FailingModel("Which films?", ModelError("no such policy"))).run(TASK)
    assert (outcome.status, outcome.answer) == ("failed", "")
    assert outcome.error is not None
    assert "no such policy" in outcome.error


async def test_a_slow_worker_times_out_alone() -> None:
    class Slow(ScriptedModel):
        async def complete(self, request: ModelRequest) -> ModelReply:
            if any(message.content == "Who directed Jaws?" for message in request.messages):
                await asyncio.sleep(60)
            return await super().complete(request)

    quick = CREW.workers[0].model_copy(update={"limits": Limits(turns=2, seconds=0.2)})
    outcome = await Runtime(CREW.model_copy(update={"workers": (quick,)}), model=Slow(answers)).run(TASK)
    assert outcome.answer == "Alien: Ridley Scott"
    assert outcome.error is not None
    assert "timeout" in outcome.error


@pytest.mark.parametrize(("seconds", "why"), [(0.1, "timeout"), (9.0, "failed")])
async def test_the_span_of_a_plan_that_never_came_says_why(tmp_path: Path, seconds: float, why: str) -> None:
    assert CREW.orchestrator is not None
    boss = CREW.orchestrator.model_copy(update={"limits": Limits(seconds=seconds)})
    slow = ScriptedModel(["no", "no"], latency_s=0.2)
    tracer = Tracer(SpanLog(tmp_path))
    await Runtime(CREW.model_copy(update={"orchestrator": boss}), model=slow, tracer=tracer).run(TASK)
    (plan,) = [span for span in TraceStore(tmp_path, tmp_path / "labels").spans() if span.name.startswith("plan ")]
    assert plan.attributes[a.ERROR_TYPE] == why


async def test_an_unusable_plan_is_repaired_once_with_the_reason_and_nobody_learns_from_it(tmp_path: Path) -> None:
    model = ScriptedModel(['{"assignments": []}', PLAN.replace(", ", ","), *[write_answer([])] * 9])
    outcome = await Runtime(CREW, model=model, tracer=Tracer(SpanLog(tmp_path))).run(TASK)
    assert outcome.status == "ok"
    assert "1 to 12 assignments" in model.requests[1].messages[-1].content
    boss = TraceStore(tmp_path, tmp_path / "labels.jsonl").get(outcome.trace_id).trajectories[0]
    assert [refusal(turn, boss) for turn in boss.turns] == ["reply not usable", "no token ids"]


async def test_a_plan_that_stays_unusable_fails_the_run_with_the_reason() -> None:
    outcome = await Runtime(CREW, model=ScriptedModel(["no", "no"])).run(TASK)
    assert (outcome.status, outcome.answer) == ("failed", "")
    assert outcome.error is not None
    assert outcome.error.startswith("no usable plan")


async def test_a_record_that_cannot_be_kept_stops_the_run() -> None:
    class FullDisk:
        def append(self, span: SpanRecord, *, sync: bool) -> None:
            raise StoreError("the disk is full")

    with pytest.raises(StoreError, match="the disk is full"):
        await Runtime(CREW, model=ScriptedModel(answers), tracer=Tracer(FullDisk())).run(TASK)


async def test_the_stream_tells_every_step_in_order_and_ends_with_the_outcome() -> None:
    events = [event async for event in Runtime(CREW, model=ScriptedModel(answers)).stream(TASK)]
    assert isinstance(events[-1], Ended)
    assert events[-1].outcome.status == "ok"
    steps = [event.kind for event in events if not isinstance(event, SpentSoFar)]
    assert steps[:5] == ["plan", "worker", "tool_call", "tool", "report"]
    assert steps[-2:] == ["answer", "ended"]


async def test_leaving_a_stream_early_cancels_the_run() -> None:
    model = ScriptedModel(answers)
    stream = Runtime(CREW, model=model).stream(TASK)
    async for _ in stream:
        break
    await stream.aclose()
    seen = len(model.requests)
    await asyncio.sleep(0.05)
    assert len(model.requests) == seen < 7


async def test_run_sync_works_inside_a_running_event_loop() -> None:
    assert Runtime(CREW, model=ScriptedModel(answers)).run_sync(TASK).status == "ok"


def test_run_sync_works_without_an_event_loop() -> None:
    assert Runtime(CREW, model=ScriptedModel(answers)).run_sync(TASK).status == "ok"


async def test_no_more_model_calls_are_in_flight_than_the_limit_allows() -> None:
    flying, most = 0, 0

    class Counting(ScriptedModel):
        async def complete(self, request: ModelRequest) -> ModelReply:
            nonlocal flying, most
            flying += 1
            most = max(most, flying)
            await asyncio.sleep(0.005)
            flying -= 1
            return await super().complete(request)

    runtime = Runtime(CREW, model=Counting(answers), concurrency=2)
    await asyncio.gather(*(runtime.run(TASK) for _ in range(4)))
    assert most == 2


def test_a_runtime_in_which_no_call_could_ever_be_made_is_refused() -> None:
    with pytest.raises(ConfigError, match="concurrency is 0"):
        Runtime(CREW, model=ScriptedModel([]), concurrency=0)


def test_a_budget_of_money_without_a_price_is_refused_before_a_run_is_kept() -> None:
    crew = CREW.model_copy(update={"budget": Budget(cost=1.0)})
    with pytest.raises(ConfigError, match=r"set \[traces.prices\]"):
        Runtime(crew, model=ScriptedModel([]))


def test_runs_of_several_threads_share_the_limit_on_model_calls() -> None:
    flying, most = 0, 0
    counting = threading.Lock()

    class Counting(ScriptedModel):
        async def complete(self, request: ModelRequest) -> ModelReply:
            nonlocal flying, most
            with counting:
                flying += 1
                most = max(most, flying)
            await asyncio.sleep(0.005)
            with counting:
                flying -= 1
            return await super().complete(request)

    runtime = Runtime(CREW, model=Counting(answers), concurrency=2)
    threads = [threading.Thread(target=runtime.run_sync, args=(TASK,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 2


async def test_a_run_keeps_the_policies_it_started_with() -> None:
    table = {"lookup": "lookup@1"}

    class Promoting(ScriptedModel):
        async def complete(self, request: ModelRequest) -> ModelReply:
            table["lookup"] = "lookup@2"
            return await super().complete(request)

    model = Promoting(answers)
    runtime = Runtime(CREW, model=model, policies=lambda: PolicyTable(agents=dict(table)))
    await runtime.run(TASK)
    assert {request.policy for request in model.requests} == {"base", "lookup@1"}
    await runtime.run(TASK)
    assert model.requests[-1].policy == "lookup@2"


@pytest.mark.parametrize("task", ["half \ud800", TASK.model_copy(update={"session": "\udcff"})])
async def test_a_task_that_cannot_be_written_is_refused_in_one_line(task: Task | str) -> None:
    model = ScriptedModel(answers)
    with pytest.raises(ConfigError, match="half a surrogate pair"):
        await Runtime(CREW, model=model).run(task)
    assert model.requests == []


class Watched(asyncio.SelectorEventLoop):
    """A loop that lets something happen in the moment in which somebody finds it closed."""

    meanwhile: Callable[[], None] | None = None

    def is_closed(self) -> bool:
        closed = super().is_closed()
        if closed and self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return closed


def test_runs_of_many_threads_may_begin_in_the_same_moment(tmp_path: Path) -> None:
    runtime = Runtime(CREW, model=ScriptedModel(answers), runs=RunStore(tmp_path / "runs.db"))
    with asyncio.Runner(loop_factory=Watched) as runner:
        runner.run(runtime.run("one"))
        loop = runner.get_loop()
    assert isinstance(loop, Watched)

    def another_run() -> None:
        thread = threading.Thread(target=runtime.run_sync, args=("two",))
        thread.start()
        thread.join()

    loop.meanwhile = another_run
    assert runtime.run_sync("three").status == "ok"
    assert loop.meanwhile is None


@pytest.mark.parametrize(("then", "status"), [("resume", "ok"), ("cancel", "cancelled")])
async def test_a_run_that_its_watcher_left_can_be_taken_up_or_ended(tmp_path: Path, then: str, status: str) -> None:
    unwatched = asyncio.Event()

    @tool
    async def facts(query: str) -> str:
        """Looks facts up, once nobody watches."""
        await unwatched.wait()
        return DIRECTORS.get(query, ", ".join(DIRECTORS))

    crew = CREW.model_copy(update={"tools": {"facts": facts}})
    async with Runtime(crew, model=ScriptedModel(answers), runs=RunStore(tmp_path / "runs.db")) as runtime:
        async with aclosing(runtime.stream(TASK, run_id="left")) as events:
            async for event in events:
                if isinstance(event, ToolCalled):
                    break
        unwatched.set()
        assert [run.id for run in await runtime.left()] == ["left"]
        await (runtime.resume("left") if then == "resume" else runtime.cancel("left"))
        left = await runtime.find("left")
        assert left is not None and left.status == status
        assert await runtime.left() == []
