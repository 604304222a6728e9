"""A tool: a typed Python function that an agent may call."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, create_model

from journeyman.traces.errors import ConfigError

Function = Callable[..., Any] | Callable[..., Awaitable[Any]]


class Tool:
    """What a model sees of a function (name, description, parameters) and the function itself.

    `function` may be plain or async; its annotations become the JSON schema of its parameters, its docstring's first
    paragraph the description. It returns something that `str` makes readable, and raises `ToolError` where it can't.
    """

    def __init__(
        self,
        function: Function,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        self.function = function
        self.name = name or function.__name__
        if not self.name.isidentifier() or self.name == "answer":
            raise ConfigError(f"tool name {self.name!r} must be a Python identifier other than 'answer'")
        self.description = description or _first_paragraph(function)
        self.timeout_s = timeout_s
        """Seconds after which a call is given up."""
        self.arguments_model = _arguments_model(self.name, function)

    @property
    def parameters(self) -> dict[str, Any]:
        """JSON schema of the arguments object."""
        return self.arguments_model.model_json_schema()

    def renamed(self, name: str) -> "Tool":
        return Tool(self.function, name=name, description=self.description, timeout_s=self.timeout_s)

    def __repr__(self) -> str:
        return f"Tool({self.name!r})"


@overload
def tool(function: Function) -> Tool: ...
@overload
def tool(*, name: str | None = None, timeout_s: float = 30.0) -> Callable[[Function], Tool]: ...
def tool(
    function: Function | None = None, *, name: str | None = None, timeout_s: float = 30.0
) -> Tool | Callable[[Function], Tool]:
    """Makes a `Tool` of a function: `@tool`, or `@tool(name=..., timeout_s=...)`."""

    def make(function: Function) -> Tool:
        return Tool(function, name=name, timeout_s=timeout_s)

    return make if function is None else make(function)


def _arguments_model(name: str, function: Function) -> type[BaseModel]:
    hints = get_type_hints(function)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in hints:
            raise ConfigError(f"tool {name!r}: parameter {parameter.name!r} needs a type annotation")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], default)
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


def _first_paragraph(function: Function) -> str:
    return " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
