"""The worker: a loop of turns in which it calls tools until it answers.

A turn is one JSON object: `{"<tool>": {<arguments>}}` or `{"answer": ...}`. Models without a tool-call template of
their own can write it, and a server that decodes under a schema can hold them to it.
"""

import json
from typing import Any

from journeyman.agents.agent import Agent
from journeyman.agents.calls import Calls, opening
from journeyman.agents.plan import Assignment, Report
from journeyman.agents.reply import TruncatedReplyError, UnreadableReplyError, read_json
from journeyman.tools.tool import Tool
from journeyman.traces.messages import Message, ToolCall
from journeyman.traces.record import Record

ANSWER = "answer"
MAX_VALUES = 32
MAX_VALUE_CHARS = 400


class Call(Record):
    text: str
    """As the model wrote it."""
    tool: str
    arguments: dict[str, Any]


class Answer(Record):
    output: str | list[str]


async def work(agent: Agent, assignment: Assignment, tools: dict[str, Tool], calls: Calls) -> Report:
    """Does one assignment; raises `ModelError`, everything else that goes wrong is in the report."""
    messages = opening(agent, calls.policy, assignment.goal)
    evidence: list[str] = []
    error = None
    for turn in range(agent.limits.turns):
        schema = turn_schema(agent, tools, first=turn == 0, last=turn == agent.limits.turns - 1)
        try:
            said = await calls.ask(messages, schema, lambda reply: read_turn(reply.content, agent, tools))
        except TruncatedReplyError as cut:
            return Report(assignment=assignment, status="truncated", evidence=tuple(evidence), error=str(cut))
        except UnreadableReplyError as unreadable:
            error = str(unreadable)
            # The reply itself stays out of the history: some servers refuse every later request over unparsed text.
            messages = (*messages, Message(role="user", content=f"Your last reply was not usable: {error}"))
            continue
        if isinstance(said, Answer):
            return Report(assignment=assignment, status="ok", output=said.output, evidence=tuple(evidence))
        (used,) = await calls.use([ToolCall(id="", name=said.tool, arguments=said.arguments)])
        evidence.append(used.span_id)
        messages = (
            *messages,
            Message(role="assistant", content=said.text),
            Message(role="user", content=f"{said.tool}: {used.result.content}"),
        )
    error = f"no answer in {agent.limits.turns} turns" + (f"; last: {error}" if error else "")
    return Report(assignment=assignment, status="failed", evidence=tuple(evidence), error=error)


def turn_schema(agent: Agent, tools: dict[str, Tool], *, first: bool, last: bool) -> dict[str, Any]:
    """JSON schema of what `agent` may say on a turn: any of its tools, an answer, or both."""
    answer = _single(ANSWER, _answer_schema(agent))
    if not tools or last:
        return answer
    choices = [_single(name, _untitled(tool.parameters)) for name, tool in tools.items()]
    if not (first and agent.tool_first):
        choices.append(answer)
    return choices[0] if len(choices) == 1 else {"anyOf": choices}


def read_turn(text: str, agent: Agent, tools: dict[str, Tool]) -> Call | Answer:
    """What a reply says; raises `UnreadableReplyError` with a reason the model can act on."""
    said = read_json(text)
    if not isinstance(said, dict) or len(said) != 1:
        raise UnreadableReplyError("it must be a JSON object with exactly one key: a tool's name, or answer")
    (key, value), *_ = said.items()
    if key == ANSWER:
        return Answer(output=_output(value, agent))
    if key not in tools:
        raise UnreadableReplyError(f"there is no tool {key!r}; there are: {', '.join(tools) or 'none'}")
    if not isinstance(value, dict):
        raise UnreadableReplyError(f"the arguments of {key} must be a JSON object")
    return Call(text=text, tool=key, arguments=value)


def write_call(tool: str, arguments: dict[str, Any]) -> str:
    return json.dumps({tool: arguments}, ensure_ascii=False)


def write_answer(output: str | list[str]) -> str:
    return json.dumps({ANSWER: output}, ensure_ascii=False)


def _output(value: Any, agent: Agent) -> str | list[str]:
    if agent.output == "text":
        if isinstance(value, str):
            return value
        raise UnreadableReplyError("answer must be a string")
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        # A small model that repeats itself would fan out over the same value twice.
        return list(dict.fromkeys(value))
    raise UnreadableReplyError("answer must be a list of strings")


def _answer_schema(agent: Agent) -> dict[str, Any]:
    if agent.output == "text":
        return {"type": "string"}
    value = {"type": "string", "minLength": 1, "maxLength": MAX_VALUE_CHARS}
    return {"type": "array", "items": value, "maxItems": MAX_VALUES}


def _single(key: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {key: schema}, "required": [key], "additionalProperties": False}


def _untitled(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without pydantic's titles, which a decoder has no use for."""
    return {
        key: _untitled(value) if isinstance(value, dict) else value
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }
