"""Parameters: what a tool takes, from a function's annotations or from a ready JSON schema."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Protocol, get_args, get_type_hints
from urllib.parse import unquote

from pydantic import ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError

from journeyman.tools.context import ToolContext
from journeyman.traces.base import first_mistake
from journeyman.traces.errors import ConfigError

DEFINITIONS = {"$defs", "definitions"}
MAX_SCHEMA_PARTS = 20_000
"""Of one tool, references replaced: definitions that refer to each other twice and twice again would never end."""


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
    """Read from a function's signature; pydantic converts what can be converted, and holds it to `Annotated` bounds."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        try:
            hints = get_type_hints(function, include_extras=True)
        except (NameError, TypeError) as error:
            raise ConfigError(f"tool {name!r}: its annotations cannot be read: {error}") from None
        self.context_parameter: str | None = None
        self._names: dict[str, str] = {}
        fields: dict[str, Any] = {}
        for parameter in inspect.signature(function).parameters.values():
            _check(name, parameter, hints)
            hint = hints[parameter.name]
            if hint is ToolContext or ToolContext in get_args(hint):
                self.context_parameter = parameter.name
                continue
            # A name of ours for each field: theirs may be one that pydantic uses itself, such as `schema` or `_id`.
            field = f"field_{len(fields)}"
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[field] = (Annotated[hint, Field(alias=parameter.name)], default)
            self._names[field] = parameter.name
        try:
            self._model = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
            self.schema: dict[str, Any] = _inlined(name, self._model.model_json_schema())
        except PydanticUserError as error:
            raise ConfigError(f"tool {name!r}: a model cannot write its parameters: {_first_line(error)}") from None

    def read(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            valid = self._model.model_validate(arguments)
        except ValidationError as error:
            raise InvalidArgumentsError(first_mistake(error, self._model)) from None
        return {name: getattr(valid, field) for field, name in self._names.items()}


def _check(tool: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> None:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise ConfigError(f"tool {tool!r}: parameter {parameter.name!r} must be one that is given by its name")
    if parameter.name not in hints:
        raise ConfigError(f"tool {tool!r}: parameter {parameter.name!r} needs a type annotation")


def _first_line(error: PydanticUserError) -> str:
    return error.message.partition("\n")[0]


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
        self.schema = {"properties": {}, **_inlined(name, dict(schema))}

    def read(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        from referencing.exceptions import Unresolvable

        try:
            error = next(self._validator.iter_errors(dict(arguments)), None)
        except Unresolvable as nowhere:
            raise InvalidArgumentsError(f"the tool's schema refers to {nowhere.ref}, which it does not hold") from None
        except RecursionError:  # A schema in circles says nothing of them.
            error = None
        if error is not None:
            raise InvalidArgumentsError(f"{_place(error.absolute_path)}: {error.message}")
        return dict(arguments)


def _place(path: Any) -> str:
    return ".".join(str(part) for part in path) or "arguments"


def _inlined(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` with each reference within it replaced by what it refers to, where that holds itself by anything.

    A tool's schema becomes part of the schema of a turn, where a reference to `#/$defs` would lead nowhere.
    """
    left = MAX_SCHEMA_PARTS

    def resolve(value: Any, within: tuple[str, ...]) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConfigError(f"tool {name!r}: its parameters have a schema of more than {MAX_SCHEMA_PARTS:,} parts")
        if isinstance(value, list):
            return [resolve(one, within) for one in value]
        if not isinstance(value, dict):
            return value
        target = value.get("$ref")
        if isinstance(target, str) and target.startswith("#"):
            rest = {key: resolve(one, within) for key, one in value.items() if key != "$ref"}
            if target in within:
                return rest
            found = resolve(_pointed_at(schema, target), (*within, target))
            return {**found, **rest} if isinstance(found, dict) else rest
        return {key: resolve(one, within) for key, one in value.items()}

    inlined: dict[str, Any] = resolve({key: value for key, value in schema.items() if key not in DEFINITIONS}, ("#",))
    return inlined


def _pointed_at(schema: Any, reference: str) -> Any:
    """What a JSON pointer such as `#/$defs/Place` leads to; anything, where it leads nowhere."""
    for part in unquote(reference).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list):
            schema = schema[int(key)] if key.isdecimal() and int(key) < len(schema) else None
        else:
            schema = schema.get(key) if isinstance(schema, dict) else None
    return {} if schema is None else schema
