"""Task files: JSON lines, one task a line."""

from pathlib import Path

from pydantic import ValidationError

from journeyman.agents.reply import read_json
from journeyman.runtime.runstore_database import check_text
from journeyman.traces.errors import ConfigError
from journeyman.traces.record import Record
from journeyman.traces.trace import Task


class BrokenLine(Record):
    number: int
    """Line number, from 1."""
    reason: str


def read_tasks(path: Path) -> tuple[list[Task], list[BrokenLine]]:
    """The tasks of a file and the lines that are none; a line is `{"id": ..., "prompt": ..., "reference": ...}`.

    A line without an `id` is named by its number. Raises `ConfigError` if the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    tasks: list[Task] = []
    broken: list[BrokenLine] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            task = _task(line, number)
            if task.id in seen:
                raise ValueError(f"id {task.id!r} was used before")
        except ValueError as error:
            broken.append(BrokenLine(number=number, reason=str(error)))
        else:
            seen.add(task.id)
            tasks.append(task)
    return tasks, broken


def _task(line: str, number: int) -> Task:
    values = read_json(line)
    if not isinstance(values, dict):
        raise ValueError('not an object like {"id": "q1", "prompt": "..."}')
    try:
        task = Task.model_validate({"id": str(number), **values})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if not task.prompt.strip():
        raise ValueError("the prompt is empty: write what is to be done")
    check_text("it", task)
    return task
