"""A turn: what an agent said, as a call of tools or as an answer, and how it stays in the history."""

from typing import Any

from pydantic import JsonValue

from journeyman.agents.agent import Agent
from journeyman.agents.reply import UnreadableReplyError
from journeyman.traces.base import Record
from journeyman.traces.messages import Message, ToolCall

ANSWER = "answer"
MAX_VALUES = 32
MAX_VALUE_CHARS = 400


class Calling(Record):
    message: Message
    calls: tuple[ToolCall, ...]


class Answering(Record):
    message: Message
    output: JsonValue
    """A string, or a list of strings for an agent with `output = "values"`."""


class RefusedAnswerError(UnreadableReplyError):
    """An answer that can be read, and that a verifier does not accept."""

    def __init__(self, reason: str, message: Message) -> None:
        super().__init__(reason)
        self.message = message


def read_output(value: Any, agent: Agent) -> JsonValue:
    """The output in an answer; raises `UnreadableReplyError` where it is not of the agent's kind."""
    if agent.output == "text":
        if isinstance(value, str):
            return _without_null(value)
        raise UnreadableReplyError("answer must be a string")
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        # A small model that repeats itself would fan out over the same value twice, or over none.
        return list(dict.fromkeys(_without_null(one) for one in value if one.strip()))
    raise UnreadableReplyError("answer must be a list of strings")


def _without_null(text: str) -> str:
    if "\0" in text:
        # Postgres, where runs may be kept, has no text with it.
        raise UnreadableReplyError("answer holds a null character, which isn't text")
    return text


def answer_schema(agent: Agent) -> dict[str, Any]:
    """JSON schema of `{"answer": ...}`."""
    if agent.output == "text":
        return keyed(ANSWER, {"type": "string"})
    value = {"type": "string", "minLength": 1, "maxLength": MAX_VALUE_CHARS}
    return keyed(ANSWER, {"type": "array", "items": value, "maxItems": MAX_VALUES})


def keyed(key: str, schema: dict[str, Any]) -> dict[str, Any]:
    """JSON schema of an object that has the one key `key`."""
    return {"type": "object", "properties": {key: schema}, "required": [key], "additionalProperties": False}
