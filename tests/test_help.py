"""What a user reads before and after a mistake: each command's help has an example that works, errors are plain."""

import ast
import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from journeyman.runtime.cli import build

APP = build()


def leaves(app: typer.Typer, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Callable[..., Any]]]:
    for command in app.registered_commands:
        assert command.callback is not None
        yield (*names, command.name or command.callback.__name__), command.callback
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from leaves(group.typer_instance, (*names, str(group.name)))


COMMANDS = dict(leaves(APP))


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_ends_with_an_example_that_it_understands(names: tuple[str, ...]) -> None:
    told = inspect.getdoc(COMMANDS[names]) or ""
    *_, last = told.splitlines()
    assert last.startswith("Example: journeyman "), told
    words = shlex.split(last.removeprefix("Example: journeyman "))
    assert tuple(words[: len(names)]) == names
    command: Any = get_command(APP)
    context = command.make_context("journeyman", [], resilient_parsing=True)
    for name in names:
        command = command.get_command(context, name)
        context = command.make_context(name, [], parent=context, resilient_parsing=True)
    # Of an option that there is not, or an argument too many, the parser says so.
    _, rest, _ = command.make_parser(context).parse_args(words[len(names) :])
    assert not rest


def test_every_option_and_argument_is_explained() -> None:
    unexplained = [
        f"{' '.join(names)} {parameter.name}"
        for names, parameters in _parameters()
        for parameter in parameters
        if not getattr(parameter, "help", None)
    ]
    assert unexplained == []


def _parameters() -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    for names in COMMANDS:
        command: Any = get_command(APP)
        context = command.make_context("journeyman", [], resilient_parsing=True)
        for name in names:
            command = command.get_command(context, name)
        yield names, command.params


ROOT = Path(__file__).parents[1]
FOLDERS = ("traces", "tools", "agents", "runtime", "training")
USERS = {"ConfigError", "StoreError", "ServerError", "TrainingError", "AdapterError"}
"""Errors that end a command; the others are told to a model, or kept in the record."""
REMEDY = re.compile(r"[:;,(]|\b(have|or|need|needs|must)\b")
"""What stands between what went wrong and what to do; a message without it says only half."""
NOT_PLAIN = re.compile(r"\b(whoever|whatever|amid|anew|bear|bears|he|his|him)\b|(?<!there )\b(is|are|was) no [a-z]")


def messages() -> Iterator[tuple[str, str]]:
    """Where each error of a user is raised, and its message with `{}` for what is filled in."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
                    continue
                if ast.unparse(node.exc.func) in USERS and (text := _text(node.exc.args[0])) is not None:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def _text(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def test_every_error_of_a_user_says_in_plain_words_what_is_wrong_and_what_to_do() -> None:
    told = dict(messages())
    assert len(told) > 150
    assert {where: text for where, text in told.items() if NOT_PLAIN.search(text)} == {}
    # What begins with a file's or a table's name has a colon for that.
    bare = {where: re.sub(r"^[\w.\[\]]*\{\}[\w.\]]*: ?", "", text).strip() for where, text in told.items()}
    assert {where: text for where, text in bare.items() if text not in PASSED_ON and not REMEDY.search(text)} == {}


PASSED_ON = {"", "{}", "{}{}", "message {} {}", "`system` {}"}
"""An error that only adds where it came from: the remedy is in what follows."""


def test_names_in_brackets_are_shown() -> None:
    shown = CliRunner().invoke(APP, ["tasks", "split", "--help"], env={"COLUMNS": "200"})
    assert "[tasks] near" in shown.stdout
