"""The native form of a turn: calls in a model's own template, told back as results of tools."""

from typing import Any

import pytest

from journeyman.agents.agent import Agent, Limits
from journeyman.agents.model import ModelReply
from journeyman.agents.plan import Assignment, Report
from journeyman.agents.worker import work
from journeyman.tools.tool import tool
from journeyman.traces.messages import Message, ToolCall, Usage


@tool
def facts(query: str) -> str:
    """Looks facts up."""
    return f"about {query}"


TOOLS = {"facts": facts}
AGENT = Agent(name="lookup", instructions="Look it up.", tools=("facts",), tool_calls="native", limits=Limits(turns=3))


def call(id: str = "c1", name: str = "facts", **arguments: str) -> ToolCall:
    return ToolCall(id=id, name=name, arguments={"query": "height", **arguments})


def said(text: str = "", *calls: ToolCall, unreadable: str | None = None) -> ModelReply:
    reason = "tool_calls" if calls or unreadable else "stop"
    return ModelReply(
        id="1",
        model="m",
        content=text,
        tool_calls=calls,
        unreadable=unreadable,
        finish_reason=reason,
        usage=Usage(input_tokens=9),
    )


async def do(desk: Any, **fields: object) -> Report:
    desk.tools = TOOLS
    agent = Agent.model_validate(AGENT.model_dump() | fields)
    return await work(agent, Assignment(id="1", worker="lookup", goal="How tall?"), TOOLS, desk)


async def test_calls_and_results_are_messages_of_their_own_kind(desk: Any) -> None:
    at_work = desk(said("", call()), said("61.6 m"))
    report = await do(at_work)
    assert (report.status, report.output, report.evidence) == ("ok", "61.6 m", ("span-facts",))
    assert at_work.seen[1][-2:] == (
        Message(role="assistant", content="", tool_calls=(call(),)),
        Message(role="tool", content="about height", tool_call_id="c1"),
    )
    assert at_work.choices == ["auto", "auto"]


async def test_calls_that_could_not_be_read_are_told_to_the_model_and_stay_out_of_the_history(desk: Any) -> None:
    at_work = desk(said("", unreadable="the arguments of facts are not valid JSON"), said("61.6 m"))
    assert (await do(at_work)).status == "ok"
    assert at_work.seen[1][-1].content.endswith(
        "Your last reply was not usable: the arguments of facts are not valid JSON"
    )
    assert all(not message.tool_calls for message in at_work.seen[1])


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "facts", "parameters": {"query": "height"}}',
        '{"name": "facts", "arguments": {}, "id": 1}',
        '[{"name": "facts", "arguments": {"query": "height"}}]',
        '{"facts": {"query": "height"}}',
    ],
)
async def test_a_call_that_is_written_as_text_is_no_answer(desk: Any, text: str) -> None:
    at_work = desk(said(text), said("", call()), said("61.6 m"))
    report = await do(at_work)
    assert (report.status, report.output) == ("ok", "61.6 m")
    assert "call the tool itself" in at_work.seen[1][-1].content
    assert all(text not in message.content for message in at_work.seen[-1])


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Ann", "arguments": {}}',
        '{"facts": 3}',
        "[]",
        "{}",
        '{"name": "facts"}',
        '{"name": [], "arguments": {}}',
    ],
)
async def test_json_that_calls_nothing_is_an_answer(desk: Any, text: str) -> None:
    report = await do(desk(said(text)))
    assert (report.status, report.output) == ("ok", text)


async def test_an_unknown_tool_is_told_to_the_model(desk: Any) -> None:
    at_work = desk(said("", call(name="serch")), said("61.6 m"))
    assert (await do(at_work)).status == "ok"
    assert "there is no tool 'serch'; there are: facts" in at_work.seen[1][-1].content


async def test_a_call_without_an_id_gets_one_that_its_result_names(desk: Any) -> None:
    at_work = desk(said("", call(id=""), call(id="", query="age")), said("", call(id="")), said("61.6 m"))
    await do(at_work, parallel_calls=2)
    asked = [one.id for message in at_work.seen[2] for one in message.tool_calls]
    assert asked == [message.tool_call_id for message in at_work.seen[2] if message.role == "tool"]
    assert len(set(asked)) == 3


async def test_calls_that_share_an_id_get_ids_of_their_own(desk: Any) -> None:
    at_work = desk(said("", call("c"), call("c", query="age")), said("61.6 m"))
    assert (await do(at_work, parallel_calls=2)).status == "ok"
    asked, *results = at_work.seen[1][-3:]
    assert [one.id for one in asked.tool_calls] == [one.tool_call_id for one in results] == ["call_1", "call_2"]


async def test_a_first_turn_may_demand_a_call_and_the_last_one_takes_none(desk: Any) -> None:
    at_work = desk(said("a guess"), said("", call()), said("", call()), said("", call()), said("61.6 m"))
    assert (await do(at_work, tool_first=True)).output == "61.6 m"
    assert at_work.choices == ["required", "required", "auto", "none", "none"]


@pytest.mark.parametrize("text", ['["a", "b", "a"]', '{"answer": ["a", "b"]}'])
async def test_an_answer_of_several_values_is_json(desk: Any, text: str) -> None:
    assert (await do(desk(said("a and b"), said(text)), output="values")).output == ["a", "b"]


async def test_an_empty_reply_is_no_answer(desk: Any) -> None:
    report = await do(desk(*[said(" ")] * 3))
    assert (report.status, report.output) == ("failed", None)


async def test_a_null_character_is_no_part_of_an_answer(desk: Any) -> None:
    assert (await do(desk(said("61.6\0 m"), said("61.6 m")))).output == "61.6 m"


async def test_an_agent_that_repairs_with_tool_messages_keeps_calls_and_results_together(desk: Any) -> None:
    calls = [said("", call(id=f"c{n}", query="x" * 300)) for n in range(3)]
    at_work = desk(*calls, said("61.6 m"))
    await do(at_work, limits={"turns": 4, "prompt_tokens": 20})
    for messages in at_work.seen:
        asked = [one.id for message in messages for one in message.tool_calls]
        assert asked == [message.tool_call_id for message in messages if message.role == "tool"]
