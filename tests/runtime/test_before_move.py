"""A workspace that was kept before the modules moved: what was interrupted then goes on now, and nothing is done twice.

`tests/data/before_move` was made by the code of commit 706b256, with the crew of this module: it can't be made again.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from shutil import copytree

import pytest

from journeyman.agents.agent import Agent, Crew, MemoryConfig
from journeyman.agents.guards.checks import PersonalData
from journeyman.agents.guards.guardrails import Guardrail
from journeyman.agents.model import ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.adapters.adapter import find_adapter, load_adapter
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.batch import open_batch, read_tasks
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.memory import Memory
from journeyman.runtime.store.questions import Consent
from journeyman.runtime.workspace import Workspace
from journeyman.tools.tool import Tool
from journeyman.traces.trace import Outcome, Task, Trace, ending

RECORDED = Path(__file__).parents[1] / "data" / "before_move"

LETTERS = Task(id="letters", prompt="Write to all, copies to jo@example.org.", session="desk", user="ann")
NEWS = Task(id="news", prompt="Publish the news.", session="desk", user="ann")
PLANS = {
    "Who are our customers?": [{"worker": "finder", "goal": "customers"}],
    "Who left us?": [
        {"worker": "finder", "goal": "lost list"},
        {"worker": "clerk", "goal": "write to {1}", "needs": [1]},
    ],
    "Write to all, copies to [redacted:contact].": [
        {"worker": "finder", "goal": "customers"},
        {"worker": "clerk", "goal": "write to {1}", "each": 1},
        {"worker": "finder", "goal": "replies after {2}", "needs": [2]},
    ],
    "Publish the news.": [
        {"worker": "finder", "goal": "news"},
        {"worker": "clerk", "goal": "publish {1}", "needs": [1]},
    ],
}
REPLAN = [{"worker": "finder", "goal": "archive", "replaces": "1"}]
FOUND = {"customers": "Ada, Ann, Bob, Cid, Dan", "archive": "Eve", "news": "We moved"}


def says(request: ModelRequest) -> str:
    """Plans, looks up, writes or publishes what each agent's goal says, and answers with what came of it."""
    system, last = request.messages[0].content, request.messages[-1].content
    if system.startswith("Plan."):
        return json.dumps({"assignments": PLANS.get(last, REPLAN)})
    tool, colon, result = last.partition(": ")
    if system.startswith("Find."):
        if last == "lost list" or "not usable" in last:
            return "I do not know."
        return write_answer(result.split(", ")) if colon and tool == "look" else write_call("look", {"what": last})
    if colon and tool in ("write", "publish"):
        return write_answer(result if result.startswith(("wrote", "published")) else f"Sorry: {result}")
    verb, _, rest = last.partition(" ")
    return (
        write_call("write", {"to": rest.removeprefix("to ")})
        if verb == "write"
        else write_call("publish", {"text": rest})
    )


class Office:
    """A crew whose tools note in a file what they did; `on_write` is called in the midst of a writing."""

    def __init__(self, folder: Path, on_write: Callable[[str], None] = lambda to: None) -> None:
        self._done = folder / "done"
        self._on_write = on_write
        tools = {
            "look": Tool(self.look),
            "write": Tool(self.write, writes=True),
            "publish": Tool(self.publish, writes=True, approve=True),
        }
        self.crew = Crew(
            name="office",
            orchestrator=Agent(name="boss", instructions="Plan.", replans=1),
            workers=(
                Agent(name="finder", instructions="Find.", tools=("look",), output="values"),
                Agent(name="clerk", instructions="Write.", tools=("write", "publish")),
            ),
            tools=tools,
            guardrails=(Guardrail(name="contact", check=PersonalData(), at=("task",), action="redact"),),
            memory=MemoryConfig(turns=8),
        )

    @property
    def done(self) -> list[str]:
        return self._done.read_text().splitlines()

    def look(self, what: str) -> str:
        """Looks something up."""
        self._note(f"look {what}")
        return FOUND.get(what, f"seen: {what}")

    def write(self, to: str) -> str:
        """Writes to somebody."""
        self._note(f"write {to}")
        self._on_write(to)
        return f"wrote to {to}"

    def publish(self, text: str) -> str:
        """Publishes a text."""
        self._note(f"publish {text}")
        return f"published {text}"

    def _note(self, line: str) -> None:
        with self._done.open("a") as file:
            file.write(f"{line}\n")


class Copy:
    """The workspace in a folder of its own, and a runtime on it."""

    def __init__(self, folder: Path, recording: Recording) -> None:
        self.workspace = Workspace(folder / "workspace")
        self.outcomes = folder / "outcomes.jsonl"
        self.tasks = read_tasks(folder / "tasks.jsonl")[0]
        self.office = Office(folder)
        self.model = ScriptedModel(says)
        self.runtime = Runtime(self.office.crew, model=self.model, tracer=recording.tracer, runs=self.workspace.runs)
        self._before = Counter(self.office.done)
        # The name of a batch lies under a digest of where its outcomes are, and they are here now.
        here = sha256(os.fsencode(self.outcomes.resolve())).hexdigest()[:32]
        (self.workspace.batches / "outcomes").rename(self.workspace.batches / here)

    @property
    def done(self) -> list[str]:
        """What tools did since, sorted, because workers work side by side."""
        return sorted((Counter(self.office.done) - self._before).elements())

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Policy and last message of each request, sorted."""
        return sorted((request.policy, request.messages[-1].content) for request in self.model.requests)

    def trace(self, outcome: Outcome) -> Trace:
        """What the record has of a run, from its first part on."""
        return self.workspace.store.get(outcome.trace_id)


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    folder = Path(copytree(RECORDED, tmp_path / "copy"))
    with Recording(Workspace(folder / "workspace")) as recording:
        yield Copy(folder, recording)


async def test_what_was_interrupted_is_found(copy: Copy) -> None:
    async with copy.runtime as runtime:
        left = {known.task.id: known.status for known in await runtime.left()}
    assert left == {"paused": "paused", "news": "needs_input", "letters": "running"}


async def test_a_run_that_was_killed_in_a_fan_out_goes_on_where_it_was(copy: Copy) -> None:
    async with copy.runtime as runtime:
        outcome = await runtime.run(LETTERS, run_id="letters")
    assert outcome.status == "ok" and outcome.error is None
    assert outcome.answer.startswith(
        "seen: replies after wrote to Ada, wrote to Ann, wrote to Bob, Sorry: write was begun before"
    )
    assert outcome.answer.endswith("wrote to Dan")
    # Ada and Ann were done, Bob had his letter; whether Cid has his nobody knows, and nobody writes to him again.
    assert copy.done == [f"look {outcome.answer.removeprefix('seen: ')}", "write Dan"]
    assert Counter(copy.office.done)["write Cid"] == 1
    clerk = [last.partition(" was begun")[0] for policy, last in copy.asked if policy == "clerk@1"]
    assert clerk == ["write to Dan", "write: write", "write: wrote to Bob", "write: wrote to Dan"]
    assert len(copy.asked) == 6 and (outcome.model_calls, outcome.tool_calls) == (15, 7)


async def test_both_parts_of_a_killed_run_are_one_trace(copy: Copy) -> None:
    (unfinished,) = (trace for trace in copy.workspace.store.traces() if ending(trace) == "unfinished")
    async with copy.runtime as runtime:
        outcome = await runtime.resume("letters")
    trace = copy.trace(outcome)
    assert trace.trace_id == unfinished.trace_id and trace.outcome is not None and trace.task == LETTERS
    assert len(unfinished.turns) == 9 and len(trace.turns) == outcome.model_calls
    calls = [call.status for turn in trace.turns for call in turn.tool_results]
    assert Counter(calls) == {"ok": 6, "unknown": 1}
    decisions = json.loads(json.dumps(trace.decisions))
    assert [(one["name"], one["action"]) for one in decisions] == [("contact", "redact")]


async def test_a_call_that_waits_for_a_person_is_made_once_it_is_approved(copy: Copy) -> None:
    async with copy.runtime as runtime:
        known = await runtime.find("news")
        assert known is not None and copy.asked == []
        (question,) = known.pending
        assert (question.kind, question.tool, question.arguments) == ("approve_call", "publish", {"text": "We moved"})
        assert [decision.source for decision in question.decisions] == ["permission"]
        outcome = await runtime.resume("news", {question.id: Consent(approved=True)})
    assert (outcome.status, outcome.answer) == ("ok", "published We moved")
    assert copy.done == ["publish We moved"]
    assert copy.asked == [("clerk@1", "publish: published We moved")]
    trace = copy.trace(outcome)
    assert len(trace.turns) == outcome.model_calls == 5


async def test_a_call_that_a_person_refuses_is_not_made(copy: Copy) -> None:
    async with copy.runtime as runtime:
        outcome = await runtime.resume("news", {"2/2": Consent(approved=False, reason="too early")})
    assert copy.done == [] and "too early" in outcome.answer


async def test_a_run_that_was_drained_amid_a_replan_goes_on_with_the_batch_that_it_is_of(copy: Copy) -> None:
    async with copy.runtime as runtime:
        with open_batch(copy.workspace, copy.outcomes, copy.tasks) as batch:
            assert list(batch.done) == ["answered"]
            outcome = await runtime.run(copy.tasks[1], run_id=batch.run_id("office", copy.tasks[1]))
            batch.add(outcome)
    assert (outcome.status, outcome.answer, outcome.error) == ("ok", "wrote to Eve", None)
    # The plan, the replan and the work that failed are known.
    finder = [("base", "archive"), ("base", "look: Eve")]
    assert copy.asked == [*finder, ("clerk@1", "write to Eve"), ("clerk@1", "write: wrote to Eve")]
    assert copy.done == ["look archive", "write Eve"]
    assert len(copy.trace(outcome).turns) == outcome.model_calls == 9
    assert list(copy.workspace.batches.iterdir()) == []


async def test_a_run_that_ended_gives_back_its_outcome(copy: Copy) -> None:
    task = copy.tasks[0]
    async with copy.runtime as runtime:
        with open_batch(copy.workspace, copy.outcomes, copy.tasks) as batch:
            assert await runtime.run(task, run_id=batch.run_id("office", task)) == batch.done["answered"]
    assert copy.asked == [] and copy.done == []


def test_the_record_reads_whole(copy: Copy) -> None:
    store = copy.workspace.store
    traces = {trace.task.id if trace.task else None: trace for trace in store.traces()}
    assert not store.damage
    assert {name: ending(trace) for name, trace in traces.items()} == {
        "answered": "ok",
        "paused": "paused",
        "news": "needs_input",
        None: "unfinished",
    }
    score = traces["answered"].label("score")
    assert score is not None and score.value == 1.0
    assert list(copy.workspace.spans.glob("segments/*/*.parquet")), "three of them lie in a segment"


def test_the_adapter_that_was_promoted_is_in_service(copy: Copy) -> None:
    journal = Journal(copy.workspace.journal)
    assert journal.active() == {"clerk": "clerk@1"} and journal.state("clerk@1") == "active"
    adapter = load_adapter(find_adapter(copy.workspace.adapters, "clerk@1"))
    assert journal.latest()["clerk"].digest == adapter.digest


async def test_the_session_and_what_was_noted_are_remembered(copy: Copy) -> None:
    async with copy.runtime as runtime:
        outcome = await runtime.run(Task(id="new", prompt="Who are our customers?", session="desk", user="ann"))
        assert await Memory(runtime.runs).noted(LETTERS) == ["ann likes short letters"]
    assert outcome.status == "ok"
    earlier = [message.content for message in copy.model.requests[0].messages[1:-1]]
    assert earlier == ["Who are our customers?", "Ada, Ann, Bob, Cid, Dan"]
