"""Tool calls in a reply, whole or in the parts of a stream, in the forms that servers give them."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, field_validator

from journeyman.agents.reply import UnreadableReplyError, read_json
from journeyman.traces.base import Record
from journeyman.traces.messages import ToolCall


class CallPart(Record):
    """A part of a tool call that is streamed."""

    index: int | None = None
    """As the server counts, where it does; `CallNumbers` makes it the same for the parts of one call, and no other."""
    id: str = ""
    name: str = ""
    arguments: str = ""
    """A part of the arguments' JSON text."""


class CallNumbers:
    """Tells which parts belong together.

    Some servers give every call the index 0, or none; some repeat the id, and some give none. So another id or another
    name is another call, and so is a beginning behind arguments that are whole.
    """

    def __init__(self) -> None:
        self._calls: list[CallPart] = []
        """Each as far as it came, with the server's own index."""

    def numbered(self, part: CallPart) -> CallPart:
        """`part` with an index that is its call's own, and without an id or a name that the call has already."""
        number = self._number(part)
        if number is None:
            self._calls.append(part)
            return part.model_copy(update={"index": len(self._calls) - 1})
        call = self._calls[number]
        self._calls[number] = _joined(call, part)
        return part.model_copy(
            update={"index": number, "id": "" if call.id else part.id, "name": "" if call.name else part.name}
        )

    def _number(self, part: CallPart) -> int | None:
        """Of the call that `part` goes on with, the last one that it may be."""
        alike = [
            number
            for number, call in enumerate(self._calls)
            if part.index is None or call.index is None or part.index == call.index
        ]
        if part.id and any(self._calls[number].id == part.id for number in alike):
            alike = [number for number in alike if self._calls[number].id == part.id]
        return alike[-1] if alike and not _begins(part, self._calls[alike[-1]]) else None


class WireFunction(BaseModel):
    name: str | None = None
    arguments: str | None = None

    @field_validator("arguments", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """Some servers give the object itself."""
        return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


class WireCall(BaseModel):
    index: int | None = None
    id: str | None = None
    function: WireFunction | None = None

    @property
    def part(self) -> CallPart:
        function = self.function or WireFunction()
        return CallPart(
            index=self.index, id=self.id or "", name=function.name or "", arguments=function.arguments or ""
        )


def join_parts(parts: Iterable[CallPart]) -> list[CallPart]:
    """The calls that were streamed, each whole, in the order of their beginnings."""
    numbers = CallNumbers()
    whole: dict[int | None, CallPart] = {}
    for part in map(numbers.numbered, parts):
        whole[part.index] = _joined(whole[part.index], part) if part.index in whole else part
    return list(whole.values())


def read_calls(parts: Sequence[CallPart]) -> tuple[tuple[ToolCall, ...], str | None]:
    """The calls; or none of them, and why one cannot be read."""
    calls: list[ToolCall] = []
    for number, part in enumerate(parts):
        if not part.name:
            return (), "a tool call has no name"
        try:
            arguments = read_json(part.arguments.strip() or "{}")
        except UnreadableReplyError as error:
            return (), f"the arguments of {part.name} are unusable: {error}"
        if arguments is None:
            arguments = {}
        if not isinstance(arguments, dict):
            return (), f"the arguments of {part.name} must be a JSON object"
        known = part.id and all(call.id != part.id for call in calls)
        calls.append(ToolCall(id=part.id if known else f"call-{number}", name=part.name, arguments=arguments))
    return tuple(calls), None


def _joined(call: CallPart, part: CallPart) -> CallPart:
    return CallPart(
        index=call.index,
        id=call.id or part.id,
        name=call.name or part.name,
        arguments=call.arguments + part.arguments,
    )


def _begins(part: CallPart, call: CallPart) -> bool:
    """Whether `part` is the beginning of another call than `call`."""
    if (part.id and call.id and part.id != call.id) or (part.name and call.name and part.name != call.name):
        return True
    return bool((part.id or part.name) and part.arguments and _is_whole(call.arguments))


def _is_whole(arguments: str) -> bool:
    try:
        return isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return False
