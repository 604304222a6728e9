"""What an agent may do: ask its model and use its tools. The runtime stands behind it, and records every call."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from journeyman.agents.model import ModelReply, ToolChoice
from journeyman.agents.prompt import Prompt
from journeyman.agents.reply import UnreadableReplyError
from journeyman.tools.call import CallResult
from journeyman.tools.tool import Tool
from journeyman.traces.base import Record
from journeyman.traces.messages import Message, ToolCall

T = TypeVar("T")


class Used(Record):
    """A tool call that was made, or refused."""

    result: CallResult
    span_id: str


class Calls(Protocol):
    """One agent's calls in one run."""

    @property
    def policy(self) -> str:
        """The policy that answers this agent in this run."""
        ...

    @property
    def prompt(self) -> Prompt | None:
        """What that policy says in place of the crew, where it is a prompt candidate."""
        ...

    async def ask(
        self,
        messages: tuple[Message, ...],
        schema: dict[str, Any] | None,
        read: Callable[[ModelReply], T],
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice = "auto",
        final: bool = False,
    ) -> T:
        """What `read` makes of the reply to one model call, under `schema`, or with `tools` in the model's template.

        A `final` call may use what the run's budget keeps for its end. Raises `ModelError`, `TruncatedReplyError`, and
        the `UnreadableReplyError` with which `read` refuses a reply: it belongs to the record of the call, so that
        nobody learns from the reply.
        """
        ...

    async def use(self, wanted: Sequence[ToolCall]) -> list[Used]:
        """What came of those calls, made at once, in their order; a failure is a result, not an exception."""
        ...


async def ask_repaired(
    calls: Calls, messages: tuple[Message, ...], schema: dict[str, Any], read: Callable[[str], T], what: str
) -> T:
    """What `read` makes of the reply; one that it refuses is asked for once more with the reason. `what` it is."""

    async def ask(messages: tuple[Message, ...]) -> T:
        return await calls.ask(messages, schema, lambda reply: read(reply.content))

    try:
        return await ask(messages)
    except UnreadableReplyError as error:
        return await ask(told(messages, f"Your last {what} was not usable: {error}"))


def told(messages: tuple[Message, ...], text: str) -> tuple[Message, ...]:
    """`messages` with `text` at the end, as the user's word.

    Behind a user's message it becomes part of that one: some chat templates refuse two of them in a row.
    """
    *before, last = messages
    if last.role != "user":
        return (*messages, Message(role="user", content=text))
    return (*before, last.model_copy(update={"content": f"{last.content}\n\n{text}"}))
