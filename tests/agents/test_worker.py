"""The worker's loop, with a scripted desk in place of the runtime's."""

import json
from itertools import pairwise
from typing import Any, Literal

import jsonschema
import pytest

from journeyman.agents.agent import Agent, Example, Limits
from journeyman.agents.model import BASE
from journeyman.agents.plan import Assignment, Report
from journeyman.agents.prompt import opening, working_form
from journeyman.agents.reply import TruncatedReplyError, UnreadableReplyError
from journeyman.agents.turn import Answering
from journeyman.agents.worker import read_turn, turn_schema, work, write_answer, write_call
from journeyman.tools.tool import Tool, tool
from journeyman.traces.errors import ToolError
from journeyman.traces.messages import Message


@tool
def facts(query: str) -> str:
    """Looks facts up."""
    if query == "nothing":
        raise ToolError("there is nothing")
    return f"about {query}"


TOOLS: dict[str, Tool] = {"facts": facts}
AGENT = Agent(name="lookup", instructions="Look it up.", tools=("facts",), output="values", limits=Limits(turns=3))
GOAL = Assignment(id="1", worker="lookup", goal="How tall is it?")


def changed(**fields: object) -> Agent:
    return Agent.model_validate(AGENT.model_dump() | fields)


async def do(desk: Any, agent: Agent = AGENT) -> Report:
    desk.tools = TOOLS
    return await work(agent, GOAL, TOOLS, desk)


async def test_a_worker_uses_a_tool_and_answers_with_its_evidence(desk: Any) -> None:
    at_work = desk(write_call("facts", {"query": "height"}), write_answer(["61.6"]))
    report = await do(at_work)
    assert (report.status, report.output, report.evidence) == ("ok", ["61.6"], ("span-facts",))
    assert at_work.seen[1][-1] == Message(role="user", content="facts: about height")


async def test_an_output_does_not_rest_on_a_call_that_failed(desk: Any) -> None:
    report = await do(desk(write_call("facts", {"query": "nothing"}), write_answer([])))
    assert (report.status, report.evidence) == ("ok", ())


async def test_an_unreadable_reply_is_told_to_the_model_and_stays_out_of_the_history(desk: Any) -> None:
    at_work = desk("{broken", write_answer(["61.6"]))
    assert (await do(at_work)).status == "ok"
    assert "not valid JSON" in at_work.seen[1][-1].content
    assert all("{broken" not in message.content for message in at_work.seen[1])


async def test_an_unknown_tool_is_told_to_the_model_with_the_tools_there_are(desk: Any) -> None:
    at_work = desk(write_call("serch", {"query": "x"}), write_answer(["1"]))
    assert (await do(at_work)).status == "ok"
    assert "there is no tool 'serch'; there are: facts" in at_work.seen[1][-1].content


async def test_no_prompt_has_two_messages_of_the_user_in_a_row(desk: Any) -> None:
    call = write_call("facts", {"query": "x"})
    at_work = desk("{broken", call, "[]", write_answer(["x"]), write_answer(["2"]))
    assert (await do(at_work, changed(verify=("integer",)))).status == "ok"
    for messages in at_work.seen:
        assert all(one.role != other.role for one, other in pairwise(messages))


async def test_wrong_arguments_become_a_result_that_the_model_can_act_on(desk: Any) -> None:
    at_work = desk(write_call("facts", {"q": "x"}), write_answer(["1"]))
    assert (await do(at_work)).status == "ok"
    assert at_work.seen[1][-1].content.startswith("facts: facts was not called")


async def test_a_reply_cut_short_is_a_truncated_report(desk: Any) -> None:
    report = await do(desk(TruncatedReplyError("a reply was cut off at 9 tokens")))
    assert (report.status, report.output) == ("truncated", None)


async def test_unusable_replies_are_asked_for_again_a_bounded_number_of_times(desk: Any) -> None:
    at_work = desk("{broken", "[]", "3", write_answer(["never asked for"]))
    report = await do(at_work)
    assert (report.status, len(at_work.seen)) == ("failed", 3)
    assert report.error == (
        "3 unusable replies; last: it must be a JSON object with exactly one key: a tool's name, or answer"
    )


async def test_a_repair_takes_no_turn_from_the_work(desk: Any) -> None:
    at_work = desk("{broken", write_call("facts", {"query": "x"}), "{broken", write_answer(["1"]))
    assert (await do(at_work, changed(limits=Limits(turns=2)))).status == "ok"


async def test_on_the_last_turn_a_call_is_refused_and_an_answer_asked_for(desk: Any) -> None:
    call = write_call("facts", {"query": "x"})
    at_work = desk(call, call, call, write_answer(["1"]))
    assert (await do(at_work)).output == ["1"]
    assert at_work.seen[3][-1].content.endswith('no tool can be called any more: reply with {"answer": ...}')


async def test_a_first_turn_that_must_call_a_tool_is_held_to_it_where_the_server_does_not(desk: Any) -> None:
    at_work = desk(write_answer(["a guess"]), write_call("facts", {"query": "x"}), write_answer(["1"]))
    report = await do(at_work, changed(tool_first=True))
    assert (report.output, report.evidence) == (["1"], ("span-facts",))
    assert at_work.schemas[0] == at_work.schemas[1]


@pytest.mark.parametrize("demand", [{"needs_evidence": True}, {"tool_first": True}])
async def test_a_failed_call_in_other_words_is_no_answer_of_an_agent_that_needs_evidence(
    desk: Any, demand: dict[str, Any]
) -> None:
    failed, unfounded = write_call("facts", {"query": 1}), write_answer(["the column does not exist"])
    at_work = desk(failed, unfounded, unfounded)
    report = await do(at_work, changed(**demand))
    assert (report.status, report.output) == ("failed", None)
    assert report.error == "no answer in 3 turns; last: it rests on no tool call that went well; make one first"
    assert at_work.seen[2][-1].content.startswith("Your answer was not accepted: it rests on no tool call")
    at_work = desk(failed, write_call("facts", {"query": "x"}), write_answer(["1"]))
    assert (await do(at_work, changed(**demand))).output == ["1"]


async def test_an_agent_that_calls_first_may_be_let_answer_from_a_failed_call(desk: Any) -> None:
    at_work = desk(write_call("facts", {"query": 1}), write_answer(["it does not exist"]))
    report = await do(at_work, changed(tool_first=True, needs_evidence=False))
    assert (report.status, report.evidence) == ("ok", ())


async def test_an_answer_that_a_verifier_refuses_is_told_why_and_tried_again(desk: Any) -> None:
    at_work = desk(write_answer(["tall"]), write_answer(["61.6"]))
    report = await do(at_work, changed(verify=("number",)))
    assert (report.status, report.output) == ("ok", ["61.6"])
    assert at_work.seen[1][-2:] == (
        Message(role="assistant", content='{"answer": ["tall"]}'),
        Message(role="user", content="Your answer was not accepted: 'tall' is not a number"),
    )


async def test_an_output_that_was_never_accepted_is_not_given_out(desk: Any) -> None:
    report = await do(desk(*[write_answer(["tall"])] * 3), changed(verify=("number",)))
    assert (report.status, report.output) == ("failed", None)
    assert report.error == "no answer in 3 turns; last: 'tall' is not a number"


@pytest.mark.parametrize("said", ["facts: there is nothing", "facts: facts: there is nothing\n"])
async def test_what_a_failed_call_said_is_refused_as_an_answer_and_one_of_its_own_is_not(desk: Any, said: str) -> None:
    at_work = desk(write_call("facts", {"query": "nothing"}), write_answer(["61.6", said]), write_answer(["none"]))
    report = await do(at_work)
    assert (report.status, report.output) == ("ok", ["none"])
    assert "it repeats a complaint" in at_work.seen[2][-1].content


async def test_a_worker_that_only_repeats_a_failed_call_fails(desk: Any) -> None:
    echo = write_answer("facts: there is nothing")
    report = await do(desk(write_call("facts", {"query": "nothing"}), echo, echo), changed(output="text"))
    assert (report.status, report.output) == ("failed", None)
    assert report.error is not None and "there is nothing" not in report.error


REPEATED = "it repeats a complaint; say what you found, or that you found nothing"
NO_JSON = "Your last reply was not usable: it is not valid JSON (Expecting value)"


@pytest.mark.parametrize(
    ("before", "echo"),
    [
        (write_answer("facts: there is nothing"), f"Your answer was not accepted: {REPEATED}"),
        ("no JSON", NO_JSON),
        ("no JSON", f"facts: facts: there is nothing\n\n{NO_JSON}"),
    ],
)
async def test_a_worker_that_only_repeats_what_it_is_told_fails(desk: Any, before: str, echo: str) -> None:
    nothing = write_call("facts", {"query": "nothing"})
    at_work = desk(nothing, before, *[write_answer(echo)] * 3)
    report = await do(at_work, changed(output="text", limits=Limits(turns=4)))
    assert echo in at_work.seen[2][-1].content
    assert (report.status, report.output) == ("failed", None)


async def test_what_calls_side_by_side_said_is_no_answer_where_one_of_them_failed(desk: Any) -> None:
    calls = json.dumps([{"facts": {"query": "height"}}, {"facts": {"query": "nothing"}}])
    shown = "1. facts: about height\n2. facts: facts: there is nothing"
    agent = changed(output="text", parallel_calls=2, limits=Limits(turns=5))
    lines = [write_answer(line) for line in ("facts: there is nothing", "facts: facts: there is nothing")]
    at_work = desk(calls, write_answer(shown), *lines, write_answer("about height"))
    assert (await do(at_work, agent)).output == "about height"


async def test_an_answer_may_be_what_a_call_said_that_went_well_and_may_mention_a_failure(desk: Any) -> None:
    for said in ("about height", "facts: about height", "The height is 61.6; facts: there is nothing on its width"):
        calls = write_call("facts", {"query": "nothing"}), write_call("facts", {"query": "height"})
        assert (await do(desk(*calls, write_answer(said)), changed(output="text"))).output == said


async def test_a_valid_empty_answer_is_not_a_failure(desk: Any) -> None:
    report = await do(desk(write_answer([])), changed(verify=("number",)))
    assert (report.status, report.output) == ("ok", [])


async def test_several_calls_of_a_turn_are_made_and_their_results_told_apart(desk: Any) -> None:
    calls = json.dumps([{"facts": {"query": "height"}}, {"facts": {"query": "age"}}])
    at_work = desk(calls, write_answer(["61.6", "88"]))
    report = await do(at_work, changed(parallel_calls=2))
    assert (report.status, report.evidence) == ("ok", ("span-facts", "span-facts"))
    assert at_work.seen[1][-1].content == "1. facts: about height\n2. facts: about age"
    jsonschema.validate(json.loads(calls), at_work.schemas[0])


async def test_more_calls_than_a_turn_may_ask_for_are_refused(desk: Any) -> None:
    calls = json.dumps([{"facts": {"query": "x"}}] * 3)
    at_work = desk(calls, write_answer(["1"]))
    await do(at_work, changed(parallel_calls=2))
    assert at_work.seen[1][-1].content.endswith("it must have 1 to 2 calls")


async def test_a_history_that_outgrows_its_budget_loses_what_is_oldest(desk: Any) -> None:
    @tool(name="facts")
    def long_facts(query: str) -> str:
        """Looks facts up."""
        return f"about {query}\n" + "and so on " * 40

    at_work = desk(*[write_call("facts", {"query": str(n)}) for n in range(3)], write_answer(["1"]))
    at_work.tools = {"facts": long_facts}
    agent = changed(limits=Limits(turns=4, prompt_tokens=200))
    assert (await work(agent, GOAL, at_work.tools, at_work)).status == "ok"
    last = at_work.seen[-1]
    assert last[:2] == at_work.seen[0]
    assert [message.content.split("\n")[1][:8] for message in last[3::2]] == ["[left ou", "[left ou", "and so o"]
    assert last[-1].content == "facts: about 2\n" + "and so on " * 40


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


def test_the_schema_of_an_agent_with_one_call_a_turn_is_what_adapters_were_trained_under() -> None:
    call = (
        '{"type": "object", "properties": {"facts": {"additionalProperties": false, "properties": '
        '{"query": {"type": "string"}}, "required": ["query"], "type": "object"}}, "required": ["facts"], '
        '"additionalProperties": false}'
    )
    answer = (
        '{"type": "object", "properties": {"answer": {"type": "array", "items": {"type": "string", "minLength": 1, '
        '"maxLength": 400}, "maxItems": 32}}, "required": ["answer"], "additionalProperties": false}'
    )
    assert json.dumps(turn_schema(AGENT, TOOLS, first=False, last=False)) == f'{{"anyOf": [{call}, {answer}]}}'


def test_a_repeated_value_counts_once() -> None:
    said = read_turn('{"answer": ["a", "", "b", " ", "a"]}', AGENT, TOOLS)
    assert isinstance(said, Answering)
    assert said.output == ["a", "b"]


@pytest.mark.parametrize("fence", ["```json\n{}\n```", "\n``` \n{}\n```\n", "```JSON\n{}\n  ```"])
def test_json_in_a_markdown_fence_is_read_too(fence: str) -> None:
    said = read_turn(fence.replace("{}", '{"answer": ["a"]}'), AGENT, TOOLS)
    assert isinstance(said, Answering)
    assert said.output == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "{}", '{"answer": 3}', '{"answer": [1]}', '{"facts": "x"}', '{"a": 1, "b": 2}', "no"),
        *('{"answer": ["\\u0000"]}', '{"facts": {"query": NaN}}', '{"facts": {"query": 1e999}}', "9" * 9_999),
        *('{"facts": {"query": ' + "[" * 90 + "]" * 90 + "}}", "[" * 99_999),
    ],
)
def test_replies_that_are_no_turn_are_refused_with_a_reason(text: str) -> None:
    with pytest.raises(UnreadableReplyError, match=r"\w"):
        read_turn(text, AGENT, TOOLS)


def test_examples_are_shown_to_the_base_model_only() -> None:
    agent = AGENT.model_copy(update={"examples": (Example(user="q", assistant="a"),)})
    form = working_form(agent, {})
    assert [message.content for message in opening(form, BASE, "goal")] == ["Look it up.", "q", "a", "goal"]
    assert [message.content for message in opening(form, "lookup@1", "goal")] == ["Look it up.", "goal"]
    assert (form.shown(BASE), form.shown("lookup@1")) == (f"{form.digest}+2", form.digest)


async def test_a_model_is_told_which_tools_it_has_and_how_they_are_called(desk: Any) -> None:
    @tool
    def price(item: str, coin: Literal["EUR", "USD"] = "EUR") -> str:
        """Its price."""
        return f"3 {coin}"

    tools = {
        "price": price,
        "plain": Tool(lambda: "", name="plain"),
        "secret": Tool(lambda: "", name="secret", description=""),
    }
    at_work = desk(write_answer(["3"]), tools=tools)
    await work(changed(instructions="Look it up."), Assignment(id="1", worker="lookup", goal="Tea?"), tools, at_work)
    assert at_work.seen[0][0].content == (
        "Look it up.\nTools:\n"
        '- price {"item": {"type": "string"}, '
        '"coin": {"default": "EUR", "enum": ["EUR", "USD"], "type": "string"}}: Its price.\n'
        "- plain {}: plain"
    )


async def test_all_prompts_of_an_agent_begin_with_the_same_bytes(desk: Any) -> None:
    agent = changed(examples=({"user": "q", "assistant": '{"answer": ["a"]}'},), instructions="Look it up.\nAlways.")
    openings = []
    for goal in ("How tall is it?", "How old is it?"):
        at_work = desk(write_call("facts", {"query": goal}), write_answer(["1"]), tools=TOOLS, policy=BASE)
        await work(agent, Assignment(id="1", worker="lookup", goal=goal), TOOLS, at_work)
        first, second = (json.dumps([message.model_dump() for message in messages]) for messages in at_work.seen)
        assert second.startswith(first.removesuffix("]"))
        openings.append(first)
    form = working_form(agent, TOOLS)
    shared = json.dumps([message.model_dump() for message in opening(form, BASE, "")[:-1]]).removesuffix("]")
    assert all(one.startswith(shared) for one in openings)
