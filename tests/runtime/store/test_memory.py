"""Memory: a session's turns come back trimmed, notes belong to one person, and both can be deleted."""

import asyncio
import threading
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest

from journeyman.agents.agent import Agent, Crew, MemoryConfig
from journeyman.agents.guards.checks import PersonalData
from journeyman.agents.guards.guardrails import Guardrail
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.memory import DAY_NS, Memory, MemoryLimits, Remembered, trimmed
from journeyman.runtime.store.run_store import RunStore
from journeyman.tools.memory import memory_tools
from journeyman.tools.tool import toolbox
from journeyman.traces.errors import ModelError
from journeyman.traces.trace import Task

WIDE = MemoryConfig(turns=8, max_tokens=100_000)


def task(prompt: str = "And now?", *, session: str | None = "s1", user: str | None = "ann@example.com") -> Task:
    return Task(id="t", prompt=prompt, session=session, user=user)


@pytest.fixture
async def memory(tmp_path: Path) -> AsyncIterator[Memory]:
    """In SQLite, as a workspace has it."""
    runs = RunStore(tmp_path / "runs.db")
    ticks = count(1)
    yield Memory(runs, WIDE, clock=lambda: next(ticks))
    await runs.aclose()


async def said(memory: Memory, asked: Task) -> list[str]:
    return [message.content for message in await memory.turns(asked)]


async def test_earlier_turns_of_a_session_come_back_in_their_order(memory: Memory) -> None:
    await memory.add(task("Who made Jaws?"), "Spielberg", run_id="b")
    await memory.add(task("And Alien?"), "Scott", run_id="a")
    messages = await memory.turns(task())
    assert [message.role for message in messages] == ["user", "assistant"] * 2
    assert [message.content for message in messages] == ["Who made Jaws?", "Spielberg", "And Alien?", "Scott"]


async def test_another_session_and_another_user_see_none_of_them(memory: Memory) -> None:
    await memory.add(task(), "Scott", run_id="a")
    assert await memory.turns(task(session="s2")) == ()
    assert await memory.turns(task(user="bob")) == ()
    assert await memory.turns(task(user=None)) == ()
    assert await memory.turns(task(session=None)) == ()


def test_threads_share_what_no_store_keeps() -> None:
    memory, failed = Memory(config=WIDE), []

    def talk(name: str) -> None:
        async def sessions() -> None:
            for number in range(100):
                await memory.add(task(session=f"{name} {number}"), "Scott", run_id="a")
                await memory.find()

        try:
            asyncio.run(sessions())
        except RuntimeError as error:
            failed.append(error)

    threads = [threading.Thread(target=talk, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(asyncio.run(memory.find())) == 400


async def test_a_run_that_is_taken_up_again_adds_its_turn_once(memory: Memory) -> None:
    for _ in range(2):
        await memory.add(task(), "Scott", run_id="a")
    assert len(await memory.turns(task())) == 2


async def test_a_crew_without_a_memory_table_is_shown_nothing() -> None:
    silent = Memory()
    await silent.add(task(), "Scott", run_id="a")
    assert await silent.turns(task()) == ()
    assert await silent.find() == []


async def test_past_the_limit_the_older_half_goes_so_that_prompts_keep_their_start(tmp_path: Path) -> None:
    memory = Memory(config=MemoryConfig(turns=4))
    starts = []
    for number in range(12):
        await memory.add(task(f"q{number}"), "a", run_id=f"r{number:02}")
        starts.append((await said(memory, task()))[0])
    assert starts == ["q0"] * 4 + ["q3"] * 3 + ["q6"] * 3 + ["q9"] * 2
    assert len(await memory.find()) == 3


def turn(text: str, at_ns: int = 1) -> Remembered:
    return Remembered(kind="turn", key=text, user=None, session="s", text=text, answer="", at_ns=at_ns)


@pytest.mark.parametrize(
    ("turns", "kept"),
    [
        (["a" * 40, "b" * 40], 2),
        (["a" * 40, "b" * 48], 1),
        (["a" * 40, "b" * 40, "c" * 800], 1),
        (["a" * 800], 1),
        ([], 0),
    ],
)
def test_turns_are_trimmed_to_their_tokens(turns: list[str], kept: int) -> None:
    left = trimmed([turn(text) for text in turns], MemoryConfig(turns=8, max_tokens=20))
    assert [one.text for one in left] == turns[len(turns) - kept :]


async def test_of_a_turn_that_is_longer_than_all_may_be_the_beginnings_come_back(tmp_path: Path) -> None:
    runs = RunStore(tmp_path / "runs.db")
    memory = Memory(runs, MemoryConfig(turns=8, max_tokens=20))
    await memory.add(task("I am Ann."), "Hello Ann", run_id="a")
    await memory.add(task("Tell me of it: " + "q" * 400), "It is so: " + "a" * 400, run_id="b")
    assert await said(memory, task()) == ["Tell me of it: " + "q" * 25 + " […]", "It is so: " + "a" * 30 + " […]"]
    await memory.add(task("Shorter?"), "No: " + "a" * 400, run_id="c")
    assert await said(memory, task()) == ["Shorter?", "No: " + "a" * 68 + " […]"]
    await runs.aclose()


async def test_notes_are_kept_by_user_over_all_sessions(memory: Memory) -> None:
    notes = memory.notes(task())
    elsewhere = memory.notes(task(session="s2"))
    assert notes is not None and elsewhere is not None
    await notes.add("Ann likes tea.")
    await elsewhere.add("Ann is from Graz.")
    await elsewhere.add("Ann likes tea.")
    assert sorted(await notes.all()) == ["Ann is from Graz.", "Ann likes tea."]
    assert (await notes.all())[0] == "Ann likes tea."
    others = memory.notes(task(user="ann@example", session="s1"))
    assert others is not None
    assert await others.all() == []


async def test_without_a_user_notes_belong_to_the_session_and_without_both_there_are_none(memory: Memory) -> None:
    first, second = memory.notes(task(user=None)), memory.notes(task(user=None, session="s2"))
    assert first is not None and second is not None
    await first.add("Green.")
    assert await first.all() == ["Green."]
    assert await second.all() == []
    assert memory.notes(task(user=None, session=None)) is None


@pytest.mark.parametrize(("limits", "most"), [(None, 500), (MemoryLimits(notes=3), 3)])
async def test_a_note_beyond_the_limit_takes_the_place_of_the_oldest(limits: MemoryLimits | None, most: int) -> None:
    ticks = count(1)
    memory = Memory(limits=limits, clock=lambda: next(ticks))
    for number in range(most + 2):
        await memory.note(task(), f"note {number}")
    kept = await memory.noted(task())
    assert (len(kept), kept[0], kept[-1]) == (most, f"note {most + 1}", "note 2")


class Calendar:
    """A clock that stands still until a day is named."""

    def __init__(self) -> None:
        self.day = 20_000

    def __call__(self) -> int:
        return self.day * DAY_NS


async def test_what_is_older_than_the_days_it_is_kept_is_shown_to_nobody_and_then_deleted(place: Path | str) -> None:
    today = Calendar()
    runs = RunStore(place)
    memory = Memory(runs, WIDE, MemoryLimits(keep_days=30), clock=today)
    for user in ("ann", "bob"):
        await memory.add(task("Who?", user=user), "Scott", run_id=user)
        await memory.note(task(user=user), "old")
    today.day += 20
    await memory.add(task("When?", user="ann"), "1979", run_id="later")
    await memory.note(task(user="ann"), "new")
    assert await memory.noted(task(user="ann")) == ["new", "old"]
    today.day += 11
    assert await memory.noted(task(user="ann")) == ["new"]
    assert await said(memory, task(user="ann")) == ["When?", "1979"]
    assert len(await memory.find()) == 6
    await memory.note(task(user="eve"), "here")
    assert sorted(entry.text for entry in await memory.find()) == ["When?", "here", "new"]
    await runs.aclose()


async def test_days_that_reach_back_to_the_beginning_of_time_forget_nothing(place: Path | str) -> None:
    today = Calendar()
    runs = RunStore(place)
    memory = Memory(runs, limits=MemoryLimits(keep_days=today.day - 0.5), clock=today)
    await memory.note(task(), "tea")
    assert await memory.noted(task()) == ["tea"]
    await runs.aclose()


async def test_a_note_that_is_made_again_is_young_again() -> None:
    today = Calendar()
    memory = Memory(limits=MemoryLimits(keep_days=30), clock=today)
    await memory.note(task(), "tea")
    today.day += 29
    await memory.note(task(), "tea")
    today.day += 29
    assert await memory.noted(task()) == ["tea"]


async def test_forgetting_a_user_leaves_the_others(memory: Memory) -> None:
    for user in ("ann", "bob", "ann.b"):
        await memory.add(task(user=user), "Scott", run_id=user)
        await memory.note(task(user=user), f"{user} is here")
    assert await memory.forget(user="ann") == 2
    assert {entry.user for entry in await memory.find()} == {"bob", "ann.b"}
    assert await memory.noted(task(user="bob")) == ["bob is here"]
    assert await memory.forget(user="ann") == 0


async def test_forgetting_a_session_forgets_the_notes_made_in_it(memory: Memory) -> None:
    await memory.note(task(session="s1"), "one")
    await memory.note(task(session="s2"), "two")
    assert await memory.forget(session="s1") == 1
    assert await memory.noted(task()) == ["two"]


async def test_more_is_found_than_a_page_holds(memory: Memory) -> None:
    for number in range(505):
        await memory.note(task(user=f"u{number}"), "here")
    assert len(await memory.find()) == 505
    assert await memory.forget() == 505
    assert await memory.find() == []


async def test_what_one_process_remembered_another_one_finds(tmp_path: Path) -> None:
    first, second = RunStore(tmp_path / "runs.db"), RunStore(tmp_path / "runs.db")
    await Memory(first, WIDE).add(task("Who?"), "Scott", run_id="a")
    await first.aclose()
    assert await said(Memory(second, WIDE), task()) == ["Who?", "Scott"]
    await second.aclose()


def crew(*, orchestrated: bool = False) -> Crew:
    worker = Agent(name="w", instructions="Work.", tools=tuple(toolbox("notes", memory_tools())))
    return Crew(
        name="c",
        orchestrator=Agent(name="orchestrator", instructions="Plan.") if orchestrated else None,
        workers=(worker,),
        tools=toolbox("notes", memory_tools()),
        memory=WIDE,
    )


async def test_a_single_agent_is_shown_the_session_before_its_task(tmp_path: Path) -> None:
    model = ScriptedModel([write_answer("Spielberg"), ModelError("gone"), write_answer("1975")])
    async with Runtime(crew(), model=model, runs=RunStore(tmp_path / "runs.db")) as runtime:
        for prompt in ("Who made Jaws?", "And Alien?", "When?"):
            await runtime.run(task(prompt))
    # A run that failed is no turn of the conversation.
    assert [message.content for message in model.requests[-1].messages[1:]] == ["Who made Jaws?", "Spielberg", "When?"]


async def test_of_a_team_the_orchestrator_is_shown_the_session_and_no_worker(tmp_path: Path) -> None:
    plan = '{"assignments": [{"worker": "w", "goal": "do it"}]}'
    model = ScriptedModel([plan, write_answer("a"), plan, write_answer("b")])
    runtime = Runtime(crew(orchestrated=True), model=model)
    for prompt in ("first", "second"):
        await runtime.run(task(prompt))
    planning, working = model.requests[2:]
    assert [message.content for message in planning.messages[1:]] == ["first", "a", "second"]
    assert [message.content for message in working.messages[1:]] == ["do it"]


async def test_what_a_guardrail_took_out_of_a_task_does_not_come_back_with_the_next_one() -> None:
    hiding = Guardrail(name="data", check=PersonalData(), at=("task",), action="redact")
    model = ScriptedModel([write_answer("noted"), write_answer("b")])
    runtime = Runtime(crew().model_copy(update={"guardrails": (hiding,)}), model=model)
    for prompt in ("I am ann@example.com", "Who am I?"):
        await runtime.run(task(prompt))
    assert [message.content for message in model.requests[1].messages[1:3]] == ["I am [redacted:data]", "noted"]


async def test_what_an_agent_remembers_it_recalls_in_another_run_for_that_user_alone(tmp_path: Path) -> None:
    async def told(user: str, *replies: str) -> str:
        model = ScriptedModel(replies)
        async with Runtime(crew(), model=model, runs=RunStore(tmp_path / "runs.db")) as runtime:
            outcome = await runtime.run(task(user=user, session=None))
        assert outcome.status == "ok", outcome.error
        return model.requests[-1].messages[-1].content

    kept = await told("ann", write_call("notes_remember", {"text": "Ann drinks tea."}), write_answer("done"))
    assert kept == "notes_remember: remembered"
    recall = write_call("notes_recall", {"query": "tea"})
    assert await told("ann", recall, write_answer("tea")) == "notes_recall: Ann drinks tea."
    assert await told("bob", recall, write_answer("?")) == "notes_recall: nothing found"
