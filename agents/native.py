"""The native form of a turn: calls in the tool-call template of the model's own, an answer as plain text.

An answer of several values is JSON, a list of strings or `{"answer": [...]}`.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import count
from typing import Any

from pydantic import JsonValue

from journeyman.agents.agent import Agent
from journeyman.agents.calls import Used
from journeyman.agents.model import ModelReply, ToolChoice
from journeyman.agents.reply import UnreadableReplyError, read_json
from journeyman.agents.turn import ANSWER, Answering, Calling, answer_schema, read_output
from journeyman.tools.tool import Tool
from journeyman.traces.messages import Message, ToolCall


class NativeForm:
    """How an agent with `tool_calls = "native"` is asked and understood."""

    def __init__(self, agent: Agent, tools: Mapping[str, Tool]) -> None:
        self._agent = agent
        self._known = tools
        self.tools: Sequence[Tool] = tuple(tools.values())
        """Shown to the model on every turn, so that all its prompts begin alike."""
        self._numbers = count(1)

    def choice(self, *, first: bool, last: bool) -> ToolChoice:
        if last or not self._known:
            return "none"
        return "required" if first and self._agent.tool_first else "auto"

    def schema(self, *, first: bool, last: bool) -> dict[str, Any] | None:
        """A schema holds the whole reply, so there is one only where nothing but an answer may come."""
        must_answer = self.choice(first=first, last=last) == "none"
        return answer_schema(self._agent) if must_answer and self._agent.output == "values" else None

    def read(self, reply: ModelReply, *, first: bool, last: bool) -> Calling | Answering:
        """What a reply says; raises `UnreadableReplyError` with a reason the model can act on."""
        if reply.unreadable is not None:
            raise UnreadableReplyError(reply.unreadable)
        choice = self.choice(first=first, last=last)
        if reply.tool_calls:
            return self._calling(reply, choice)
        if choice == "required":
            raise UnreadableReplyError("it must call a tool before it answers")
        output = self._answer(reply.content.strip())
        return Answering(message=Message(role="assistant", content=reply.content), output=output)

    def results(self, calls: Sequence[ToolCall], used: Sequence[Used]) -> tuple[Message, ...]:
        return tuple(
            Message(role="tool", content=one.result.content, tool_call_id=call.id)
            for call, one in zip(calls, used, strict=True)
        )

    def _calling(self, reply: ModelReply, choice: ToolChoice) -> Calling:
        if choice == "none":
            raise UnreadableReplyError("no tool can be called any more: answer now")
        if len(reply.tool_calls) > self._agent.parallel_calls:
            raise UnreadableReplyError(
                f"it calls {len(reply.tool_calls)} tools; {self._agent.parallel_calls} at a time"
            )
        for call in reply.tool_calls:
            if call.name not in self._known:
                raise UnreadableReplyError(f"there is no tool {call.name!r}; there are: {', '.join(self._known)}")
        ids = [call.id for call in reply.tool_calls]
        # Some models give all their calls one id, and servers then refuse to tell the results apart.
        calls = tuple(
            call
            if call.id and ids.count(call.id) == 1
            else call.model_copy(update={"id": f"call_{next(self._numbers)}"})
            for call in reply.tool_calls
        )
        return Calling(message=Message(role="assistant", content=reply.content, tool_calls=calls), calls=calls)

    def _answer(self, text: str) -> JsonValue:
        try:
            said = read_json(text)
        except UnreadableReplyError:
            said = text
        if (name := _written_call(said, self._known)) is not None:
            raise UnreadableReplyError(f"it is a call of {name} written as text: call the tool itself, or answer")
        if isinstance(said, dict) and said.keys() == {ANSWER}:
            return read_output(said[ANSWER], self._agent)
        if self._agent.output == "values":
            return read_output(said, self._agent)
        if not text:
            raise UnreadableReplyError("it is empty: answer, or call a tool")
        return read_output(text, self._agent)


def _written_call(said: Any, tools: Collection[str]) -> str | None:
    """The tool that an answer is a call of, as some models write one: its name, and beside it or in it an object."""
    if isinstance(said, list) and said:
        return _written_call(said[0], tools)
    if not isinstance(said, dict):
        return None
    if len(said) == 1:
        ((name, given),) = said.items()
    else:
        name, given = said.get("name"), said.get("arguments", said.get("parameters"))
    return name if isinstance(name, str) and name in tools and isinstance(given, dict) else None
