"""Drafts: tasks that a way of writing proposes, where they come from, and why one is refused."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import count
from typing import Literal, NamedTuple, get_args

from journeyman.traces.base import Record
from journeyman.traces.trace import Task

ORIGIN = "origin"
"""Key of a written task's `metadata`: its `TaskOrigin`."""

Way = Literal["paraphrase", "values", "harder", "easier", "documents"]
"""How a task is written.

`paraphrase`: the same question in other words. `values`: other values of a database in a question and its query.
`harder`, `easier`: a question like it that takes a step more, or less. `documents`: a question that a passage answers.
"""
WAYS: tuple[Way, ...] = get_args(Way)


class RefusedError(Exception):
    """A draft that becomes no task."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        """In words fit for counting."""
        self.detail = detail
        """What it is about in this draft."""


class TaskOrigin(Record):
    """Where a written task comes from."""

    way: Way
    sources: tuple[str, ...]
    """Ids of the tasks that it was made from; of a passage its document and number."""
    policy: str | None = None
    """The policy that wrote it; None where code alone did."""
    terms: str | None = None
    """What the provider of that policy says of learning from its output."""
    checks: tuple[str, ...]
    """What it passed."""
    attempt: str
    """Which attempt it was, so that nothing is tried twice."""


class Attempt(NamedTuple):
    """One try to write a task."""

    way: Way
    source: Task
    """A task; of `documents` one whose prompt is the passage."""
    turn: int
    """How many tries with this source came before."""

    def key(self, conditions: Sequence[str]) -> str:
        """The same for the same try under the same conditions."""
        parts = [*conditions, self.way, self.source.model_dump_json(), str(self.turn)]
        return sha256("\0".join(parts).encode()).hexdigest()[:16]


def attempts(sources: Mapping[Way, Sequence[tuple[Task, int | None]]]) -> Iterator[Attempt]:
    """Every way and every source in turn, each source as often as it says, which is for ever for None."""
    for turn in count():
        left = {way: [task for task, most in pairs if most is None or turn < most] for way, pairs in sources.items()}
        if not any(left.values()):
            return
        for position in range(max(map(len, left.values()))):
            for way, tasks in left.items():
                if position < len(tasks):
                    yield Attempt(way, tasks[position], turn)


def written_by(tasks: Iterable[Task]) -> dict[str, int]:
    """How many of the tasks each way has written."""
    counts = dict.fromkeys(WAYS, 0)
    for task in tasks:
        counts[TaskOrigin.model_validate(task.metadata[ORIGIN]).way] += 1
    return {way: number for way, number in counts.items() if number}
