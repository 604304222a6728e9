"""Command conventions, the same for every command: `--json`, `-C DIR`, exit codes, one line for an error.

A command is a typer function that takes `folder: WorkspaceOption` and `as_json: JsonOption`, raises
`JourneymanError` for what goes wrong, and prints through `emit`. Progress and notes go to stderr, results to stdout.
"""

import json
import sys
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Exit(IntEnum):
    """What a command ends with."""

    OK = 0
    """It did what was asked."""
    FAILED = 1
    """It failed; the error says why. For `gate`: reject."""
    USAGE = 2
    """The command line, a file or a setting is wrong."""
    PARTIAL = 3
    """Some of it came out well, not all. For `gate`: inconclusive."""
    NEEDS_INPUT = 4
    """A person must answer; `journeyman runs list` shows what waits."""
    OVER_BUDGET = 5
    """The crew's budget is used up."""
    INTERRUPTED = 130
    """Ctrl-C; the same command goes on where it was."""


WorkspaceOption = Annotated[
    Path | None, typer.Option("-C", "--workspace", metavar="DIR", help="Workspace folder (default: .journeyman)")
]
AttachOption = Annotated[str | None, typer.Option("--attach", metavar="URL", help="A server someone else runs")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON")]

out = Console(highlight=False)
notes = Console(stderr=True, highlight=False, soft_wrap=True)


def emit(value: Any, as_json: bool, human: Callable[[], None]) -> None:
    """Prints `value` as JSON, or calls `human`, which prints it for a person."""
    if as_json:
        sys.stdout.write(json.dumps(value, default=_plain, ensure_ascii=False, indent=2) + "\n")
    else:
        human()


def progress() -> Progress:
    """A bar on stderr with counts and the time left; plain and silent where stderr is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=notes,
        disable=not notes.is_terminal,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
