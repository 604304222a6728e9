"""Runs that are kept: interrupted anywhere, they go on where they were, and nothing is done twice."""

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.flow.attempt import CANCEL_POLL_S
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.run.events import Asked, Ended, ToolUsed
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.locks import RunBusyError
from journeyman.runtime.store.questions import Consent
from journeyman.runtime.store.run_store import RunRecord, RunStore
from journeyman.tools.context import ToolContext
from journeyman.tools.tool import Tool
from journeyman.traces.capture.log import SpanLog
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.trace import Origin, Task

PLAN = json.dumps(
    {
        "assignments": [
            {"worker": "clerk", "goal": "one"},
            {"worker": "clerk", "goal": "two"},
            {"worker": "clerk", "goal": "three after {1}", "needs": [1]},
        ]
    }
)
TASK = Task(id="t1", prompt="Do all three.")


def replies(request: ModelRequest) -> str:
    """Plans; then each clerk sends its goal once and answers with what came of it."""
    last = request.messages[-1].content
    if request.messages[0].content == "Plan.":
        return PLAN
    if not last.startswith("send: "):
        return write_call("send", {"text": last})
    return write_answer(last if last.startswith("send: sent ") else f"Sorry: {last}")


class Post:
    """What was sent, and a tool that sends."""

    def __init__(self, **options: Any) -> None:
        self.sent: list[str] = []
        self.tool = Tool(self.send, **options)

    def send(self, text: str, context: ToolContext) -> str:
        """Sends a text."""
        self.sent.append(f"{text} [{context.key}]")
        return f"sent {text}"


def crew(post: Post, *, approve: bool = False) -> Crew:
    return Crew(
        name="office",
        orchestrator=Agent(name="boss", instructions="Plan.", replans=0, approve=approve),
        workers=(Agent(name="clerk", instructions="Send.", tools=("send",), limits=Limits(turns=3)),),
        tools={"send": post.tool},
    )


class Stops(ScriptedModel):
    """Says the same, but at one request the run is cut off: nothing after it happens."""

    def __init__(self, at: int) -> None:
        super().__init__(replies)
        self._at = at
        self.reached = asyncio.Event()

    async def complete(self, request: ModelRequest) -> ModelReply:
        if len(self.requests) == self._at:
            self.reached.set()
            await asyncio.sleep(60)
        return await super().complete(request)


@pytest.fixture
def runs(tmp_path: Path) -> Callable[[], RunStore]:
    return lambda: RunStore(tmp_path / "runs.db")


@pytest.mark.parametrize("at", range(7))
async def test_a_run_that_was_cut_off_goes_on_and_does_nothing_twice(at: int, runs: Callable[[], RunStore]) -> None:
    post, first, second = Post(), Stops(at), ScriptedModel(replies)
    async with Runtime(crew(post), model=first, runs=runs()) as runtime:
        working = asyncio.create_task(runtime.run(TASK, run_id="r"))
        await asyncio.wait({working, asyncio.create_task(first.reached.wait())}, return_when="FIRST_COMPLETED")
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
    async with Runtime(crew(post), model=second, runs=runs()) as runtime:
        outcome = await runtime.run(TASK, run_id="r")
    assert (outcome.status, outcome.model_calls, outcome.tool_calls) == ("ok", 7, 3)
    assert outcome.answer == "send: sent two; send: sent three after send: sent one"
    assert len(first.requests) + len(second.requests) == 7
    # A call that is cut off is made again, with the same key: the tool said that this does no harm.
    assert len(set(post.sent)) == 3


async def test_the_same_run_id_twice_never_runs_twice(runs: Callable[[], RunStore]) -> None:
    model = ScriptedModel(replies)
    async with Runtime(crew(Post()), model=model, runs=runs()) as runtime:
        outcome = await runtime.run(TASK, run_id="r")
        asked = len(model.requests)
        assert await runtime.run(TASK, run_id="r") == outcome
        assert len(model.requests) == asked
        with pytest.raises(ConfigError, match="another task"):
            await runtime.run("Something else.", run_id="r")


async def test_a_run_that_goes_on_keeps_what_it_was_made_for(tmp_path: Path, runs: Callable[[], RunStore]) -> None:
    origin, model, tracer = Origin(purpose="gate", task_set="gate.jsonl"), Stops(2), Tracer(SpanLog(tmp_path / "spans"))
    async with Runtime(crew(Post()), model=model, runs=runs(), tracer=tracer) as runtime:
        working = asyncio.create_task(runtime.run(TASK, run_id="r", origin=origin))
        await model.reached.wait()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    async with Runtime(crew(Post()), model=ScriptedModel(replies), runs=runs(), tracer=tracer) as runtime:
        outcome = await runtime.resume("r")
        known = await runtime.find("r")
    assert known is not None and known.origin == origin
    store = TraceStore(tmp_path / "spans", tmp_path / "labels.jsonl")
    assert store.get(outcome.trace_id).origin == origin


async def test_a_run_is_for_service_unless_it_is_told_otherwise(tmp_path: Path, runs: Callable[[], RunStore]) -> None:
    async with Runtime(crew(Post()), model=ScriptedModel(replies), runs=runs()) as runtime:
        await runtime.run(TASK, run_id="r")
        known = await runtime.find("r")
    assert known is not None and known.origin == Origin(purpose="service")
    older = known.model_dump(mode="json", exclude={"origin"})
    assert RunRecord.model_validate(older).origin.purpose == "service"


async def test_a_text_with_the_same_run_id_is_the_same_task(runs: Callable[[], RunStore]) -> None:
    model = ScriptedModel(replies)
    async with Runtime(crew(Post()), model=model, runs=runs()) as runtime:
        outcome = await runtime.run("Do all three.", run_id="r")
        asked = len(model.requests)
        assert await runtime.run("Do all three.", run_id="r") == outcome
        streamed = [event async for event in runtime.stream("Do all three.", run_id="r")]
        assert streamed == [Ended(outcome=outcome)]
        assert len(model.requests) == asked
        with pytest.raises(ConfigError, match="another task"):
            await runtime.run("Something else.", run_id="r")


async def test_a_run_that_is_at_work_cannot_be_taken_up_by_another(runs: Callable[[], RunStore]) -> None:
    model = Stops(1)
    async with Runtime(crew(Post()), model=model, runs=runs()) as runtime:
        working = asyncio.create_task(runtime.run(TASK, run_id="r"))
        await model.reached.wait()
        with pytest.raises(RunBusyError):
            await runtime.run(TASK, run_id="r")
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def test_a_run_id_without_a_store_is_refused() -> None:
    with pytest.raises(ConfigError, match="run store"):
        await Runtime(crew(Post()), model=ScriptedModel(replies)).run(TASK, run_id="r")


async def test_a_call_that_may_be_made_once_only_is_not_made_again(runs: Callable[[], RunStore]) -> None:
    post = Post(idempotent=False)
    called = asyncio.Event()

    async def cut_off(text: str, context: ToolContext) -> str:
        """Sends a text, and never comes back."""
        post.send(text, context)
        called.set()
        await asyncio.sleep(60)
        return text

    broken = crew(post).model_copy(update={"tools": {"send": Tool(cut_off, name="send", idempotent=False)}})
    async with Runtime(broken, model=ScriptedModel(replies), runs=runs()) as runtime:
        task = asyncio.create_task(runtime.run(TASK, run_id="r"))
        await called.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    before = len(post.sent)
    async with Runtime(crew(post), model=ScriptedModel(replies), runs=runs()) as runtime:
        outcome = await runtime.run(TASK, run_id="r")
    assert "may have taken effect" in outcome.answer
    goals = [text.split(" [")[0] for text in post.sent]
    assert len(goals) == len(set(goals)) and before >= 1


async def test_the_seconds_of_a_part_that_died_count(runs: Callable[[], RunStore]) -> None:
    model = Stops(1)
    async with Runtime(crew(Post()), model=model, runs=runs()) as runtime:
        working = asyncio.create_task(runtime.run(TASK, run_id="r"))
        await model.reached.wait()
        noted = 0.0
        while not noted:
            await asyncio.sleep(0.1)
            known = await runtime.find("r")
            noted = 0.0 if known is None else known.seconds
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    async with Runtime(crew(Post()), model=ScriptedModel(replies), runs=runs()) as runtime:
        outcome = await runtime.resume("r")
        known = await runtime.find("r")
    assert known is not None and known.seconds == outcome.seconds > noted > 1


async def test_all_runs_that_are_left_are_found(runs: Callable[[], RunStore]) -> None:
    async with Runtime(crew(Post()), model=ScriptedModel(replies), runs=runs()) as runtime:
        store = await runs().open()
        for number in range(150):
            await store.put(RunRecord(id=str(number), trace_id="t", crew="office", task=TASK, status="paused"))
        await store.aclose()
        assert len(await runtime.left()) == 150


async def test_a_run_that_is_cancelled_as_it_stops_at_a_question_does_not_wait(runs: Callable[[], RunStore]) -> None:
    store = runs()

    class Cancels(ScriptedModel):
        """Somebody cancels the run while the model says what a person must agree to."""

        async def complete(self, request: ModelRequest) -> ModelReply:
            await store.change("r", lambda record: record.model_copy(update={"cancel": True}))
            return await super().complete(request)

    async with Runtime(crew(Post(), approve=True), model=Cancels(replies), runs=store) as runtime:
        outcome = await runtime.run(TASK, run_id="r")
        known = await runtime.find("r")
    assert known is not None and outcome.status == known.status == "cancelled"
    assert known.pending == ()


async def test_questions_are_in_the_order_of_the_plan(runs: Callable[[], RunStore]) -> None:
    rows = [{"worker": "clerk", "goal": f"goal {number}"} for number in range(1, 12)]

    def says(request: ModelRequest) -> str:
        return json.dumps({"assignments": rows}) if request.messages[0].content == "Plan." else replies(request)

    async with Runtime(crew(Post(approve=True)), model=ScriptedModel(says), runs=runs()) as runtime:
        await runtime.run(TASK, run_id="r")
        known = await runtime.find("r")
    assert known is not None
    assert [question.assignment for question in known.pending] == [str(number) for number in range(1, 12)]


async def test_what_a_person_must_agree_to_waits_and_goes_on_in_another_runtime(
    runs: Callable[[], RunStore],
) -> None:
    post, model = Post(writes=True, approve=True), ScriptedModel(replies)
    async with Runtime(crew(post), model=model, runs=runs()) as runtime:
        asked = [event.question async for event in runtime.stream(TASK, run_id="r") if isinstance(event, Asked)]
        kept = await runtime.find("r")
    assert kept is not None and kept.status == "needs_input" and list(kept.pending) == asked
    assert not post.sent and {question.assignment for question in asked} == {"1", "2"}
    words = {question.id: Consent(approved=question.assignment == "1", reason="too late") for question in asked}
    async with Runtime(crew(post), model=model, runs=runs()) as runtime:
        waiting = await runtime.resume("r", words)
        assert waiting.status == "needs_input", "the third assignment asks too"
        kept = await runtime.find("r")
        assert kept is not None
        outcome = await runtime.resume("r", {question.id: Consent(approved=True) for question in kept.pending})
    assert outcome.status == "ok"
    assert "send was not called: a person refused it: too late" in outcome.answer
    assert [text.split(" [")[0] for text in post.sent] == ["one", "three after send: sent one"]
    assert len(model.requests) == 7


def test_a_run_that_asked_goes_on_by_its_id_alone_and_shows_its_steps_also_without_an_event_loop(
    runs: Callable[[], RunStore],
) -> None:
    post, approved = Post(approve=True), Consent(approved=True)
    runtime = Runtime(crew(post), model=ScriptedModel(replies), runs=runs())
    asked = [event.question.id for event in runtime.stream_sync(TASK, run_id="r") if isinstance(event, Asked)]
    *steps, _ = runtime.stream_sync(run_id="r", answers=dict.fromkeys(asked, approved))
    used = [step for step in steps if isinstance(step, ToolUsed)]
    assert [(step.tool, step.result) for step in used] == [("send", "sent one"), ("send", "sent two")]
    asked = [step.question.id for step in steps if isinstance(step, Asked)]
    assert runtime.run_sync(run_id="r", answers=dict.fromkeys(asked, approved)).status == "ok"
    assert runtime.run_sync(run_id="r").status == "ok" and len(post.sent) == 3


@pytest.mark.parametrize("asked", [{}, {"answers": {"1/2": "blue"}}, {"task": "Paint it.", "answers": {"1/2": "blue"}}])
async def test_a_new_run_has_a_task_and_no_answers(asked: dict[str, Any], runs: Callable[[], RunStore]) -> None:
    async with Runtime(crew(Post()), model=ScriptedModel(replies), runs=runs()) as runtime:
        with pytest.raises(ConfigError, match="a new run needs a task, and no answers"):
            await runtime.run(**asked)
        with pytest.raises(ConfigError, match="no run 'r'"):
            await runtime.run(run_id="r")


async def test_a_run_that_does_not_fit_the_crew_any_more_waits_for_the_one_it_began_with(
    runs: Callable[[], RunStore],
) -> None:
    post, approved = Post(approve=True), Consent(approved=True)
    asks = crew(post)
    lost = asks.model_copy(update={"workers": (asks.workers[0].model_copy(update={"tools": ()}),)})
    async with Runtime(asks, model=ScriptedModel(replies), runs=runs()) as runtime:
        await runtime.run(TASK, run_id="r")
        known = await runtime.find("r")
        assert known is not None
        words = {question.id: approved for question in known.pending}
    async with Runtime(lost, model=ScriptedModel(replies), runs=runs()) as runtime:
        with pytest.raises(StoreError, match="resume it with the crew that it began with"):
            await runtime.resume("r", words)
    async with Runtime(asks, model=ScriptedModel(replies), runs=runs()) as runtime:
        assert (await runtime.resume("r")).status == "needs_input"
    assert len(post.sent) == 2


async def test_an_empty_run_id_is_refused_and_not_a_new_one_each_time(runs: Callable[[], RunStore]) -> None:
    post = Post()
    async with Runtime(crew(post), model=ScriptedModel(replies), runs=runs()) as runtime:
        with pytest.raises(ConfigError, match="run id ''"):
            await runtime.run("Do all three.", run_id="")
    assert post.sent == []


async def test_a_plan_that_needs_consent_is_not_followed_before_or_without_it(runs: Callable[[], RunStore]) -> None:
    post = Post()
    async with Runtime(crew(post, approve=True), model=ScriptedModel(replies), runs=runs()) as runtime:
        assert (await runtime.run(TASK, run_id="r")).status == "needs_input"
        assert not post.sent
        outcome = await runtime.resume("r", {"plan/2": Consent(approved=False, reason="not today")})
    assert outcome.status == "blocked" and "not today" in (outcome.error or "")
    assert not post.sent


async def test_a_run_that_somebody_cancels_ends_cancelled_and_its_tools_with_it(runs: Callable[[], RunStore]) -> None:
    ended: list[bool] = []
    begun = [asyncio.Event(), asyncio.Event()]

    async def send(text: str) -> str:
        """Never comes back."""
        begun[text == "two"].set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)
        return text

    slow = crew(Post()).model_copy(update={"tools": {"send": Tool(send)}})
    async with Runtime(slow, model=ScriptedModel(replies), runs=runs()) as runtime:
        task = asyncio.create_task(runtime.run(TASK, run_id="r"))
        await asyncio.gather(*(event.wait() for event in begun))
        await runtime.cancel("r")
        outcome = await asyncio.wait_for(task, 5)
    assert outcome.status == "cancelled" and ended == [True, True]


def rename(path: Path, table: str, new: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"ALTER TABLE {table} RENAME TO {new}")


async def test_a_run_hears_of_its_end_though_its_store_was_away_for_a_while(
    tmp_path: Path, runs: Callable[[], RunStore]
) -> None:
    model = Stops(1)
    async with Runtime(crew(Post()), model=model, runs=runs()) as runtime:
        task = asyncio.create_task(runtime.run(TASK, run_id="r"))
        await model.reached.wait()
        await asyncio.to_thread(rename, tmp_path / "runs.db", "journeyman_runs", "away")
        with pytest.raises(StoreError):
            await runtime.find("r")
        await asyncio.sleep(2 * CANCEL_POLL_S)
        await asyncio.to_thread(rename, tmp_path / "runs.db", "away", "journeyman_runs")
        await runtime.cancel("r")
        assert (await asyncio.wait_for(task, 5)).status == "cancelled"


async def test_a_drained_run_stops_at_a_step_and_goes_on_later(runs: Callable[[], RunStore]) -> None:
    post, model = Post(), ScriptedModel(replies)
    async with Runtime(crew(post), model=model, runs=runs()) as runtime:
        async for event in runtime.stream(TASK, run_id="r"):
            if event.kind == "plan":
                runtime.drain("the machine goes down")
        kept = await runtime.find("r")
    assert kept is not None and kept.status == "paused" and kept.outcome is not None
    assert "the machine goes down" in (kept.outcome.error or "")
    async with Runtime(crew(post), model=model, runs=runs()) as runtime:
        assert (await runtime.resume("r")).status == "ok"
    assert len(model.requests) == 7 and len(post.sent) == 3


async def test_what_nobody_could_take_up_again_is_not_drained() -> None:
    runtime = Runtime(crew(Post()), model=ScriptedModel(replies))
    async for event in runtime.stream(TASK):
        if event.kind == "plan":
            with pytest.raises(ConfigError, match="keeps no runs that could be resumed"):
                runtime.drain()
    assert isinstance(event, Ended) and event.outcome.status == "ok"


async def test_the_parts_of_an_interrupted_run_are_one_trace(runs: Callable[[], RunStore], tmp_path: Path) -> None:
    post = Post(approve=True)
    for _ in range(3):
        log = SpanLog(tmp_path / "spans")
        async with Runtime(crew(post), model=ScriptedModel(replies), runs=runs(), tracer=Tracer(log)) as runtime:
            kept = await runtime.find("r")
            pending = () if kept is None else kept.pending
            words = {question.id: Consent(approved=True) for question in pending}
            outcome = await (runtime.resume("r", words) if kept else runtime.run(TASK, run_id="r"))
        log.close()
    (trace,) = TraceStore(tmp_path / "spans", tmp_path / "labels.jsonl").traces()
    assert trace.trace_id == outcome.trace_id and trace.outcome is not None
    assert trace.outcome.status == outcome.status == "ok"
    assert len(trace.turns) == outcome.model_calls == 7


PROGRAM = Path(__file__).with_name("killed_run.py")


def ended(folder: Path, *does: str, after: str = "", stop: int | None = None) -> list[str]:
    """What the program printed; it gets the signal `stop` as soon as it has said `after`."""
    child = subprocess.Popen([sys.executable, str(PROGRAM), str(folder), *does], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    seen = []
    with child.stdout:
        for line in child.stdout:
            seen.append(line.strip())
            if stop is not None and line.strip() == after:
                child.send_signal(stop)
                stop = None
    child.wait()
    return seen


def test_kill_9_loses_nothing_and_sigterm_drains(tmp_path: Path) -> None:
    assert ended(tmp_path, after="report", stop=signal.SIGKILL)[-1] != "ok"
    assert ended(tmp_path, after="tool", stop=signal.SIGTERM)[-1] == "paused"
    assert ended(tmp_path)[-1] == "ok"
    assert sorted((tmp_path / "notes").read_text().split()) == [f"g{number}" for number in range(1, 7)]


def test_the_replay_of_a_run_that_was_killed_and_went_on_is_the_same_to_the_step(tmp_path: Path) -> None:
    assert ended(tmp_path, after="tool", stop=signal.SIGKILL)[-1] != "ok"
    assert ended(tmp_path)[-1] == "ok"
    assert ended(tmp_path, "replay") == ["ok the same"]


class Held(ScriptedModel):
    """Answers once it may."""

    def __init__(self) -> None:
        super().__init__(replies)
        self.reached, self.may = asyncio.Event(), asyncio.Event()

    async def complete(self, request: ModelRequest) -> ModelReply:
        self.reached.set()
        await self.may.wait()
        return await super().complete(request)


async def test_runtimes_that_share_a_store_do_not_close_it_on_each_other(place: Path | str) -> None:
    runs, model = RunStore(place), Held()
    async with Runtime(crew(Post()), model=model, runs=runs) as runtime:
        async with Runtime(crew(Post()), model=ScriptedModel(replies), runs=runs) as other:
            await other.run(TASK)
            working = asyncio.create_task(runtime.run(TASK, run_id="r"))
            await model.reached.wait()
        await runs.aclose()
        model.may.set()
        assert (await working).status == "ok"
        assert (await runtime.run(TASK)).status == "ok"
    with pytest.raises(StoreError, match="not open"):
        await runs.get("r")
