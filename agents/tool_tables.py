"""Tool tables: `[tools.NAME]` of a crew's file, and the tools that they stand for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError, validate_call

from journeyman.tools.tool import Tool, toolbox
from journeyman.traces.errors import ConfigError
from journeyman.traces.imports import imported
from journeyman.traces.record import first_mistake

MARKS = {"approve", "idempotent", "writes"}
"""Options of every table: what `Tool` says of them holds for each tool of it."""
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
    "mcp": "journeyman.tools.mcp:mcp",
    "memory": "journeyman.tools.memory:memory",
    "ask": "journeyman.tools.ask:ask",
}
"""Tools in the box: the name in `use`, and what makes a tool, or several, from the rest of its table."""


def build_tools(name: str, options: dict[str, Any], folder: Path) -> dict[str, Tool]:
    """The tools of one table: `use` names one in the box or a `module:attribute`, the other keys are its options.

    One tool gets the table's name, several get it in front of theirs.
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
    for key in PATHS & options.keys():
        if isinstance(options[key], str):
            options[key] = folder / options[key]
    built = builder if isinstance(builder, Tool) and not options else _built(name, use, builder, options)
    if isinstance(built, Tool):
        return {name: built.renamed(name).marked(**marks)}
    if isinstance(built, list | tuple) and built and all(isinstance(one, Tool) for one in built):
        return toolbox(name, [one.marked(**marks) for one in built])
    raise ConfigError(f"tools.{name}: {use!r} gave a {type(built).__name__}, not a Tool")


def united(boxes: Mapping[str, Mapping[str, Tool]]) -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    for table, box in boxes.items():
        if doubled := tools.keys() & box.keys():
            raise ConfigError(f"tools.{table}: there are two tools of the name {min(doubled)!r}; rename the table")
        tools |= box
    return tools


def _built(name: str, use: str, builder: Any, options: dict[str, Any]) -> Any:
    if isinstance(builder, Tool):
        raise ConfigError(f"tools.{name}: {use!r} takes no option {min(options)!r}")
    if use in BUILDERS:
        # A mistake in an option is told by its key, as everywhere else in the file.
        builder = validate_call(config=LOOSE)(builder)
    try:
        return builder(**options)
    except ValidationError as error:
        raise ConfigError(f"tools.{name}: {first_mistake(error)}") from None
    except (ConfigError, TypeError) as error:
        hint = "" if use in BUILDERS or isinstance(error, ConfigError) else "; is it a tool without @tool?"
        raise ConfigError(f"tools.{name}: {error}{hint}") from None
    except Exception as error:  # Whatever a builder of somebody else's raises, the file is at fault.
        raise ConfigError(f"tools.{name}: {use!r} failed: {type(error).__name__}: {error}") from error


def _imported(name: str, use: str) -> Any:
    if ":" not in use:
        raise ConfigError(
            f'tools.{name}: unknown tool {use!r}; have {", ".join(BUILDERS)}, or write "module:attribute"'
        )
    return imported(use, f"tools.{name}:")
