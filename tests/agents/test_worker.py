"""The worker's loop, with a scripted desk in place of the runtime's."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jsonschema
import pytest

from journeyman.agents.agent import Agent, Example, Limits
from journeyman.agents.calls import Used, opening
from journeyman.agents.model import BASE, ModelReply
from journeyman.agents.plan import Assignment, Report
from journeyman.agents.reply import TruncatedReplyError, UnreadableReplyError
from journeyman.agents.worker import read_turn, turn_schema, work, write_answer, write_call
from journeyman.tools.call import call_tool
from journeyman.tools.tool import Tool, tool
from journeyman.traces.messages import Message, ToolCall, Usage

T = TypeVar("T")


@tool
def facts(query: str) -> str:
    """Looks facts up."""
    return f"about {query}"


class Desk:
    """Replies in turn, tools for real."""

    policy = "worker@1"

    def __init__(self, *replies: str, truncated: bool = False) -> None:
        self.replies = list(replies)
        self.truncated = truncated
        self.seen: list[tuple[Message, ...]] = []

    async def ask(
        self,
        messages: tuple[Message, ...],
        schema: dict[str, Any] | None,
        read: Callable[[ModelReply], T],
        tools: Sequence[Tool] = (),
    ) -> T:
        self.seen.append(messages)
        if self.truncated:
            raise TruncatedReplyError("a reply was cut off at 9 tokens")
        return read(
            ModelReply(id="1", model="worker@1", content=self.replies.pop(0), finish_reason="stop", usage=Usage())
        )

    async def use(self, wanted: Sequence[ToolCall]) -> list[Used]:
        return [
            Used(result=await call_tool(TOOLS[call.name], dict(call.arguments)), span_id=f"span-{call.name}")
            for call in wanted
        ]


TOOLS: dict[str, Tool] = {"facts": facts}
AGENT = Agent(name="lookup", instructions="Look it up.", tools=("facts",), output="values", limits=Limits(turns=3))
GOAL = Assignment(id="1", worker="lookup", goal="How tall is it?")


async def do(desk: Desk, agent: Agent = AGENT) -> Report:
    return await work(agent, GOAL, TOOLS, desk)


async def test_a_worker_uses_a_tool_and_answers_with_its_evidence() -> None:
    desk = Desk(write_call("facts", {"query": "height"}), write_answer(["61.6"]))
    report = await do(desk)
    assert (report.status, report.output, report.evidence) == ("ok", ["61.6"], ("span-facts",))
    assert desk.seen[1][-1] == Message(role="user", content="facts: about height")


async def test_an_unreadable_reply_is_told_to_the_model_and_stays_out_of_the_history() -> None:
    desk = Desk("{broken", write_answer(["61.6"]))
    assert (await do(desk)).status == "ok"
    assert "not valid JSON" in desk.seen[1][-1].content
    assert all("{broken" not in message.content for message in desk.seen[1])


async def test_an_unknown_tool_is_told_to_the_model_with_the_tools_there_are() -> None:
    desk = Desk(write_call("serch", {"query": "x"}), write_answer(["1"]))
    assert (await do(desk)).status == "ok"
    assert "there is no tool 'serch'; there are: facts" in desk.seen[1][-1].content


async def test_wrong_arguments_become_a_result_that_the_model_can_act_on() -> None:
    desk = Desk(write_call("facts", {"q": "x"}), write_answer(["1"]))
    assert (await do(desk)).status == "ok"
    assert desk.seen[1][-1].content.startswith("facts: facts was not called")


async def test_a_reply_cut_short_is_a_truncated_report() -> None:
    report = await do(Desk(truncated=True))
    assert (report.status, report.output) == ("truncated", None)


async def test_no_answer_in_all_turns_is_a_failed_report() -> None:
    report = await do(Desk(*[write_call("facts", {"query": "x"})] * 3))
    assert report.status == "failed"
    assert report.error == "no answer in 3 turns"


def test_the_last_turn_takes_an_answer_only_and_a_first_turn_may_demand_a_tool() -> None:
    call, answer = {"facts": {"query": "x"}}, {"answer": ["x"]}
    any_turn = turn_schema(AGENT, TOOLS, first=False, last=False)
    jsonschema.validate(call, any_turn)
    jsonschema.validate(answer, any_turn)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(call, turn_schema(AGENT, TOOLS, first=False, last=True))
    demanding = AGENT.model_copy(update={"tool_first": True})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(answer, turn_schema(demanding, TOOLS, first=True, last=False))


def test_a_repeated_value_counts_once() -> None:
    said = read_turn('{"answer": ["a", "b", "a"]}', AGENT, TOOLS)
    assert said.model_dump() == {"output": ["a", "b"]}


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"answer": 3}', '{"answer": [1]}', '{"facts": "x"}', '{"a": 1, "b": 2}', "no"]
)
def test_replies_that_are_no_turn_are_refused_with_a_reason(text: str) -> None:
    with pytest.raises(UnreadableReplyError, match=r"\w"):
        read_turn(text, AGENT, TOOLS)


def test_examples_are_shown_to_the_base_model_only() -> None:
    agent = AGENT.model_copy(update={"examples": (Example(user="q", assistant="a"),)})
    assert [message.content for message in opening(agent, BASE, "goal")] == ["Look it up.", "q", "a", "goal"]
    assert [message.content for message in opening(agent, "lookup@1", "goal")] == ["Look it up.", "goal"]
