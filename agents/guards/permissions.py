"""Permissions: which agent may use which tool with which arguments. The runtime enforces them, not the prompt."""

import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import to_json

from journeyman.agents.decision import Decision
from journeyman.tools.tool import Tool
from journeyman.traces.base import Config

Verdict = Literal["allow", "deny", "ask"]


class Permission(Config):
    """One row: it matches a call where all that it names does."""

    agent: str = "*"
    """Name of an agent; `*` stands for any characters."""
    tool: str = "*"
    """Name of a tool; `notes_*` is all tools of the table `notes`."""
    arguments: dict[str, str] = Field(default_factory=dict)
    """Argument to a regular expression that must match the whole value, as the tool would get it, defaults included;
    what is not a string is matched as JSON. An argument that the call does not have matches nothing."""
    writes: bool | None = None
    """Only tools that write (true) or only read (false)."""
    decision: Verdict
    """`ask` lets a person decide; the run waits for them."""
    reason: str = ""
    """What the model, the person who is asked, and the trace are told."""

    @field_validator("arguments")
    @classmethod
    def _expressions(cls, arguments: dict[str, str]) -> dict[str, str]:
        for name, expression in arguments.items():
            try:
                re.compile(expression)
            except re.error as error:
                raise ValueError(f"{name}: {expression!r} is not a regular expression: {error}") from None
        return arguments

    def matches(self, agent: str, tool: Tool, values: Mapping[str, str]) -> bool:
        return (
            fnmatchcase(agent, self.agent)
            and fnmatchcase(tool.name, self.tool)
            and self.writes in (None, tool.writes)
            and all(
                name in values and re.fullmatch(expression, values[name], re.DOTALL)
                for name, expression in self.arguments.items()
            )
        )


class Permissions(Config):
    """An ordered table: the first row that matches decides, `default` where none does.

    Rows alone may be written as `[[permissions]]`.
    """

    rows: tuple[Permission, ...] = ()
    """The rows, in their order."""
    default: Verdict = "allow"
    """What holds for a call that no row matches."""

    @model_validator(mode="before")
    @classmethod
    def _from_rows(cls, given: Any) -> Any:
        """Rows alone may be given, as `[[permissions]]` does."""
        return {"rows": given} if isinstance(given, list | tuple) else given

    def check_names(self, agents: Collection[str], tools: Collection[str]) -> None:
        """Raises `ValueError` for a row that fits no agent or no tool of the crew: it would decide nothing."""
        for number, row in enumerate(self.rows, start=1):
            for kind, pattern, known in (("agent", row.agent, agents), ("tool", row.tool, tools)):
                if pattern != "*" and not any(fnmatchcase(name, pattern) for name in known):
                    have = ", ".join(known) or "none"
                    raise ValueError(f"permission {number}: no {kind} is called {pattern!r}; the crew has: {have}")

    def __bool__(self) -> bool:
        return bool(self.rows) or self.default != "allow"

    def decide(self, agent: str, tool: Tool, arguments: Mapping[str, Any]) -> Decision:
        """Whether `agent` may make that call. A tool marked `approve` is asked for where the table would allow it."""
        values = _values(tool, arguments) if any(row.arguments for row in self.rows) else {}
        name, verdict, reason = "default", self.default, ""
        for number, row in enumerate(self.rows, start=1):
            if row.matches(agent, tool, values):
                name, verdict, reason = f"row {number}", row.decision, row.reason
                break
        if tool.approve and verdict == "allow":
            name, verdict, reason = "approve", "ask", f"each call of {tool.name} needs a person's approval"
        if verdict != "allow" and not reason:
            reason = f"{agent} may not call {tool.name} so" + (" without being asked for" if verdict == "ask" else "")
        return Decision(source="permission", name=name, point="call", action=verdict, reason=reason)


def _values(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, str]:
    """The arguments as texts, as the tool would get them: converted, defaults filled in."""
    try:
        read = tool.arguments.read(dict(arguments))
    except Exception:  # A validator is the tool's code too, and may raise anything.
        read = dict(arguments)  # The tool will refuse them; the table still has its say.
    return {name: value if isinstance(value, str) else _as_json(value) for name, value in read.items()}


def _as_json(value: Any) -> str:
    return to_json(value, fallback=str).decode()
