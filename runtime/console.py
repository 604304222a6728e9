"""Command conventions, the same for every command: `--json`, `-C DIR`, exit codes, one line for an error.

A command is a typer function that takes `folder: WorkspaceOption` and `as_json: JsonOption`, raises
`JourneymanError` for what goes wrong, and prints through `emit`. Progress and notes go to stderr, results to stdout.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from enum import IntEnum
from pathlib import Path
from threading import Event, Thread
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from journeyman.traces.reports.wording import duration


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
    """Ctrl-C, or SIGTERM in a training; the same command goes on where it was."""


WorkspaceOption = Annotated[
    Path | None, typer.Option("-C", "--workspace", metavar="DIR", help="Workspace folder (default: .journeyman)")
]
AttachOption = Annotated[str | None, typer.Option("--attach", metavar="URL", help="A server someone else runs")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON")]

# Texts are a user's own: `a:b:c` in one is no emoji.
out = Console(highlight=False, emoji=False)
notes = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)

LINE_EVERY_S = 10.0
"""How often long work says where it is, where stderr is no terminal."""

SPEED_OVER_S = 600.0
"""The time left follows from the speed over so long: a step of training, or a task, may take a minute."""


def emit(value: Any, as_json: bool, human: Callable[[], None]) -> None:
    """Prints `value` as JSON, or calls `human`, which prints it for a person."""
    if as_json:
        sys.stdout.write(json.dumps(value, default=_plain, ensure_ascii=False, indent=2) + "\n")
    else:
        human()


@contextmanager
def progress(every_s: float = LINE_EVERY_S) -> Iterator[Progress]:
    """A bar on stderr with counts and the time left; a line of them every `every_s` where stderr is no terminal."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, *times, console=notes, disable=not notes.is_terminal, speed_estimate_period=SPEED_OVER_S)
    with bar, nullcontext() if notes.is_terminal else _lines(bar, every_s):
        yield bar


@contextmanager
def runs_done(doing: str, total: int, every_s: float = LINE_EVERY_S) -> Iterator[Callable[[str], None]]:
    """A progress of recorded runs: it is told the trace of each part that was worked on, in no order."""
    done = set[str]()
    with progress(every_s) as bar:
        row = bar.add_task(doing, total=total)

        def tell(trace_id: str) -> None:
            if trace_id not in done:
                done.add(trace_id)
                bar.update(row, completed=len(done))

        yield tell


@contextmanager
def _lines(bar: Progress, every_s: float) -> Iterator[None]:
    ended = Event()

    def tell() -> None:
        while not ended.wait(every_s):
            for task in bar.tasks:
                if not task.finished:
                    notes.print(_line(task), markup=False)

    teller = Thread(target=tell, name="progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


def _line(task: Task) -> str:
    done = f"{task.completed:,.0f}" + ("" if task.total is None else f" of {task.total:,.0f}")
    left = "" if task.time_remaining is None else f", about {duration(task.time_remaining)} left"
    counted = f" {done}" if task.completed or task.total is not None else ""
    return f"{task.description}{counted}, {duration(task.elapsed or 0.0)} so far{left}"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
