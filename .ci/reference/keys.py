"""Keys of files: each table of crew.toml, journeyman.toml and recipe.toml."""

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.crew_file import CrewFile, OrchestratorTable
from journeyman.agents.guards.checks import CHECKS
from journeyman.agents.guards.guardrails import Guardrail
from journeyman.agents.tool_tables import BUILDERS, OPTIONS, build_tools
from journeyman.runtime.config import ProjectConfig
from journeyman.tools.tool import Tool
from journeyman.training.methods.recipes.known import METHODS
from reference.source import described, docstring, meanings, paragraphs, table

BECOMES = {CrewFile: Crew, OrchestratorTable: Agent}
"""What a table becomes. A key that the table doesn't describe means what the field there does."""
PYTHON_ONLY = {"name", "resolve"}
"""Parameters of tools in the box that no crew's file needs."""
HEADERS = {tuple: "[[{}]]", dict: "[{}.NAME]", UnionType: "[{}]", Union: "[{}]"}
"""How a table's header is written, by what holds the table."""
PLAIN = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", Path: "path"}
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


class Key(NamedTuple):
    name: str
    kind: str
    default: str
    meaning: str


def files(shown: dict[type, str]) -> Iterator[str]:
    """`shown` is filled with the tables, each with its header: another of the same kind refers to it."""
    yield "## crew.toml"
    yield from tables(CrewFile, shown, apart=("tools", "guardrails"))
    yield from _tools()
    yield from _guardrails(shown)
    yield "## journeyman.toml"
    yield from tables(ProjectConfig, shown)
    yield "## recipe.toml"
    for method, recipe in METHODS.items():
        yield f'### method = "{method}"'
        yield from tables(recipe, shown)


def tables(kind: type[BaseModel], shown: dict[type, str], path: str = "", apart: Iterable[str] = ()) -> Iterator[str]:
    """What a table is, its keys but those `apart`, and the tables in it."""
    yield from _intro(kind)
    within = {name: held for name, field in kind.model_fields.items() if (held := _table_in(field.annotation))}
    if plain := [key for key in keys(kind) if key.name not in apart]:
        yield _key_table(plain)
    for name, (inner, form) in within.items():
        header = form.format(f"{path}.{name}" if path else name)
        if inner in shown:
            yield f"`{header}` has the keys of `{shown[inner]}`."
        else:
            shown[inner] = header
            yield f"### `{header}`"
            yield from tables(inner, shown, header.strip("[]"))


def keys(kind: type[BaseModel]) -> list[Key]:
    """The keys of a table whose values are no tables of ours."""
    told = (meanings(BECOMES[kind]) if kind in BECOMES else {}) | meanings(kind)
    return [
        _key(name, field, described(told.get(name), f"{kind.__name__}.{name}"))
        for name, field in kind.model_fields.items()
        if _table_in(field.annotation) is None
    ]


def _table_in(annotation: Any) -> tuple[type[BaseModel], str] | None:
    """The config that a key's value is made of, and how its table's header is written."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, "[{}]"
    origin, inner = get_origin(annotation), [found for part in get_args(annotation) if (found := _table_in(part))]
    return (inner[0][0], HEADERS[origin]) if inner and origin in HEADERS else None


def _key(name: str, field: FieldInfo, meaning: str) -> Key:
    bounds = [
        f"{mark} {getattr(rule, sign):g}"
        for rule in field.metadata
        for sign, mark in SIGNS.items()
        if hasattr(rule, sign)
    ]
    default = field.get_default(call_default_factory=True, validated_data={})
    return Key(
        name,
        f"{words(field.annotation)} {', '.join(bounds)}".strip(),
        "required" if default is PydanticUndefined else f"`{_written(default)}`",
        meaning[0].upper() + meaning[1:],
    )


def _key_table(rows: Iterable[Key]) -> str:
    return table(("key", "type", "default", "meaning"), ((f"`{name}`", *rest) for name, *rest in rows))


def words(kind: Any) -> str:
    """What a value is; a function is written as text."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _choice(f"`{_written(part)}`" for part in parts)
    if origin in (UnionType, Union):
        return _choice(dict.fromkeys(words(part) for part in parts if part is not type(None)))
    if origin is not None and issubclass(origin, Callable):  # type: ignore[arg-type]
        return "text"
    if origin is not None and issubclass(origin, Iterable) and not issubclass(origin, Mapping):
        part = words(parts[0])
        return f"list of {part}" if part.endswith("`") else f"list of {part}s"
    return PLAIN.get(kind, "table")


def _choice(parts: Iterable[str]) -> str:
    *others, last = parts
    return f"{', '.join(others)} or {last}" if others else last


def _written(value: Any) -> str:
    """A value as TOML writes it; None stands for a key that is left out."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _tools() -> Iterator[str]:
    yield "### `[tools.NAME]`"
    yield _first(build_tools)
    yield _key_table(_options(build_tools, dict.fromkeys(("use", *OPTIONS)), Tool.__init__))
    for use, address in BUILDERS.items():
        module, _, name = address.partition(":")
        builder = getattr(import_module(module), name)
        yield f'#### `use = "{use}"`'
        if isinstance(builder, Tool):
            yield _first(builder.function)
        else:
            yield _first(builder)
            named = (name for name in inspect.signature(builder).parameters if name not in PYTHON_ONLY)
            yield _key_table(_options(builder, named, builder))


def _first(function: Callable[..., Any]) -> str:
    return paragraphs(docstring(function), function.__name__)[0]


def _options(described_by: Callable[..., Any], names: Iterable[str], taken_by: Callable[..., Any]) -> Iterator[Key]:
    """Parameters as keys: a list in the docstring says what they mean."""
    told = dict(
        re.findall(r"^- `(\w+)`: (.*?)(?=\n- |\n\n|\Z)", docstring(described_by) or "", re.DOTALL | re.MULTILINE)
    )
    hints, parameters = get_type_hints(taken_by, include_extras=True), inspect.signature(taken_by).parameters
    for name in names:
        meaning = described(told.get(name), f"option {name!r} of {described_by.__name__}")
        field = FieldInfo.from_annotation(hints.get(name, str))
        if name in parameters and (default := parameters[name].default) is not inspect.Parameter.empty:
            field.default = default
        yield _key(name, field, meaning)


def _guardrails(shown: dict[type, str]) -> Iterator[str]:
    shown[Guardrail] = "[[guardrails]]"
    yield "### `[[guardrails]]`"
    yield from _intro(Guardrail)
    yield _key_table(key._replace(default="the check's") if key.name == "name" else key for key in keys(Guardrail))
    for name, check in CHECKS.items():
        yield f'#### `check = "{name}"`'
        yield from _intro(check)
        if options := keys(check):
            yield _key_table(options)


def _intro(kind: type) -> list[str]:
    """A class's docstring, without the table's name, which its heading says."""
    first, *rest = paragraphs(docstring(kind), kind.__name__)
    return [re.sub(r"^(?:Table|A row of) `[^`]*`[^:]*: (.)", lambda match: match[1].upper(), first), *rest]
