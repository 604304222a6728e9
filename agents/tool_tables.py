"""Tool tables: `[tools.NAME]` of a crew's file, and the tools that they stand for."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError, validate_call

from journeyman.tools.tool import Tool, toolbox
from journeyman.traces.base import first_mistake, unknown_key
from journeyman.traces.errors import ConfigError, in_one_line
from journeyman.traces.imports import imported

MARKS = {"approve", "idempotent", "writes"}
"""Options of every table: what `Tool` says of them holds for each tool of it."""
OPTIONS = ("use", *sorted({*MARKS, "description"}))
PATHS = {"path", "log", "certificates"}
"""Options that name a file, from the folder of the crew's file."""
LOOSE = ConfigDict(arbitrary_types_allowed=True)
BUILDERS = {
    "calculator": "journeyman.tools.calculator:calculator",
    "retrieve": "journeyman.tools.retrieve:retrieve_from",
    "sql": "journeyman.tools.sql:sql",
    "files": "journeyman.tools.files:files",
    "python": "journeyman.tools.python:python",
    "http": "journeyman.tools.http:http",
    "mcp": "journeyman.tools.mcp.toolset:mcp",
    "memory": "journeyman.tools.memory:memory",
    "ask": "journeyman.tools.ask:ask",
}
"""Tools in the box: the name in `use`, and what makes a tool, or several, from the rest of its table."""


def build_tools(name: str, options: dict[str, Any], folder: Path) -> dict[str, Tool]:
    """The tools of one table. One tool gets the table's name, several get it in front of theirs.
    A path starts at the folder of the crew's file.

    These keys are every table's; the others are options of what `use` names.

    - `use`: a tool in the box by its name, or one of yours as `module:attribute`.
    - `description`: what agents are told of the tool; empty tells them nothing.
    - `writes`: whether it changes something outside of the run. Then it is called at most once for a task.
    - `approve`: whether a person must agree to each call.
    - `idempotent`: whether a call that a crash interrupted may be made again. By default a tool that
      doesn't write is.
    """
    options = dict(options)
    use = options.pop("use", None)
    if not isinstance(use, str):
        raise ConfigError(f'tools.{name} needs `use`: one of {", ".join(BUILDERS)}, or "module:attribute"')
    builder = _imported(name, BUILDERS.get(use, use))
    marks = {key: options.pop(key) for key in MARKS & options.keys()}
    for key, value in marks.items():
        if not isinstance(value, bool):
            raise ConfigError(f"tools.{name}: {key} must be true or false, not {value!r}")
    description = None if _describes(builder) else options.pop("description", None)
    if not isinstance(description, str | None):
        raise ConfigError(f"tools.{name}: description must be a text, not {description!r}")
    for key in PATHS & options.keys():
        if isinstance(options[key], str):
            options[key] = folder / options[key]
    built = builder if isinstance(builder, Tool) and not options else _built(name, use, builder, options)
    tools = [built] if isinstance(built, Tool) else built
    if not isinstance(tools, list | tuple) or not tools or not all(isinstance(one, Tool) for one in tools):
        raise ConfigError(f"tools.{name}: {use!r} gave a {type(built).__name__}, not a Tool")
    tools = [one.marked(**marks) for one in tools]
    if description is not None:
        tools = [one.described(description) for one in tools]
    return {name: tools[0].renamed(name)} if isinstance(built, Tool) else toolbox(name, tools)


def united(boxes: Mapping[str, Mapping[str, Tool]]) -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    for table, box in boxes.items():
        if doubled := tools.keys() & box.keys():
            raise ConfigError(f"tools.{table}: there are two tools of the name {min(doubled)!r}; rename the table")
        tools |= box
    return tools


def _describes(builder: Any) -> bool:
    """Whether it takes a description itself, as one does that adds to it."""
    try:
        return not isinstance(builder, Tool) and "description" in signature(builder).parameters
    except (TypeError, ValueError):  # It is nothing that could be called, or does not say how.
        return False


def _built(name: str, use: str, builder: Any, options: dict[str, Any]) -> Any:
    if isinstance(builder, Tool):
        raise ConfigError(f"tools.{name}: {unknown_key(min(options), OPTIONS)}")
    if use in BUILDERS:
        # A mistake in an option is told by its key, as everywhere else in the file.
        builder = validate_call(config=LOOSE)(builder)
    try:
        return builder(**options)
    except ValidationError as error:
        known = tuple(dict.fromkeys((*signature(builder).parameters, *OPTIONS))) if use in BUILDERS else ()
        raise ConfigError(f"tools.{name}: {first_mistake(error, beside=known)}") from None
    except (ConfigError, TypeError) as error:
        hint = "" if use in BUILDERS or isinstance(error, ConfigError) else "; is it a tool without @tool?"
        raise ConfigError(f"tools.{name}: {error}{hint}") from None
    except Exception as error:  # Whatever a builder of somebody else's raises, the file is at fault.
        raise ConfigError(f"tools.{name}: {use!r} failed: {in_one_line(error)}") from error


def _imported(name: str, use: str) -> Any:
    if ":" not in use:
        raise ConfigError(
            f'tools.{name}: unknown tool {use!r}; have {", ".join(BUILDERS)}, or write "module:attribute"'
        )
    return imported(use, f"tools.{name}:")
