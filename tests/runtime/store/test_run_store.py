"""The run store, in SQLite and in a real Postgres: what was kept is there again, whoever else writes or dies."""

import asyncio
import gc
import json
import logging
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator
from contextlib import aclosing, closing, suppress
from pathlib import Path
from typing import Any, LiteralString, TypedDict
from uuid import uuid4

import pytest
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.locks import RunBusyError
from journeyman.runtime.store.questions import Question
from journeyman.runtime.store.run_store import RunRecord, RunStatus, RunStore
from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.tools.ask import ask
from journeyman.tools.memory import memory
from journeyman.tools.tool import Tool
from journeyman.traces.errors import ConfigError, ModelError, StoreError
from journeyman.traces.messages import Message
from journeyman.traces.trace import Outcome, Task

ASKED = Question(id="2/1", kind="approve_call", agent="worker", tool="pay", arguments={"sum": 5}, text="Pay 5?")
RECORD = RunRecord(
    id="r.1",
    trace_id="a" * 32,
    crew="films",
    crew_path="crew.toml",
    task=Task(id="q1", prompt="Wer? «Ä»", reference={"Alien": 1}, session="s", user="ann"),
    policies=PolicyTable(agents={"worker": "worker@8"}),
    seed=7,
    temperature=0.5,
    status="needs_input",
    pending=(ASKED,),
    answers={"2/1": {"approved": True, "reason": ""}},
    outcome=Outcome(task_id="q1", trace_id="a" * 32, status="needs_input"),
)


@pytest.fixture
async def runs(place: Path | str) -> AsyncIterator[RunStore]:
    store = await RunStore(place).open()
    yield store
    await store.aclose()


def record(run_id: str, status: RunStatus = "running", created_ns: int = 1) -> RunRecord:
    task = Task(id=run_id, prompt="p")
    return RunRecord(id=run_id, trace_id="t", crew="c", task=task, status=status, created_ns=created_ns)


async def test_a_record_comes_back_as_it_was_put(runs: RunStore) -> None:
    kept = await runs.put(RECORD)
    found = await runs.get("r.1")
    assert found == kept
    assert kept.version == 1
    assert kept.model_copy(update={"version": 0, "updated_ns": 0}) == RECORD
    assert await runs.get("r") is None


async def test_runs_are_found_newest_first_and_by_status(runs: RunStore) -> None:
    statuses: tuple[RunStatus, ...] = ("ok", "running", "needs_input", "ok")
    for number, status in enumerate(statuses):
        await runs.put(record(f"r{number}", status=status, created_ns=number))
    assert [found.id for found in await runs.find()] == ["r3", "r2", "r1", "r0"]
    assert [found.id for found in await runs.find("ok")] == ["r3", "r0"]
    assert [found.id for found in await runs.find(limit=1)] == ["r3"]


async def test_an_id_may_be_cut_short_where_one_run_has_it(runs: RunStore) -> None:
    for run_id in ("ab1", "ab12", "a%c"):
        await runs.put(record(run_id))
    assert [await runs.complete_id(prefix) for prefix in ("ab12", "ab1", "a%")] == ["ab12", "ab1", "a%c"]
    with pytest.raises(ConfigError, match="more than one run"):
        await runs.complete_id("ab")
    for unknown in ("b", "AB1", "_b1", "a\0", "a\ud800"):
        with pytest.raises(ConfigError, match="no run"):
            await runs.complete_id(unknown)
        assert await runs.get(unknown) is None


async def test_changes_made_at_once_do_not_undo_each_other(runs: RunStore, place: Path | str) -> None:
    await runs.put(record("r1"))

    def answered(number: int) -> Any:
        return lambda known: known.model_copy(update={"answers": {**known.answers, str(number): number}})

    def elsewhere() -> None:
        async def change() -> None:
            other = await RunStore(place).open()
            for number in range(10):
                await other.change("r1", answered(number))
            await other.aclose()

        asyncio.run(change())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.gather(*(runs.change("r1", answered(number)) for number in range(10, 20)))
    await asyncio.to_thread(thread.join)
    found = await runs.get("r1")
    assert found is not None
    assert set(found.answers.values()) == set(range(20))
    assert found.version == 21


async def test_a_run_that_is_not_there_cannot_be_changed(runs: RunStore) -> None:
    with pytest.raises(ConfigError, match="no run 'r1'"):
        await runs.change("r1", lambda known: known)


async def test_steps_belong_to_one_place_of_one_run(runs: RunStore) -> None:
    await runs.note_step("r1", "2.1", 1, {"begun": True})
    await runs.note_step("r1", "2.1", 2, {"reply": "«ja»"})
    await runs.note_step("r1", "2.1", 1, {"begun": True, "result": [1, None]})
    await runs.note_step("r1", "2", 1, {"reply": "x"})
    assert await runs.steps("r1", "2.1") == {1: {"begun": True, "result": [1, None]}, 2: {"reply": "«ja»"}}
    assert await runs.steps("r1", "2") == {1: {"reply": "x"}}
    assert await runs.steps("r2", "2.1") == {}


KILLED = """
import asyncio, os, signal, sys
from journeyman.runtime.store.run_store import RunStore

async def work():
    runs = await RunStore(sys.argv[1]).open()
    async with runs.lock("r1"):
        for number in range(50):
            await runs.note_step("r1", "plan", number, {"number": number})
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(work())
"""


async def test_what_was_noted_outlives_a_kill_and_the_lock_does_not(runs: RunStore, place: Path | str) -> None:
    child = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", KILLED, str(place)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert await runs.steps("r1", "plan") == {number: {"number": number} for number in range(50)}
    async with runs.lock("r1"):
        pass


async def test_steps_noted_at_once_are_all_there(runs: RunStore) -> None:
    await asyncio.gather(*(runs.note_step("r1", str(n % 7), n, {"n": n}) for n in range(300)))
    await asyncio.gather(*(runs.note_step("r1", "0", 0, {"n": n}) for n in range(3)))
    assert {n: step for place in range(7) for n, step in (await runs.steps("r1", str(place))).items()} == {
        0: {"n": 2}
    } | {n: {"n": n} for n in range(1, 300)}


async def test_a_step_of_a_cancelled_task_is_kept_and_takes_no_other_with_it(runs: RunStore) -> None:
    noting = [asyncio.create_task(runs.note_step("r1", "plan", n, {})) for n in range(3)]
    await asyncio.sleep(0)
    noting[0].cancel()
    assert isinstance((await asyncio.gather(*noting, return_exceptions=True))[0], asyncio.CancelledError)
    assert list(await runs.steps("r1", "plan")) == [0, 1, 2]


async def test_many_runs_may_open_the_store_at_once(place: Path | str) -> None:
    store = RunStore(place)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await asyncio.gather(*(store.open() for _ in range(8)))
        await store.put(record("r1"))
        await store.aclose()
        gc.collect()  # A connection that nobody closed would say so now.


async def test_a_run_goes_on_in_one_place_at_a_time(runs: RunStore, place: Path | str) -> None:
    other = RunStore(place)

    def elsewhere() -> bool:
        async def look() -> bool:
            await other.open()
            try:
                return await other.alive("r1")
            finally:
                await other.aclose()

        return asyncio.run(look())

    async with runs.lock("r1"):
        assert await runs.alive("r1")
        assert await asyncio.to_thread(elsewhere)
        with pytest.raises(RunBusyError, match="run r1 goes on elsewhere"):
            async with runs.lock("r1"):
                pass
    assert not await runs.alive("r1")
    assert not await asyncio.to_thread(elsewhere)


async def test_a_cancelled_wait_for_a_lock_holds_nothing(runs: RunStore) -> None:
    async def hold() -> None:
        async with runs.lock("r1"):
            await asyncio.sleep(60)

    for pause in (0.0, 0.0002, 0.001, 0.005):
        holding = asyncio.create_task(hold())
        await asyncio.sleep(pause)
        holding.cancel()
        with suppress(asyncio.CancelledError):
            await holding
        assert not await runs.alive("r1")


async def test_who_is_cancelled_while_he_lets_go_of_a_lock_lets_go_of_it(runs: RunStore, place: Path | str) -> None:
    names = [f"r{number}" for number in range(8)]
    held, ended = asyncio.Barrier(len(names) + 1), asyncio.Event()

    async def hold(name: str) -> None:
        async with runs.lock(name):
            await held.wait()
            await ended.wait()

    holding = [asyncio.create_task(hold(name)) for name in names]
    await held.wait()
    ended.set()
    await asyncio.sleep(0)
    for task in holding:
        task.cancel()
    await asyncio.gather(*holding, return_exceptions=True)
    async with aclosing(await RunStore(place).open()) as other:
        assert [name for name in names if await other.alive(name)] == []


class Stranger(BaseModel):
    name: str


class State(TypedDict, total=False):
    plan: Plan
    reports: dict[str, Report]
    stranger: Any
    count: int


PLAN = Plan(assignments=(Assignment(id="1", worker="w", goal="g"),))
REPORT = Report(assignment=PLAN.assignments[0], status="ok", output=["a", "b"], evidence=("s",))


def graph(runs: RunStore, steps: int = 1) -> Any:
    def count(state: State) -> State:
        return {"plan": PLAN, "reports": {"1": REPORT}, "count": state.get("count", 0) + 1}

    built = StateGraph(State)
    built.add_node("count", count)
    built.add_edge(START, "count")
    built.add_conditional_edges("count", lambda state: END if state["count"] == steps else "count")
    return built.compile(checkpointer=runs.checkpointer)


def thread(run_id: str) -> Any:
    return {"configurable": {"thread_id": run_id}}


async def test_a_checkpoint_gives_back_our_records(
    runs: RunStore, place: Path | str, caplog: pytest.LogCaptureFixture
) -> None:
    await graph(runs).ainvoke({}, thread("r1"), durability=runs.durability)
    await runs.aclose()
    await runs.open()
    found = (await graph(runs).aget_state(thread("r1"))).values
    assert (found["plan"], found["reports"]) == (PLAN, {"1": REPORT})
    assert not [entry for entry in caplog.records if entry.levelno >= logging.WARNING]


async def test_a_checkpoint_makes_nothing_of_classes_that_are_not_ours(runs: RunStore) -> None:
    await graph(runs).ainvoke({"stranger": Stranger(name="x")}, thread("r1"))
    assert (await graph(runs).aget_state(thread("r1"))).values["stranger"] == {"name": "x"}
    with pytest.raises(TypeError, match="not msgpack serializable"):
        await graph(runs).ainvoke({"stranger": object()}, thread("r2"))


async def test_an_ended_run_keeps_its_record_and_its_last_checkpoint(runs: RunStore) -> None:
    running = await runs.put(record("r1"))
    await runs.put(record("r2"))
    for run_id in ("r1", "r2"):
        await graph(runs, steps=5).ainvoke({}, thread(run_id))
        await runs.note_step(run_id, "plan", 1, {"reply": "x"})
    before = [checkpoint async for checkpoint in runs.checkpointer.alist(thread("r1"))]
    await runs.finish(running.model_copy(update={"status": "ok"}))
    after = [checkpoint async for checkpoint in runs.checkpointer.alist(thread("r1"))]
    assert len(before) > 5
    assert [one.checkpoint["id"] for one in after] == [before[0].checkpoint["id"]]
    assert (await graph(runs).aget_state(thread("r1"))).values["count"] == 5
    assert await runs.steps("r1", "plan") == {}
    assert [found.id for found in await runs.find("ok")] == ["r1"]
    assert len([checkpoint async for checkpoint in runs.checkpointer.alist(thread("r2"))]) == len(before)
    assert await runs.steps("r2", "plan")


async def test_pruning_deletes_what_ended_and_nothing_that_can_be_taken_up_again(runs: RunStore) -> None:
    statuses: dict[str, RunStatus] = {"done": "ok", "bad": "failed", "asking": "needs_input", "dead": "running"}
    for run_id, status in statuses.items():
        await runs.put(record(run_id, status=status))
        await graph(runs).ainvoke({}, thread(run_id))
        await runs.note_step(run_id, "plan", 1, {})
    assert await runs.prune(older_than_days=1) == 0
    assert await runs.prune(older_than_days=0) == 2
    assert {found.id for found in await runs.find()} == {"asking", "dead"}
    assert [checkpoint async for checkpoint in runs.checkpointer.alist(thread("done"))] == []
    assert await runs.steps("done", "plan") == {}
    assert await runs.steps("dead", "plan") == {1: {}}


async def test_runs_of_a_deleted_trace_are_forgotten_whatever_they_wait_for(runs: RunStore) -> None:
    await runs.put(RECORD)
    await runs.put(record("r2"))
    await runs.note_step("r.1", "plan", 1, {})
    assert await runs.forget([RECORD.trace_id, "unknown"]) == 1
    assert [found.id for found in await runs.find()] == ["r2"]
    assert await runs.steps("r.1", "plan") == {}


async def test_opening_deletes_runs_that_are_not_to_be_kept_longer(runs: RunStore, place: Path | str) -> None:
    await runs.put(record("done", status="ok"))
    await asyncio.to_thread(lambda: asyncio.run(_open_and_close(RunStore(place, keep_days=1))))
    assert await runs.find()
    await asyncio.to_thread(lambda: asyncio.run(_open_and_close(RunStore(place, keep_days=1e-9))))
    assert not await runs.find()


async def _open_and_close(store: RunStore) -> None:
    await store.open()
    await store.aclose()


async def test_a_store_serves_several_event_loops_at_once(place: Path | str) -> None:
    store = RunStore(place)

    def work(number: int) -> None:
        async def one() -> None:
            await store.open()
            await store.put(record(f"r{number}"))
            for step in range(20):
                await store.note_step(f"r{number}", "plan", step, {})
            await graph(store, steps=3).ainvoke({}, thread(f"r{number}"))
            await store.aclose()

        asyncio.run(one())

    await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(4)))
    await store.open()
    assert len(await store.find()) == 4
    for number in range(4):
        assert len(await store.steps(f"r{number}", "plan")) == 20
    await store.aclose()


async def test_memory_is_written_and_read_while_others_write(place: Path | str) -> None:
    """SQLite refuses, without waiting, a transaction that reads first and writes after another one did."""

    def work(number: int) -> None:
        async def one() -> None:
            store = await RunStore(place).open()
            for step in range(30):
                await asyncio.gather(
                    store.store.aput(("memory", str(number)), str(step), {"text": "x"}),
                    store.store.asearch(("memory",)),
                    store.store.aget(("memory", "0"), "0"),
                    store.note_step("r1", str(number), step, {}),
                )
            await store.aclose()

        asyncio.run(one())

    await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(3)))
    store = await RunStore(place).open()
    assert len(await store.store.asearch(("memory",), limit=100)) == 90
    await store.aclose()


async def test_a_run_that_is_cancelled_while_it_checkpoints_keeps_nobody_out(tmp_path: Path) -> None:
    store = await RunStore(tmp_path / "runs.db").open()
    saver: Any = store.checkpointer
    config: Any = {"configurable": {"thread_id": "r1", "checkpoint_ns": "", "checkpoint_id": "1"}}
    writing = asyncio.create_task(saver.aput_writes(config, [("count", 1)], "task"))
    while not saver.conn.in_transaction and not writing.done():  # noqa: ASYNC110 SQLite tells nobody.
        await asyncio.sleep(0)
    writing.cancel()
    with suppress(asyncio.CancelledError):
        await writing
    async with asyncio.timeout(5):
        await store.put(record("r1"))
    await store.aclose()


async def test_a_crew_asks_and_another_process_would_go_on(place: Path | str) -> None:
    def replies(request: ModelRequest) -> str:
        said = request.messages[-1].content
        return write_answer("blue") if "blue" in said else write_call("ask", {"question": "Which colour?"})

    worker = Agent(name="worker", instructions="Paint.", tools=("ask",))
    crew = Crew(name="paint", orchestrator=None, workers=(worker,), tools={"ask": ask()})
    async with Runtime(crew, model=ScriptedModel(replies), runs=RunStore(place)) as runtime:
        outcome = await runtime.run("Paint it.", run_id="p1")
    assert outcome.status == "needs_input"
    async with Runtime(crew, model=ScriptedModel(replies), runs=RunStore(place)) as runtime:
        outcome = await runtime.resume("p1", {"1/2": "blue"})
    assert (outcome.status, outcome.answer) == ("ok", "blue")


@pytest.mark.parametrize("text", ["a\0b", "half \ud800"])
async def test_what_not_every_store_can_keep_is_refused_in_one_line(text: str, place: Path | str) -> None:
    model = ScriptedModel([write_call("ask", {"question": "Which?"}), write_answer("blue")])
    worker = Agent(name="worker", instructions="Paint.", tools=("ask",))
    crew = Crew(name="paint", orchestrator=None, workers=(worker,), tools={"ask": ask()})
    async with Runtime(crew, model=model, runs=RunStore(place)) as runtime:
        with pytest.raises(ConfigError, match=r"the task holds .* take it out$"):
            await runtime.run(text)
        assert not model.requests
        await runtime.run("Paint the door.", run_id="r1")
        with pytest.raises(ConfigError, match=r"the answer holds .* take it out$"):
            await runtime.resume("r1", {"1/2": text})
        outcome = await runtime.resume("r1", {"1/2": r"\u0000 is how JSON writes it"})
    assert (outcome.status, outcome.answer) == ("ok", "blue")


async def test_a_null_character_in_what_others_said_ends_a_run_as_it_would_without(place: Path | str) -> None:
    def say(said: str) -> str:
        """Says it back."""
        return f"{said}\0"

    crew = Crew(
        name="crew",
        orchestrator=Agent(name="boss", instructions="Plan.", replans=0),
        workers=(Agent(name="worker", instructions="Work.", tools=("say", "remember")),),
        tools={"say": Tool(say), "remember": memory()[0]},
    )
    rows = [{"worker": "worker", "goal": "a\0b"}, {"worker": "worker", "goal": "two", "needs": [1]}]
    calls = [write_call("say", {"said": "\0"}), write_call("remember", {"text": "no\0te"})]
    broken = ModelError("no\0t now")
    replies: list[str | Message | Exception] = [json.dumps({"assignments": rows}), *calls, write_answer("done"), broken]
    task = Task(id="t", prompt="Do it.", session="s")
    async with Runtime(crew, model=ScriptedModel(replies), runs=RunStore(place)) as runtime:
        outcome = await runtime.run(task, run_id="r1")
        assert await runtime.run(task, run_id="r1") == outcome
    assert (outcome.status, outcome.answer, outcome.tool_calls) == ("failed", "", 2)
    assert outcome.error == "1 of 2 assignments did not end well; first: 2 (worker) failed: no\0t now"


@pytest.mark.parametrize("said", ["no\0t now", "JSON: no", 'JSON: "no\0"', "\N{SYMBOL FOR NULL}"])
async def test_what_was_said_is_the_same_in_a_checkpoint(said: str, runs: RunStore) -> None:
    class State(TypedDict):
        error: str

    def say(_: State) -> State:
        return State(error=said)

    graph: Any = StateGraph(State)
    graph.add_node("say", say)
    graph.add_edge(START, "say")
    graph.add_edge("say", END)
    compiled = graph.compile(checkpointer=runs.checkpointer)
    config = {"configurable": {"thread_id": "r1"}}
    await compiled.ainvoke({}, config)
    assert (await compiled.aget_state(config)).values == {"error": said}


async def test_a_lock_is_not_lost_where_postgres_ends_sessions_that_say_nothing(postgres: str) -> None:
    impatient = f"{postgres}&options=-cidle_session_timeout%3D200"
    async with aclosing(await RunStore(impatient).open()) as store, aclosing(await RunStore(postgres).open()) as other:
        async with store.lock("r1"):
            await asyncio.sleep(0.6)
            assert await other.alive("r1")
        assert not await other.alive("r1")
        await store.put(record("r1"))


async def test_when_postgres_drops_connections_what_goes_on_fails_and_the_next_run_works(postgres: str) -> None:
    async with aclosing(await RunStore(postgres).open()) as store:
        async with store.lock("r1"):
            drop_connections(postgres)
            # Its lock is gone with the connection: it must not write any more.
            with pytest.raises(StoreError, match="cannot be kept in Postgres"):
                await store.note_step("r1", "plan", 1, {})
        async with store.lock("r1"):
            await store.note_step("r1", "plan", 1, {})


async def test_a_lost_session_takes_its_locks_again_and_keeps_nobody_waiting(postgres: str) -> None:
    async with aclosing(await RunStore(postgres).open()) as store, aclosing(await RunStore(postgres).open()) as other:
        async with store.lock("r1"):
            drop_connections(postgres, "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')")
            async with store.lock("r2"):
                assert await other.alive("r1") and await other.alive("r2")
        assert not await other.alive("r1")


async def test_what_waits_for_work_while_postgres_is_started_anew_notices_nothing(postgres: str) -> None:
    async with Runtime(
        Crew(name="crew", orchestrator=None, workers=(Agent(name="w", instructions="Work."),)),
        model=ScriptedModel([write_answer("a"), write_answer("b")]),
        runs=RunStore(postgres),
    ) as runtime:
        await runtime.run("first")
        drop_connections(postgres)
        assert (await runtime.run("second")).answer == "b"


@pytest.mark.parametrize("hangs", [True, False])
async def test_a_run_that_lost_its_lock_gives_way_to_who_took_it_up(hangs: bool, postgres: str) -> None:
    sent: list[str] = []
    asked, freed = asyncio.Event(), asyncio.Event()

    def send(letter: str) -> str:
        """Sends a letter."""
        sent.append(letter)
        return "posted"

    class Stuck(ScriptedModel):
        async def complete(self, request: ModelRequest) -> ModelReply:
            asked.set()
            await freed.wait()
            return await super().complete(request)

    crew = Crew(
        name="crew",
        orchestrator=None,
        workers=(Agent(name="worker", instructions="Work.", tools=("send",)),),
        tools={"send": Tool(send, idempotent=False)},
    )
    replies = [write_call("send", {"letter": "a"}), write_answer("done")]
    run_id = uuid4().hex
    async with (
        Runtime(crew, model=Stuck(replies), runs=RunStore(postgres)) as first,
        Runtime(crew, model=ScriptedModel(replies), runs=RunStore(postgres)) as second,
    ):
        working = asyncio.create_task(first.run("Do it.", run_id=run_id))
        await asked.wait()
        drop_connections(postgres, "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')")
        taken_up = await second.run("Do it.", run_id=run_id)
        if not hangs:
            freed.set()
        with pytest.raises(StoreError, match=f"run {run_id} was taken up elsewhere"):
            await asyncio.wait_for(working, 20)
        kept = await second.find(run_id)
    assert sent == ["a"] and taken_up.answer == "done"
    assert kept is not None and kept.outcome == taken_up and kept.status == "ok"


async def test_a_run_whose_checkpoint_postgres_does_not_take_is_no_failed_run_and_goes_on(postgres: str) -> None:
    dropped: list[bool] = []

    def drop(answer: object, evidence: object) -> None:
        """Stands for what happens between two steps of the graph."""
        if not dropped:
            dropped.append(True)
            drop_connections(postgres)

    crew = Crew(name="crew", orchestrator=None, workers=(Agent(name="worker", instructions="Work."),), verify=(drop,))
    model = ScriptedModel([write_answer("done")])
    run_id = uuid4().hex
    async with Runtime(crew, model=model, runs=RunStore(postgres, durability="sync")) as runtime:
        with pytest.raises(StoreError, match=r"cannot be kept in Postgres at .*/postgres: "):
            await runtime.run("Do it.", run_id=run_id)
    async with Runtime(crew, model=model, runs=RunStore(postgres)) as runtime:
        assert (await runtime.resume(run_id)).answer == "done"


async def test_memory_that_cannot_be_reached_is_told_as_the_store_s_failure(postgres: str) -> None:
    async with aclosing(await RunStore(postgres).open()) as store:
        await store.store.aput(("memory", "x"), "1", {"text": "x"})
        drop_connections(postgres)
        with pytest.raises(StoreError, match="cannot be kept in Postgres"):
            await store.store.aput(("memory", "x"), "1", {"text": "y"})
        await store.store.aput(("memory", "x"), "1", {"text": "z"})


def drop_connections(postgres: str, which: LiteralString = "TRUE") -> None:
    import psycopg

    with closing(psycopg.connect(postgres, autocommit=True)) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            f" WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND {which}"
        )


async def test_a_store_is_opened_before_it_is_used(place: Path | str) -> None:
    with pytest.raises(StoreError, match="not open in this event loop"):
        await RunStore(place).find()


OPENER = """
import asyncio, sys
from journeyman.runtime.store.run_store import RunStore

async def work():
    runs = await RunStore(sys.argv[1]).open()
    await runs.aclose()

asyncio.run(work())
"""


async def test_several_processes_may_make_the_tables_at_once(place: Path | str) -> None:
    children = [
        await asyncio.create_subprocess_exec(sys.executable, "-W", "error", "-c", OPENER, str(place)) for _ in range(2)
    ]
    assert [await child.wait() for child in children] == [0, 0]


async def test_a_place_that_cannot_be_opened_leaves_no_thread_behind(tmp_path: Path) -> None:
    (tmp_path / "runs.db").mkdir()
    for _ in range(20):
        with pytest.raises(StoreError, match="unable to open"):
            await RunStore(tmp_path / "runs.db").open()
        # One that still runs would want to tell an event loop, which may be closed by then.
        assert not [thread for thread in threading.enumerate() if "_connection_worker_thread" in thread.name]


async def test_locks_that_cannot_be_kept_are_told_and_only_while_it_is_so(
    tmp_path: Path,
) -> None:
    store, locks = RunStore(tmp_path / "runs.db"), tmp_path / "runs.db.locks"
    locks.write_text("in the way")
    with pytest.raises(StoreError, match=r"runs\.db\.locks"):
        await store.open()
    locks.unlink()
    async with aclosing(await store.open()):
        locks.rmdir()
        locks.write_text("in the way again")
        with pytest.raises(StoreError, match=r"runs\.db\.locks"):
            async with store.lock("r1"):
                pass


FULL_DISK = """
import asyncio, resource, signal, sys
from pathlib import Path
from journeyman.runtime.store.run_store import RunStore
from journeyman.traces.errors import StoreError

async def opened(place):
    try:
        await (await RunStore(place).open()).aclose()
        return "opened"
    except StoreError:
        return "told"

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for kilobytes in range(0, 400, 25):
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, resource.RLIM_INFINITY))
    print(asyncio.run(opened(Path(sys.argv[1], f"{kilobytes}.db"))))
"""


async def test_a_disk_that_is_full_while_the_tables_are_made_is_told_in_one_line(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", FULL_DISK, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await child.communicate()
    assert child.returncode == 0 and set(printed.split()) == {b"told", b"opened"}


async def test_a_store_that_nobody_closed_lets_the_process_end(tmp_path: Path) -> None:
    forgetful = OPENER.replace("    await runs.aclose()", "    globals()['kept'] = runs")
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", forgetful, str(tmp_path / "runs.db"), stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(20):
        assert await child.wait() == 0


def test_an_address_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="mysql://"):
        RunStore("mysql://ann:secret@host/runs")


@pytest.mark.parametrize("place", ["", "postgresql:/h/runs", ":memory:", "file:runs.db"])
def test_what_only_sqlite_calls_a_place_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="give a path"):
        RunStore(place)


async def test_a_store_stays_where_it_was_named_whatever_folder_the_process_works_in_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    runs = RunStore("runs.db")
    monkeypatch.chdir("elsewhere")
    await runs.open()
    await runs.aclose()
    assert (tmp_path / "runs.db").exists() and not list((tmp_path / "elsewhere").iterdir())


async def test_what_is_no_database_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs.db").write_text("no database" * 100)
    with pytest.raises(StoreError, match=r"cannot be kept in .*runs\.db: file is not a database$"):
        await RunStore(tmp_path / "runs.db").open()
    with pytest.raises(StoreError, match="cannot be kept in"):
        await RunStore(tmp_path / "runs.db" / "below.db").open()


async def test_a_server_that_does_not_answer_is_told_without_its_password(free_port: int) -> None:
    with pytest.raises(StoreError) as caught:
        await RunStore(f"postgresql://ann:secret@127.0.0.1:{free_port}/runs").open()
    assert f"Postgres at 127.0.0.1:{free_port}/runs" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "ann:sec ret@h/runs",
        "ann:se%zzcret@h/runs",
        "ann:x@secret@h/runs",
        "ann:x/secret@h/runs",
        "ann:secret@[::1/runs",
    ],
)
async def test_an_address_that_cannot_be_read_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="%40 for @") as refused:
        await RunStore(f"postgresql://{url}").open()
    assert not {"ret", "secret"} & set(re.split(r"\W", str(refused.value))) and "\n" not in str(refused.value)


async def test_a_record_of_another_version_is_told_in_one_line(tmp_path: Path) -> None:
    store = await RunStore(tmp_path / "runs.db").open()
    await store.put(record("r1"))
    with closing(sqlite3.connect(tmp_path / "runs.db", isolation_level=None)) as connection:
        connection.execute("UPDATE journeyman_runs SET record = '{\"future\": 1}'")
    with pytest.raises(StoreError, match="another version of journeyman"):
        await store.get("r1")
    await store.aclose()


async def test_the_workspace_names_the_store(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / ".journeyman")
    await _open_and_close(workspace.runs)
    assert (tmp_path / ".journeyman" / "runs.db").exists()
    (tmp_path / PROJECT_FILE).write_text('[runs]\nstore = "kept/all.db"\ndurability = "sync"\nkeep_days = 3\n')
    await _open_and_close(workspace.runs)
    assert (tmp_path / "kept" / "all.db").exists()
    assert workspace.runs.durability == "sync"


async def test_what_a_kill_left_of_a_store_that_was_being_made_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "runs.db.new").write_text("half of a database")
    (tmp_path / "runs.db.new-wal").write_text("and more of it")
    store = await RunStore(tmp_path / "runs.db").open()
    assert await store.find() == []
    await store.aclose()
    assert not (tmp_path / "runs.db.new").exists()


@pytest.mark.parametrize("error", [ModelError("half \ud800"), RuntimeError("half \ud800")])
@pytest.mark.parametrize("plans", [True, False])
async def test_half_a_character_in_an_error_ends_a_run_as_it_would_without(
    error: Exception, plans: bool, place: Path | str
) -> None:
    worker = Agent(name="worker", instructions="Work.")
    boss = Agent(name="boss", instructions="Plan.") if plans else None
    crew = Crew(name="crew", orchestrator=boss, workers=(worker,))
    async with Runtime(crew, model=ScriptedModel([error]), runs=RunStore(place)) as runtime:
        outcome = await runtime.run("Do it.", run_id="r1")
        assert await runtime.run("Do it.", run_id="r1") == outcome
    assert outcome.status == "failed"
    assert (outcome.error or "").endswith("half ?")
