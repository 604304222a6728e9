"""A desk in place of the runtime's: replies in turn, tools for real."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import pytest

from journeyman.agents.calls import Used
from journeyman.agents.model import ModelReply, ToolChoice
from journeyman.agents.prompt import Prompt
from journeyman.tools.call import call_tool
from journeyman.tools.tool import Tool
from journeyman.traces.messages import Message, ToolCall, Usage

T = TypeVar("T")


class Desk:
    """`replies` are texts, whole replies, or what the model call raises."""

    def __init__(
        self,
        *replies: str | ModelReply | Exception,
        tools: Mapping[str, Tool] | None = None,
        policy: str = "worker@1",
    ) -> None:
        self.policy = policy
        self.prompt: Prompt | None = None
        self.replies = list(replies)
        self.tools = tools or {}
        self.seen: list[tuple[Message, ...]] = []
        self.schemas: list[dict[str, Any] | None] = []
        self.choices: list[ToolChoice] = []

    async def ask(
        self,
        messages: tuple[Message, ...],
        schema: dict[str, Any] | None,
        read: Callable[[ModelReply], T],
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice = "auto",
        final: bool = False,
    ) -> T:
        self.seen.append(messages)
        self.schemas.append(schema)
        self.choices.append(tool_choice)
        said = self.replies.pop(0)
        if isinstance(said, Exception):
            raise said
        if isinstance(said, str):
            words = sum(len(message.content.split()) for message in messages)
            usage = Usage(input_tokens=words, output_tokens=len(said.split()))
            said = ModelReply(id="1", model=self.policy, content=said, finish_reason="stop", usage=usage)
        return read(said)

    async def use(self, wanted: Sequence[ToolCall]) -> list[Used]:
        return [
            Used(result=await call_tool(self.tools[call.name], dict(call.arguments)), span_id=f"span-{call.name}")
            for call in wanted
        ]


@pytest.fixture
def desk() -> type[Desk]:
    """The class, for a test to make desks of."""
    return Desk
