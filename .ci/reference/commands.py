"""Commands, with the options that their parsers know."""

from collections.abc import Iterator
from inspect import getdoc
from typing import Any, Literal, get_args, get_origin

from typer.main import get_command

from journeyman.runtime.cli import PANELS, build
from reference.source import described, paragraphs, table

EVERYWHERE = {"--json", "--workspace"}
TYPERS_OWN = {"--install-completion", "--show-completion"}
METAVARS = {int: "N", float: "X"}

CONVENTIONS = (
    "Every command takes `--json`, which prints the result as JSON, and `-C DIR` (or `--workspace DIR`), "
    "the workspace's folder; its default is `.journeyman`. In front of the command:"
)


def commands() -> Iterator[str]:
    yield "## Commands"
    root: Any = get_command(build())
    yield CONVENTIONS
    yield _options(root)
    for panel, names in PANELS.items():
        yield f"### {panel}"
        for name in names:
            yield from _command(root.commands[name], f"journeyman {name}")


def _command(command: Any, name: str) -> Iterator[str]:
    if inner := getattr(command, "commands", None):
        for sub in inner.values():
            yield from _command(sub, f"{name} {sub.name}")
        return
    *told, example = paragraphs(getdoc(command.callback), name)
    yield f"#### `{name}`"
    yield from told
    if rows := _options(command):
        yield rows
    yield f"Example: `{example.removeprefix('Example: ')}`"


def _options(command: Any) -> str:
    shown = [one for one in command.params if not one.hidden and not {*one.opts} & (EVERYWHERE | TYPERS_OWN)]
    rows = [(_name(one), _default(one), _meaning(one, f"{command.name} {one.name}")) for one in shown]
    return table(("option", "default", "meaning"), rows) if rows else ""


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    metavar = parameter.metavar or METAVARS.get(parameter.type_descriptor.annotation, "TEXT")
    names = [
        name if parameter.is_flag else f"{name} {metavar}" for name in (*parameter.opts, *parameter.secondary_opts)
    ]
    return ", ".join(f"`{name}`" for name in names)


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if parameter.default is None or (parameter.is_flag and not parameter.secondary_opts):
        return ""
    if parameter.secondary_opts:
        return f"`{(parameter.opts if parameter.default else parameter.secondary_opts)[0]}`"
    return f"`{parameter.default}`"


def _meaning(parameter: Any, what: str) -> str:
    kind = parameter.type_descriptor.annotation
    choices = ", ".join(f"`{choice}`" for choice in get_args(kind)) if get_origin(kind) is Literal else ""
    return described(parameter.help, what) + (f": {choices}" if choices else "")
