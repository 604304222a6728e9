"""Growth: a prompt grows turn by turn, and each turn is recorded with what came to it since an earlier one.

Recorded whole, the prompts of n turns would take n² room. A span that has less than the whole names the span of the
same trace that has the rest, and which part of it.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from pydantic import JsonValue

from journeyman.traces import attributes as a

GROWING = (a.INPUT_MESSAGES, a.PROMPT_TOKEN_IDS)
"""Attributes that are JSON lists which grow."""

LARGE = 4096
"""Characters of a list below which it is recorded whole: so much with each turn is no more than the turn's own."""

ROOM = 64 * 2**20
"""Characters of the last prompts that are remembered, to be compared with the next ones."""

_WORTH = 1024
"""Characters that must be spared."""
_ALIKE = 200
"""Characters at the end of a list by which it is looked for in the middle of another."""
_BEGINS = 9
"""Characters up to which the first member's begin is compared with the others'."""


class Growth(NamedTuple):
    """What of a list an earlier span has: `[`, what stands `at` its start, then that part, `comma`, and the rest."""

    after: str
    """Id of the span that has it."""
    first: int
    """Where the part begins in that span's whole list, in characters."""
    last: int
    """Where it ends; -1, before its `]`."""
    at: int
    """Characters of the new part that stand before it: 0 unless the list begins otherwise than that span's."""
    comma: str
    """What stands between that part and the rest."""

    @property
    def appends(self) -> bool:
        """Whether the list is all of that span's and the new part."""
        return (self.first, self.last, self.at) == (1, -1, 0)

    def whole(self, new: str, before: str) -> str:
        """The list, from its new part, itself a list, and the whole list of the span that has the rest."""
        head = 1 + self.at
        return f"{new[:head]}{before[self.first : self.last]}{self.comma}{new[head:]}"


class GrowingText(str):
    """JSON text of a list that goes on from the earlier texts of one `GrowingList`."""

    __slots__ = ("origin",)
    origin: object

    def goes_on_from(self, earlier: str) -> bool:
        """Whether it is known to be all of `earlier`, but for the `]`, and what came to it."""
        known = isinstance(earlier, GrowingText) and earlier.origin is self.origin
        return known and len(earlier) <= len(self)


class GrowingList:
    """A list that is written as JSON again and again, with more at its end each time.

    To write some megabytes each time, and to compare them with the last ones, takes more than all else that is done to
    record a turn.
    """

    def __init__(self) -> None:
        self._parts = ["["]
        self._origin = object()

    def add(self, members: str) -> str:
        """Adds what stands between `[` and `]` in a list; returns it as it stands in the text."""
        part = f",{members}" if members and len(self._parts) > 1 else members
        if part:
            self._parts.append(part)
        return part

    def text(self) -> GrowingText:
        text = GrowingText("".join([*self._parts, "]"]))
        text.origin = self._origin
        return text


class Growths:
    """Remembers the last prompts, each of an agent's work, and finds how the next ones grew from them."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._weight = 0
        self._last: OrderedDict[_Key, _Last] = OrderedDict()

    def of(
        self, trace_id: str, parent_id: str | None, span_id: str, attributes: Mapping[str, JsonValue]
    ) -> dict[str, tuple[Growth, str]]:
        """By attribute: how the span's lists grew, and their new parts. From now on the span is an earlier one."""
        found = {}
        for name in GROWING:
            text = attributes.get(name)
            if not isinstance(text, str) or len(text) < LARGE or not (text[0] == "[" and text[-1] == "]"):
                continue
            if name == a.PROMPT_TOKEN_IDS and text.find(", ", 0, _BEGINS * 2) >= 0:
                continue  # As older logs have it; a segment gives numbers back without spaces.
            key = (trace_id, parent_id, name, attributes.get(a.OPERATION) in a.INFERENCE)
            before = self._last.get(key)
            if before is not None and span_id in before.earlier:
                continue  # Sent again: it would grow from what grew from it.
            if before is not None and (growth := _growth(before, text, name)) is not None:
                found[name] = growth
            self._remember(key, span_id, text)
        return found

    def forget(self, trace_id: str, parent_id: str | None) -> None:
        """Nothing grows from what was there: the agent's work is over, or its prompts must not be gone on from."""
        for name in GROWING:
            for inference in (True, False):
                self._drop((trace_id, parent_id, name, inference))

    def _remember(self, key: "_Key", span_id: str, text: str) -> None:
        earlier = self._drop(key)
        earlier.add(span_id)
        self._last[key] = _Last(span_id, text, earlier)
        self._weight += len(text)
        while self._weight > self._room:
            self._drop(next(iter(self._last)))

    def _drop(self, key: "_Key") -> set[str]:
        _, text, earlier = self._last.pop(key, _Last("", "", set()))
        self._weight -= len(text)
        return earlier


_Key: TypeAlias = tuple[str, str | None, str, bool]
"""Trace, agent's work, attribute, and whether it is a model call: some readers see only those."""


class _Last(NamedTuple):
    span_id: str
    text: str
    earlier: set[str]
    """Ids of all spans of the key so far, this one too."""


def _growth(before: _Last, text: str, name: str) -> tuple[Growth, str] | None:
    """How `text` grew from the list that the span `before` has, if it did."""
    span_id, known, _ = before
    comma, border = _borders(text, name)
    size = len(known) - 1
    known_to = isinstance(text, GrowingText) and text.goes_on_from(known)
    if known_to or (text.startswith(known[:size]) and text[size : size + 1] in (",", "]")):
        start, end, first, last = 1, size, 1, -1
    else:
        start, end = max(_same_start(known, text, border), _same_end(known, text, comma, border), key=_width)
        first, last = (1, end) if start == 1 else (size - (end - start), -1)
        if name == a.PROMPT_TOKEN_IDS and start > 1 and text[end] == "]":
            # The last number is new, so that the new part is a list of numbers, which has a column.
            end = text.rfind(comma, 0, end)
            last = first + end - start
    between = comma if text.startswith(comma, end) else ""
    growth, new = Growth(span_id, first, last, start - 1, between), text[:start] + text[end + len(between) :]
    if end - start < _WORTH or (not growth.appends and growth.whole(new, known) != text):
        return None
    return growth, new


def _width(part: tuple[int, int]) -> int:
    return part[1] - part[0]


def _borders(text: str, name: str) -> tuple[str, str]:
    """The comma between two members, and what a member after it begins with: members of a list of messages begin alike.

    JSON may have a space after a comma.
    """
    if name == a.PROMPT_TOKEN_IDS:
        return ",", ","
    begins = text[1:_BEGINS]
    second = text.find(begins, _BEGINS)
    comma = ", " if text.endswith(", ", 0, max(0, second)) else ","
    return comma, comma + begins


def _same_start(known: str, text: str, border: str) -> tuple[int, int]:
    """From where to where both are the same, up to the end of a member of the list."""
    same = _same(lambda count: known[:count] == text[:count], min(len(known), len(text)) - 1)
    return 1, max(1, text.rfind(border, 0, same + 1))


def _same_end(known: str, text: str, comma: str, border: str) -> tuple[int, int]:
    """From where to where `text` has what `known` ends with, beginning with a member of the list."""
    size = len(known) - 1
    tail = known[max(1, size - _ALIKE) : size]
    found = text.rfind(tail)
    end = found + len(tail)
    if found < 0 or text[end] not in ",]":
        return 1, 1
    same = _same(lambda count: known[size - count : size] == text[end - count : end], min(size, end) - 1)
    at = text.find(border, end - same, end)
    return (1, 1) if at < 0 else (at + len(comma), end)


def _same(equal: Callable[[int], bool], most: int) -> int:
    """The largest count, up to `most`, for which that many characters are equal."""
    least = 0
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if equal(middle) else (least, middle - 1)
    return least
