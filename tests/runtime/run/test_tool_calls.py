"""Calls of tools that may be made once only: whoever asks again, the call is not made again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.run.events import PlanMade
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.run_store import RunStore
from journeyman.tools.context import ToolContext
from journeyman.tools.tool import Tool
from journeyman.traces.errors import ToolError
from journeyman.traces.messages import Message, ToolCall
from journeyman.traces.trace import Task


class Desk:
    """Books, and then says that it went well, or that it failed."""

    def __init__(self, fails: bool = False) -> None:
        self.booked: list[str] = []
        self.keys: list[str] = []
        self._fails = fails

    def crew(self, **options: Any) -> Crew:
        tool = Tool(self._book, name="book", description="Books a seat.", writes=True, **options)
        worker = Agent(name="clerk", instructions="Book.", tools=("book",), limits=Limits(turns=4))
        return Crew(name="desk", orchestrator=None, workers=(worker,), tools={"book": tool})

    def _book(self, seat: str, context: ToolContext) -> str:
        self.booked.append(seat)
        self.keys.append(context.key)
        if self._fails:
            raise ToolError("the line went dead")
        return f"seat {seat} is yours"


def shown(model: ScriptedModel) -> Sequence[str]:
    return [message.content for message in model.requests[-1].messages if message.content.startswith("book: ")]


async def test_a_model_that_asks_again_is_told_what_the_first_call_said() -> None:
    desk, model = Desk(), ScriptedModel([write_call("book", {"seat": "4A"})] * 2 + [write_answer("4A")])
    outcome = await Runtime(desk.crew(), model=model).run("Book 4A.")
    assert (outcome.answer, desk.booked, outcome.tool_calls) == ("4A", ["4A"], 1)
    assert "seat 4A is yours" in shown(model)[1]
    assert "not called again" in shown(model)[1]


async def test_a_default_that_is_written_down_makes_no_other_call() -> None:
    desk = Desk()

    def book(seat: str, context: ToolContext, row: int = 1, meals: tuple[str, ...] = ()) -> str:
        return desk._book(f"{row}{seat}", context)

    crew = desk.crew().model_copy(update={"tools": {"book": Tool(book, writes=True)}})
    asked = [{"seat": "A"}, {"seat": "A", "row": 1}, {"meals": [], "seat": "A"}, {"seat": "A", "row": 2}]
    model = ScriptedModel([json.dumps([{"book": arguments} for arguments in asked]), write_answer("two")])
    clerk = crew.workers[0].model_copy(update={"parallel_calls": 4})
    await Runtime(crew.model_copy(update={"workers": (clerk,)}), model=model).run("Book two.")
    assert desk.booked == ["1A", "2A"]
    assert len(set(desk.keys)) == 2


async def test_a_call_that_failed_may_have_taken_effect_and_is_not_made_again() -> None:
    desk, model = Desk(fails=True), ScriptedModel([write_call("book", {"seat": "4A"})] * 2 + [write_answer("none")])
    await Runtime(desk.crew(), model=model).run("Book 4A.")
    assert desk.booked == ["4A"]
    assert "may have taken effect" in shown(model)[1]


@pytest.mark.parametrize("second", [{"seat": "4B"}, {"seat": "4A", "row": 1}])
async def test_another_call_of_the_tool_is_made(second: dict[str, Any]) -> None:
    calls = [write_call("book", {"seat": "4A"}), write_call("book", second), write_call("book", {"seat": "4C"})]
    desk, model = Desk(), ScriptedModel([*calls, write_answer("two")])
    await Runtime(desk.crew(), model=model).run("Book two.")
    assert desk.booked == (["4A", "4B", "4C"] if "row" not in second else ["4A", "4C"])


async def test_an_idempotent_tool_is_called_as_often_as_it_is_asked_for() -> None:
    desk, model = Desk(), ScriptedModel([write_call("book", {"seat": "4A"})] * 2 + [write_answer("4A")])
    await Runtime(desk.crew(idempotent=True), model=model).run("Book 4A.")
    assert desk.booked == ["4A", "4A"]


async def test_the_key_of_a_call_that_is_made_once_is_the_same_for_whoever_asks_for_it(tmp_path: Path) -> None:
    def says(number: int) -> ScriptedModel:
        calls = [write_call("book", {"seat": seat}) for seat in ("4A", "4B")[:: 1 if number else -1]]
        return ScriptedModel([*calls, write_answer("both")])

    keys = []
    for number in (0, 1):
        desk = Desk()
        # As after a power loss that took the run's last steps: the model is asked anew, and says it in another order.
        async with Runtime(desk.crew(), model=says(number), runs=RunStore(tmp_path / f"{number}.db")) as runtime:
            await runtime.run(Task(id="t", prompt="Book both."), run_id="r")
        keys.append(dict(zip(desk.booked, desk.keys, strict=True)))
    assert keys[0] == keys[1]
    assert keys[0]["4A"] != keys[0]["4B"]


async def test_a_call_that_may_be_made_again_has_a_key_for_each_time_that_it_is_asked_for() -> None:
    desk, model = Desk(), ScriptedModel([write_call("book", {"seat": "4A"})] * 2 + [write_answer("4A")])
    await Runtime(desk.crew(idempotent=True), model=model).run("Book 4A.")
    assert len(set(desk.keys)) == 2


def plan(*rows: dict[str, str]) -> str:
    return json.dumps({"assignments": [{"worker": "clerk", **row} for row in rows]})


def books_in_vain(request: ModelRequest) -> str:
    """The first worker fails before it has booked, its replacement after it, the third one books and is content."""
    goal, last = request.messages[1].content, request.messages[-1].content
    if goal == "I want 4A.":
        if "What came of your plan" not in last:
            return plan({"goal": "Book 4A."})
        if '"Ask around."' not in request.messages[-2].content:
            return plan({"goal": "Book it now.", "replaces": "1"}, {"goal": "Ask around."})
        return plan({"goal": "Book it again.", "replaces": "1"})
    if goal == "Ask around.":
        return write_answer("4A is fine")
    if goal == "Book 4A." or "yours" in last or "Your last" in last:
        return write_answer("4A") if goal == "Book it again." else "hm"
    return write_answer("4A") if "not called again" in last else write_call("book", {"seat": "4A"})


async def test_a_second_replacement_does_not_do_again_what_the_first_did_in_another_process(tmp_path: Path) -> None:
    desk, runs = Desk(), tmp_path / "runs.db"
    crew = desk.crew().model_copy(update={"orchestrator": Agent(name="boss", instructions="Plan.", replans=2)})
    async with Runtime(crew, model=ScriptedModel(books_in_vain), runs=RunStore(runs)) as runtime:
        async for event in runtime.stream(Task(id="t", prompt="I want 4A."), run_id="r"):
            if isinstance(event, PlanMade) and len(event.plan.replans) == 2:
                runtime.drain()
    assert desk.booked == ["4A"]
    async with Runtime(crew, model=ScriptedModel(books_in_vain), runs=RunStore(runs)) as runtime:
        outcome = await runtime.resume("r")
    assert (outcome.status, outcome.answer, desk.booked) == ("ok", "4A; 4A is fine", ["4A"])


async def test_what_replaces_a_failed_worker_does_not_do_again_what_that_one_did() -> None:
    desk = Desk()
    first = {"worker": "clerk", "goal": "Book 4A."}
    model = ScriptedModel(
        [
            json.dumps({"assignments": [first]}),
            write_call("book", {"seat": "4A"}),
            *["hm"] * 4,
            json.dumps({"assignments": [{"worker": "clerk", "goal": "Book seat 4A.", "replaces": "1"}]}),
            write_call("book", {"seat": "4A"}),
            write_answer("4A"),
        ]
    )
    planned = desk.crew().model_copy(update={"orchestrator": Agent(name="planner", instructions="Plan.")})
    outcome = await Runtime(planned, model=model).run("I want 4A.")
    assert (outcome.status, outcome.answer, desk.booked) == ("ok", "4A", ["4A"])


async def test_what_a_tool_does_to_its_arguments_changes_nothing_of_what_the_model_is_shown_of_its_call() -> None:
    def add_up(amounts: Any) -> str:
        return str(sum(amounts.pop() for _ in range(len(amounts))))

    asked = ToolCall(id="c", name="add_up", arguments={"amounts": [20, 22]})
    model = ScriptedModel([Message(role="assistant", content="", tool_calls=(asked,)), "42"])
    clerk = Agent(name="clerk", instructions="Add.", tools=("add_up",), tool_calls="native")
    tools = {"add_up": Tool(add_up, description="Adds up.")}
    crew = Crew(name="sums", orchestrator=None, workers=(clerk,), tools=tools)
    outcome = await Runtime(crew, model=model).run("Add.")
    assert outcome.answer == "42"
    call, result = model.requests[-1].messages[-2:]
    assert (call.tool_calls[0].arguments, result.content) == ({"amounts": [20, 22]}, "42")
