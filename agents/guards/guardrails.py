"""Guardrails: checks of the texts that go into and come out of agents, tool calls and the answer.

A check is a plain callable, sync or async: `check(text, context)` gives None where nothing is wrong, a reason, or a
`Finding` that also says which characters to take out. Its guardrail says what then happens:

- `block`: the text goes no further;
- `redact`: what was found is replaced by `[redacted:<name>]`, the whole text where the check named no characters;
- `warn`: nothing changes, the trace tells;
- `ask`: a person decides; the run waits, where it is kept, and else the text is withheld.

A check that fails (raises, runs out of time, gives something else, or names characters that are not there) blocks,
because nobody knows what it would have said; one that could only warn gives a warning. Plain functions run in the
event loop, so they must be quick: a check that waits for something must be async.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import cached_property
from typing import Any, Literal, Self, TypeAlias, TypeVar, cast

from pydantic import BaseModel, Field, JsonValue, field_serializer, field_validator, model_validator

from journeyman.agents.decision import Decision, Point
from journeyman.agents.guards.plain_json import with_strings, write_plain
from journeyman.traces.base import Record

V = TypeVar("V")

Action = Literal["block", "redact", "warn", "ask"]

AGENTS: frozenset[Point] = frozenset({"agent", "call", "result", "output"})
"""Where an agent is known."""
TOOLS: frozenset[Point] = frozenset({"call", "result"})
"""Where a tool is known."""


class CheckContext(Record):
    """What a check may know besides the text."""

    point: Point
    agent: str | None = None
    tool: str | None = None
    evidence: tuple[str, ...] = ()
    """Texts that an output or an answer may rest on, e.g. what tools gave."""
    value: JsonValue = None
    """What the text was written from, where that was no text: a call's arguments, an output that is a list."""


class Finding(Record):
    """What a check found."""

    reason: str
    """In one line; it goes to the trace and to those who are told, so it should not quote the text."""
    spans: tuple[tuple[int, int], ...] = ()
    """Characters to take out, each a start and an end; they may overlap."""

    @field_validator("spans")
    @classmethod
    def _forward(cls, spans: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        if wrong := [span for span in spans if not 0 <= span[0] <= span[1]]:
            raise ValueError(f"{wrong[0]} is no span: a start that is not negative, and an end that is not before it")
        return spans


Found: TypeAlias = str | Finding | None
Check: TypeAlias = Callable[[str, CheckContext], Found | Awaitable[Found]]
"""Gives None where nothing is wrong with a text, else a reason or a `Finding`; sync or async."""


class Guardrail(Record):
    """A check, where it is made, and what happens when it finds something."""

    name: str
    """What decisions in the trace and marks in a text call it; in a crew's file the name of the check by default."""
    check: Check
    """A check in the box by its name, or a function of yours as `module:function`."""
    at: tuple[Point, ...] = Field(min_length=1)
    """Where texts are checked: the task before the crew sees it, an agent's goal, a tool call's arguments, a tool's
    result before a model reads it, an agent's output, the answer of the run."""
    action: Action = "block"
    """What happens when the check finds something: `block` stops the text, `redact` takes the find out, `warn` only
    notes it, `ask` lets a person decide."""
    agents: tuple[str, ...] = ()
    """Only for these agents; empty for all."""
    tools: tuple[str, ...] = ()
    """Only for calls and results of these tools; empty for all."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Seconds that an async check may take; a plain function cannot be stopped."""

    @field_validator("at", "agents", "tools", mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _can_apply(self) -> Self:
        for field, points in (("agents", AGENTS), ("tools", TOOLS)):
            if getattr(self, field) and (lost := [point for point in self.at if point not in points]):
                raise ValueError(f"guardrail {self.name!r}: there are no {field} at {lost[0]!r}; leave out one of them")
        return self

    @field_serializer("check")
    def _written(self, check: Check) -> JsonValue:
        kind = check if inspect.isroutine(check) else type(check)
        written: dict[str, JsonValue] = {"check": f"{kind.__module__}:{kind.__qualname__}"}
        return written | check.model_dump(mode="json") if isinstance(check, BaseModel) else written

    def check_names(self, agents: Collection[str], tools: Collection[str]) -> None:
        """Raises `ValueError` for an agent or a tool that the crew has not: the guardrail would guard nothing."""
        for kind, named, known in (("agent", self.agents, agents), ("tool", self.tools, tools)):
            if lost := [name for name in named if name not in known]:
                have = ", ".join(known) or "none"
                raise ValueError(f"guardrail {self.name!r}: unknown {kind} {lost[0]!r}; the crew has: {have}")

    def applies(self, context: CheckContext) -> bool:
        return (
            context.point in self.at
            and (not self.agents or context.agent in self.agents)
            and (not self.tools or context.tool in self.tools)
        )


class Guarded(Record):
    """A text after its checks."""

    text: str
    """What may go on; empty where it was blocked."""
    decisions: tuple[Decision, ...] = ()
    blocked: str | None = None
    """Why the text goes no further."""
    ask: str | None = None
    """What a person must decide before `text` goes on."""


class Guards:
    """The guardrails of a crew, ready to check."""

    def __init__(self, guardrails: Iterable[Guardrail] = ()) -> None:
        self._guardrails = tuple(guardrails)

    def __bool__(self) -> bool:
        return bool(self._guardrails)

    def watch(self, point: Point) -> bool:
        """Whether anything is checked there."""
        return point in self._points

    @cached_property
    def stopping(self) -> Self:
        """Those that may stop or change a text: it must not go on before they have answered."""
        return type(self)(one for one in self._guardrails if one.action != "warn")

    @cached_property
    def warning(self) -> Self:
        """Those that only warn: they may run beside the work."""
        return type(self)(one for one in self._guardrails if one.action == "warn")

    async def check(
        self,
        point: Point,
        text: str,
        *,
        agent: str | None = None,
        tool: str | None = None,
        evidence: Sequence[str] = (),
    ) -> Guarded:
        """All checks of one place, run at once on the same text; never raises what a check raises.

        A block outweighs a question, and both outweigh what is taken out, which is taken out in any case.
        """
        if point not in self._points:
            return Guarded(text=text)
        context = CheckContext(point=point, agent=agent, tool=tool, evidence=tuple(evidence))
        decisions, cuts = await self._found(text, context)
        return _combined(_without(text, cuts), decisions)

    async def check_json(
        self,
        point: Point,
        value: V,
        *,
        agent: str | None = None,
        tool: str | None = None,
        evidence: Sequence[str] = (),
    ) -> tuple[V, Guarded]:
        """Like `check`, for arguments or an output; gives the value that may go on.

        A string is checked as it is, anything else as JSON in which strings are not escaped: they would hide what
        checks look for. What was found outside of strings cannot be taken out, and is blocked.
        """
        if point not in self._points:
            return value, Guarded(text=value if isinstance(value, str) else "")
        if isinstance(value, str):
            guarded = await self.check(point, value, agent=agent, tool=tool, evidence=evidence)
            return cast(V, value if guarded.blocked is not None else guarded.text), guarded
        given = cast(JsonValue, value)
        text, strings = write_plain(given)
        context = CheckContext(point=point, agent=agent, tool=tool, evidence=tuple(evidence), value=given)
        decisions, cuts = await self._found(text, context)
        guarded = _combined(_without(text, cuts), decisions)
        if guarded.blocked is not None or not cuts:
            return value, guarded
        if not all(any(first <= start and end <= last for first, last in strings) for start, end, _ in cuts):
            lost = "what was to be taken out cannot be taken out of JSON"
            return value, guarded.model_copy(update={"text": "", "blocked": lost, "ask": None})
        left = iter([_without(text, cuts, first, last) for first, last in strings])
        return cast(V, with_strings(given, left)), guarded

    async def _found(self, text: str, context: CheckContext) -> "tuple[list[Decision], list[Cut]]":
        """What is decided about a text, and what is to be taken out of it."""
        chosen = [one for one in self._guardrails if one.applies(context)]
        said = await asyncio.gather(*(_ask(one, text, context) for one in chosen))
        found = [(one, what) for one, what in zip(chosen, said, strict=True) if what]
        cuts = [
            (start, end, one.name)
            for one, what in found
            if one.action == "redact" and isinstance(what, Finding)
            for start, end in what.spans or ((0, len(text)),)
        ]
        return [_decision(one, what, context.point) for one, what in found], cuts

    @cached_property
    def _points(self) -> frozenset[Point]:
        return frozenset(point for one in self._guardrails for point in one.at)


Cut: TypeAlias = tuple[int, int, str]
"""Characters to take out, and the name of the guardrail that says so."""


class _Failed(Record):
    """A check that gave no answer."""

    reason: str


async def _ask(guardrail: Guardrail, text: str, context: CheckContext) -> Finding | _Failed | None:
    try:
        found = guardrail.check(text, context)
        if inspect.isawaitable(found):
            async with asyncio.timeout(guardrail.timeout_s):
                found = await found
    except Exception as error:
        # The message could quote the text.
        return _Failed(reason=f"the check {guardrail.name!r} failed ({type(error).__name__})")
    if isinstance(found, Finding) and any(end > len(text) for _, end in found.spans):
        return _Failed(reason=f"the check {guardrail.name!r} named characters that the text does not have")
    if found is None or isinstance(found, Finding):
        return found
    if isinstance(found, str):
        return Finding(reason=found)
    return _Failed(reason=f"the check {guardrail.name!r} gave a {type(found).__name__}, not None, a str or a Finding")


def _decision(guardrail: Guardrail, what: Finding | _Failed, point: Point) -> Decision:
    action = guardrail.action
    if isinstance(what, _Failed) and action != "warn":
        action = "block"
    return Decision(source="guardrail", name=guardrail.name, point=point, action=action, reason=what.reason)


def _combined(text: str, decisions: Sequence[Decision]) -> Guarded:
    blocked = _reasons(decisions, "block")
    return Guarded(
        text="" if blocked else text,
        decisions=tuple(decisions),
        blocked=blocked,
        ask=None if blocked else _reasons(decisions, "ask"),
    )


def _reasons(decisions: Sequence[Decision], action: Action) -> str | None:
    return "; ".join(f"{one.name}: {one.reason}" for one in decisions if one.action == action) or None


def _without(text: str, cuts: Iterable[Cut], first: int = 0, last: int | None = None) -> str:
    """`text` from `first` to `last` with a mark for each cut there; those that overlap become one."""
    last = len(text) if last is None else last
    kept: list[str] = []
    at = first
    for start, end, name in sorted(cut for cut in cuts if first <= cut[0] and cut[1] <= last):
        if start >= at:
            kept += [text[at:start], f"[redacted:{name}]"]
        at = max(at, end)
    return "".join([*kept, text[at:last]])
