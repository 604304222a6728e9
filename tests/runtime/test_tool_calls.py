"""Calls of tools that may be made once only: whoever asks again, the call is not made again."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.scripted import ScriptedModel
from journeyman.tools.tool import Tool
from journeyman.traces.errors import ToolError


class Desk:
    """Books, and then says that it went well, or that it failed."""

    def __init__(self, fails: bool = False) -> None:
        self.booked: list[str] = []
        self._fails = fails

    def crew(self, **options: Any) -> Crew:
        tool = Tool(self._book, name="book", description="Books a seat.", writes=True, **options)
        worker = Agent(name="clerk", instructions="Book.", tools=("book",), limits=Limits(turns=4))
        return Crew(name="desk", orchestrator=None, workers=(worker,), tools={"book": tool})

    def _book(self, seat: str) -> str:
        self.booked.append(seat)
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
