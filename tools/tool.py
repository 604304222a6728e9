"""A tool: a typed Python function that an agent may call."""

import copy
import inspect
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, overload

from pydantic import Field

from journeyman.tools.parameters import AnnotatedParameters, Parameters, SchemaParameters
from journeyman.traces.errors import ConfigError

Function = Callable[..., Any] | Callable[..., Awaitable[Any]]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
"""Limits of the tools in the box, as a crew's file is held to them."""


class Tool:
    """What a model sees of a function (name, description, parameters) and the function itself.

    `function` may be plain or async; its annotations become the JSON schema of its parameters, its docstring's first
    paragraph the description. It returns something that `str` makes readable, and raises `ToolError` where it can't.
    A ready JSON schema may be given as `parameters` instead: then `function` takes any keyword arguments.
    With `description=""` a prompt says nothing of the tool, as where an adapter has learned to call it.
    """

    def __init__(
        self,
        function: Function,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout_s: float = 30.0,
        max_chars: int = 20_000,
        parameters: Mapping[str, Any] | None = None,
        writes: bool = False,
        idempotent: bool | None = None,
        approve: bool = False,
        asks: bool = False,
    ) -> None:
        self.function = function
        self.name = _checked(name or str(getattr(function, "__name__", type(function).__name__)))
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigError(f"tool {self.name!r} gives its result in parts (`yield`): return it in one piece")
        self.description = _first_paragraph(function) or self.name if description is None else description
        self.timeout_s = timeout_s
        """Seconds after which a call is given up."""
        self.max_chars = max_chars
        """Characters of a result that a model is shown; the rest is cut off, and said to be."""
        self.arguments: Parameters = (
            AnnotatedParameters(self.name, function) if parameters is None else SchemaParameters(self.name, parameters)
        )

        self.writes = writes
        """It changes something outside of the run; permissions can forbid that."""
        self.idempotent = not writes if idempotent is None else idempotent
        """A call that a crash interrupted may be made again; without that it is made at most once for a task."""
        self.approve = approve
        """A person must agree to each call first."""
        self.asks = asks
        """The call is a question to a person, whose answer is the result."""
        self.counts = not asks
        """Whether a budget of tool calls is asked for it; a question calls nothing."""

    @property
    def context_parameter(self) -> str | None:
        return self.arguments.context_parameter

    @property
    def parameters(self) -> dict[str, Any]:
        """JSON schema of the arguments object."""
        return self.arguments.schema

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """What a call that leaves an argument out has in its place, as JSON."""
        properties = self.parameters.get("properties", {}).items()
        return {name: one["default"] for name, one in properties if isinstance(one, dict) and "default" in one}

    @cached_property
    def bare_parameters(self) -> dict[str, Any]:
        """`parameters` without pydantic's titles, which a decoder has no use for."""
        return _untitled(self.parameters)

    @cached_property
    def told(self) -> str:
        """What a prompt says of the tool behind its name: what it takes and what it does."""
        return f"{json.dumps(self.bare_parameters.get('properties', {}), ensure_ascii=False)}: {self.description}"

    @property
    def definition(self) -> dict[str, Any]:
        """The tool as the template of a model that has one is given it."""
        return {"name": self.name, "description": self.description, "parameters": self.parameters}

    def marked(self, **marks: bool) -> "Tool":
        """The same with other values of `writes`, `idempotent` (by default: it does not write) or `approve`."""
        twin = copy.copy(self)
        if "writes" in marks:
            marks = {"idempotent": not marks["writes"], **marks}
        for name, value in marks.items():
            setattr(twin, name, value)
        return twin

    def described(self, text: str) -> "Tool":
        """The same with another description; an empty one leaves it out of what agents that write JSON are told."""
        twin = copy.copy(self)
        twin.description = text
        twin.__dict__.pop("told", None)
        return twin

    def renamed(self, name: str) -> "Tool":
        twin = copy.copy(self)
        twin.name = _checked(name)
        return twin

    def __repr__(self) -> str:
        return f"Tool({self.name!r})"


@overload
def tool(function: Function) -> Tool: ...
@overload
def tool(**options: Any) -> Callable[[Function], Tool]: ...
def tool(function: Function | None = None, **options: Any) -> Tool | Callable[[Function], Tool]:
    """Makes a `Tool` of a function: `@tool`, or `@tool(timeout_s=5, approve=True)` with any option of `Tool`."""

    def make(function: Function) -> Tool:
        return Tool(function, **options)

    return make if function is None else make(function)


def toolbox(name: str, tools: Iterable[Tool]) -> dict[str, Tool]:
    """`tools` under the names `<name>_<tool>`, as a crew takes them: `Crew(tools=toolbox("notes", files("notes")))`."""
    box: dict[str, Tool] = {}
    for one in tools:
        named = one.renamed(f"{name}_{one.name}")
        if named.name in box:
            raise ConfigError(f"tools.{name}: two tools of the name {named.name!r}: rename one")
        box[named.name] = named
    return box


def _untitled(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _untitled(value) if isinstance(value, dict) else value
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }


def _checked(name: str) -> str:
    if not name.isidentifier() or name == "answer":
        raise ConfigError(f"tool name {name!r} must be a Python identifier other than 'answer', such as look_up")
    return name


def _first_paragraph(function: Function) -> str:
    return " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
