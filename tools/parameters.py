"""Parameters: what a tool takes, from a function's annotations or from a ready JSON schema."""

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Protocol, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from journeyman.tools.context import ToolContext
from journeyman.traces.errors import ConfigError

DEFINITION = "#/$defs/"


class InvalidArgumentsError(ValueError):
    """Arguments that a tool does not take; the message says in one line which and why."""


class Parameters(Protocol):
    context_parameter: str | None
    """Name of the parameter that takes a `ToolContext`; it is not part of the schema."""

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the arguments object, without references, so that it may stand inside another schema."""
        ...

    def read(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments of the call; raises `InvalidArgumentsError`."""
        ...


class AnnotatedParameters:
    """Read from a function's signature; pydantic converts what can be converted."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        hints = get_type_hints(function)
        self.context_parameter: str | None = None
        fields: dict[str, Any] = {}
        for parameter in inspect.signature(function).parameters.values():
            if hints.get(parameter.name) is ToolContext:
                self.context_parameter = parameter.name
                continue
            if parameter.name not in hints:
                raise ConfigError(f"tool {name!r}: parameter {parameter.name!r} needs a type annotation")
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (hints[parameter.name], default)
        self._model = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)

    @cached_property
    def schema(self) -> dict[str, Any]:
        return _inlined(self._model.model_json_schema())

    def read(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            valid = self._model.model_validate(arguments)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise InvalidArgumentsError(f"{_place(first['loc'])}: {first['msg']}") from None
        return {name: getattr(valid, name) for name in type(valid).model_fields}


class SchemaParameters:
    """A JSON schema that someone else wrote: arguments are held to it and passed on as they are."""

    def __init__(self, name: str, schema: Mapping[str, Any]) -> None:
        # Takes a tenth of a second to import, which only tools from elsewhere need.
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import validator_for
        from referencing import Registry

        if schema.get("type") != "object":
            raise ConfigError(f'tool {name!r}: the schema of its parameters must have "type": "object"')
        kind = validator_for(schema)
        try:
            kind.check_schema(dict(schema))
        except SchemaError as error:
            raise ConfigError(f"tool {name!r}: its parameters are not a JSON schema: {error.message}") from None
        self.context_parameter: str | None = None
        # An empty registry: a reference to an address is never fetched.
        self._validator = kind(dict(schema), registry=Registry())
        self.schema = _inlined({"properties": {}, **schema})

    def read(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        from referencing.exceptions import Unresolvable

        try:
            error = next(self._validator.iter_errors(dict(arguments)), None)
        except Unresolvable as nowhere:
            raise InvalidArgumentsError(f"the tool's schema refers to {nowhere.ref}, which it does not hold") from None
        if error is not None:
            raise InvalidArgumentsError(f"{_place(error.absolute_path)}: {error.message}")
        return dict(arguments)


def _place(path: Any) -> str:
    return ".".join(str(part) for part in path) or "arguments"


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` with each local reference replaced by what it refers to, where a definition holds itself by anything.

    A tool's schema becomes part of the schema of a turn, where a reference to `#/$defs` would lead nowhere.
    """
    definitions = schema.get("$defs", {})

    def resolve(value: Any, within: tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return [resolve(one, within) for one in value]
        if not isinstance(value, dict):
            return value
        target = value.get("$ref")
        if isinstance(target, str) and target.startswith(DEFINITION):
            name = target.removeprefix(DEFINITION)
            rest = {key: resolve(one, within) for key, one in value.items() if key != "$ref"}
            return {} if name in within else {**resolve(definitions.get(name, {}), (*within, name)), **rest}
        return {key: resolve(one, within) for key, one in value.items()}

    inlined: dict[str, Any] = resolve({key: value for key, value in schema.items() if key != "$defs"}, ())
    return inlined
