"""A batch: many tasks whose outcomes go to one file, each of them run once however often the batch is begun.

A crash may come between the end of a run, which its record keeps, and the run's line in the file. So the ids of a
batch's runs follow from the batch and the task: whoever goes on with it asks for the same runs, and is given the
outcomes of those that ended.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import FileIO
from pathlib import Path

from pydantic import ValidationError

from journeyman.agents.reply import read_json
from journeyman.runtime.store.database import check_text
from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import Record, first_mistake, read_text
from journeyman.traces.errors import ConfigError
from journeyman.traces.files import RowFile, append_rows, is_torn, make_folder, try_lock, write_whole
from journeyman.traces.trace import Outcome, Task

BEGINNING = b'{"task_id":'
"""Of an outcome's line: what does not begin so was cut short by no crash of ours."""


class Batch:
    """What is done of a batch, for the one process that is at work on it."""

    def __init__(self, name: str, file: FileIO, outcomes: list[Outcome]) -> None:
        self._name = name
        self._file = file
        self.done = {outcome.task_id: outcome for outcome in outcomes}
        """The outcomes that are in the file, by task."""

    def run_id(self, crew: str, task: Task) -> str:
        """The same each time that this batch is begun; another one for a task that was changed, or another crew."""
        return sha256("\n".join([self._name, crew, task.model_dump_json()]).encode()).hexdigest()[:32]

    def add(self, outcome: Outcome) -> None:
        """Adds a line to the file; it is on the disk when this returns."""
        append_rows(self._file, outcome.model_dump_json().encode() + b"\n")
        self.done[outcome.task_id] = outcome


@contextmanager
def open_batch(workspace: Workspace, path: Path, tasks: list[Task]) -> Iterator[Batch]:
    """The batch of `tasks` whose outcomes go to `path`, which no other process adds to meanwhile.

    Its name lies in the workspace until all tasks have an outcome: the file begun anew is another batch. Raises
    `ConfigError` where another process is at work on the file, or it holds something else.
    """
    make_folder(path.parent)
    begun = path.exists()
    file = try_lock(path)
    if file is None:
        raise ConfigError(f"another `journeyman run` writes {path}: wait for it, or name another --out")
    with file:
        outcomes = _read_outcomes(path)
        kept = workspace.create().batches / sha256(os.fsencode(path.resolve())).hexdigest()[:32]
        batch = Batch(_name(kept, begun), file, outcomes)
        yield batch
        if all(task.id in batch.done for task in tasks):
            kept.unlink(missing_ok=True)


def _name(kept: Path, begun: bool) -> str:
    """The batch's name, which lies at `kept` where it has begun; it is there before any of its runs."""
    if begun and kept.exists():
        return kept.read_text()
    name = secrets.token_hex(16)
    write_whole(kept, name)
    return name


def _read_outcomes(path: Path) -> list[Outcome]:
    """The outcomes of an earlier call; a line that a crash cut short is none, and the next one takes its place."""
    outcomes = []
    for line in RowFile(path):
        try:
            outcomes.append(Outcome.model_validate_json(line))
        except ValueError:
            if not (is_torn(line) and line.startswith(BEGINNING[: len(line)])):
                raise ConfigError(f"{path} holds something other than outcomes: name another --out file") from None
    return outcomes


class BrokenLine(Record):
    number: int
    """Line number, from 1."""
    reason: str


def read_tasks(path: Path) -> tuple[list[Task], list[BrokenLine]]:
    """The tasks of a file and the lines that are none; a line is `{"id": ..., "prompt": ..., "reference": ...}`.

    A line without an `id` is named by its number. Raises `ConfigError` if the file cannot be read.
    """
    tasks: list[Task] = []
    broken: list[BrokenLine] = []
    for number, task in task_lines(path):
        if isinstance(task, Task):
            tasks.append(task)
        else:
            broken.append(BrokenLine(number=number, reason=task))
    return tasks, broken


def task_lines(path: Path) -> Iterator[tuple[int, Task | str]]:
    """The same, line by line, each with its number: a task, or the reason why it is none."""
    # Not splitlines: JSON leaves the other line separators of Unicode as they are.
    lines = read_text(path).split("\n")
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            task = _task(line, number)
            if task.id in seen:
                raise ValueError(f"id {task.id!r} was used before")
        except ValueError as error:
            yield number, str(error)
        else:
            seen.add(task.id)
            yield number, task


def _task(line: str, number: int) -> Task:
    values = read_json(line)
    if not isinstance(values, dict):
        raise ValueError('not an object like {"id": "q1", "prompt": "..."}')
    try:
        task = Task.model_validate({"id": str(number), **values})
    except ValidationError as error:
        raise ValueError(first_mistake(error, Task)) from None
    if not task.prompt.strip():
        raise ValueError("the prompt is empty: write what is to be done")
    check_text("it", task)
    return task
