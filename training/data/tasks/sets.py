"""Task sets: files of tasks, read whole, and what a person wants to know of one before using it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles

from journeyman.runtime.batch import task_lines
from journeyman.runtime.config import TASK_SETS, TaskSet
from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.data.tasks.leaks import sub_questions


def read_set(path: Path) -> dict[int, Task]:
    """The tasks of a file by line number; raises `ConfigError` where a line is none: a set is whole or it is no set."""
    tasks: dict[int, Task] = {}
    for number, task in task_lines(path):
        if not isinstance(task, Task):
            raise ConfigError(f"{path}, line {number}: {task}; mend the line, or take it out")
        sub_questions(task)
        tasks[number] = task
    if not tasks:
        raise ConfigError(f'{path}: holds no task: write one a line, as {{"id": "q1", "prompt": "..."}}')
    return tasks


def workspace_sets(workspace: Workspace, names: Sequence[TaskSet] = TASK_SETS) -> dict[str, list[Task]]:
    """Those of the sets that `[tasks]` names, by name; raises `ConfigError` where one can't be read."""
    named = [name for name in names if getattr(workspace.config.tasks, name) is not None]
    return {name: [*read_set(workspace.task_file(Path(name))).values()] for name in named}


class SetSummary(Record):
    name: str
    tasks: int
    with_reference: int
    families: dict[str, int]
    """Tasks of each, the largest first."""
    median_letters: int
    """Letters of a prompt."""
    p90_letters: int
    longest_letters: int


def summarise_set(name: str, tasks: Sequence[Task]) -> SetSummary:
    lengths = sorted(len(task.prompt) for task in tasks)
    tenths = quantiles(lengths, n=10, method="inclusive") if len(lengths) > 1 else lengths * 9
    return SetSummary(
        name=name,
        tasks=len(tasks),
        with_reference=sum(task.reference is not None for task in tasks),
        families=dict(Counter(task.family for task in tasks).most_common()),
        median_letters=round(tenths[4]),
        p90_letters=round(tenths[8]),
        longest_letters=lengths[-1],
    )
