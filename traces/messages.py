"""Chat shapes: what goes to a model and what comes back."""

from typing import Literal

from pydantic import JsonValue

from journeyman.traces.record import Record

Role = Literal["system", "user", "assistant", "tool"]


class ToolCall(Record):
    """A call that a model asked for, its arguments already parsed: unparsed text never enters a history."""

    id: str
    name: str
    arguments: dict[str, JsonValue]


class Message(Record):
    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    """For role `tool`: the call that this answers."""


class Usage(Record):
    """Tokens of one model call, or of many added up."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Input tokens that the server took from its prefix cache; part of `input_tokens`."""

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
        )
