"""The split of one file of tasks into train, gate, test and vault: fixed before anything is mined, and only ever grown.

Tasks of one group stay together. A group's set follows from its key and the salt alone, so it is the same on every
machine, in any order, and whatever other tasks there are. Groups by a field's value need nothing else. Groups of
near-duplicates are found, and a later task may tie what was apart: tasks that have a set keep it, and one that is tied
to two sets is left out.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, JsonValue, ValidationError

from journeyman.runtime.config import TASK_SETS, TaskSet
from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.files import write_whole
from journeyman.traces.trace import Task
from journeyman.training.data.tasks.leaks import Leak, Ties, find_leaks
from journeyman.training.data.tasks.near import plain
from journeyman.training.data.tasks.sets import read_set

OWN = ("id", "prompt", "reference", "family", "session", "user")
"""Fields of a task that groups can go by; others are looked up in its `metadata`."""
SHARES: Mapping[TaskSet, float] = {"train": 50.0, "gate": 20.0, "test": 20.0, "vault": 10.0}
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
SHOWN = 3
"""Lines or tasks that a message names."""


class Split(Record):
    """How tasks are split; it lies beside the sets, and another one is refused there."""

    version: int = 1
    """Of this record's form."""
    by: str | None = None
    """The field whose value is the group; None for near-duplicates, found."""
    near: float = Field(default=0.7, gt=0, le=1)
    """Similarity from which prompts are near-duplicates."""
    salt: str = ""
    """Another one gives another split."""
    shares: Mapping[TaskSet, Share] = SHARES
    """Of the groups, in proportion; a set without a share isn't made."""

    def set_of(self, key: str) -> TaskSet:
        """The set of a group."""
        drawn = int.from_bytes(sha256(f"{self.salt}\0{key}".encode()).digest()[:8]) / 2**64
        names = self.sets
        bounds = list(accumulate(self.shares[name] for name in names))
        return next((name for name, bound in zip(names, bounds, strict=True) if drawn * bounds[-1] < bound), names[-1])

    @property
    def sets(self) -> list[TaskSet]:
        return [name for name in TASK_SETS if self.shares.get(name, 0) > 0]


class Division(NamedTuple):
    """Tasks and their sets."""

    sets: dict[TaskSet, list[Task]]
    """By id, so that the files are the same whatever the order of the tasks was."""
    groups: dict[TaskSet, int]
    left_out: list[Task]
    """Tied to tasks of two sets that were fixed before."""


def divide(tasks: Mapping[int, Task], split: Split, earlier: Mapping[str, set[TaskSet]] | None = None) -> Division:
    """The sets of `tasks`, which come by line number; `earlier` is the sets that a prompt, made plain, has
    already: of equal prompts of several groups each has its own.

    Raises `ConfigError` where a group key is missing, a task would move, or a set would be empty.
    """
    fixed = earlier or {}
    division = Division({name: [] for name in split.sets}, dict.fromkeys(split.sets, 0), [])
    for key, group in _groups(tasks, split).items():
        own = split.set_of(key)
        homes = [_home(fixed.get(plain(task.prompt), set()), own) for task in group]
        drawn = {own}
        if split.by is not None:
            _check_unmoved(group, homes, drawn)
        else:
            drawn = {home for home in homes if home is not None} or drawn
        for task, home in zip(group, homes, strict=True):
            if home is None and len(drawn) > 1:
                division.left_out.append(task)
            else:
                division.sets[home or min(drawn)].append(task)
        for name in drawn:
            division.groups[name] += 1
    _check_none_empty(division, split)
    for members in division.sets.values():
        members.sort(key=lambda task: task.id)
    return division


def _home(sets: set[TaskSet], own: TaskSet) -> TaskSet | None:
    """Where a task is already; `own` is the set of its group."""
    return own if own in sets else min(sets, default=None)


def _check_unmoved(group: Sequence[Task], homes: Sequence[TaskSet | None], drawn: set[TaskSet]) -> None:
    for task, home in zip(group, homes, strict=True):
        if home not in {None, *drawn}:
            raise ConfigError(
                f"{task.id!r} would move from {home} to {min(drawn)}, for its group is another one now: "
                "give it back the group that it had, or name another --out"
            )


def _check_none_empty(division: Division, split: Split) -> None:
    if empty := [name for name, members in division.sets.items() if not members]:
        groups = sum(division.groups.values())
        means = "near-duplicates" if split.by is None else repr(split.by)
        raise ConfigError(
            f"no task falls to {' and '.join(empty)}: {groups} groups by {means} are too few for these shares; try "
            "another --by, --near, --salt or share, or give a set the share 0"
        )


def _groups(tasks: Mapping[int, Task], split: Split) -> dict[str, list[Task]]:
    if split.by is None:
        return _by_ties([*tasks.values()], split.near)
    groups: defaultdict[str, list[Task]] = defaultdict(list)
    without = []
    for line, task in tasks.items():
        if (value := _value(task, split.by)) in (None, ""):
            without.append(line)
        else:
            groups[json.dumps(value, sort_keys=True)].append(task)
    if without:
        raise ConfigError(
            f"{len(without)} of {len(tasks)} tasks have no {split.by!r} to group by: give it to {_lines(without)}, as "
            "a key of the task or of its metadata, or group by another one"
        )
    return groups


def _value(task: Task, field: str) -> JsonValue:
    """What the file says, never a default: two tasks without a family are of no family."""
    if field in OWN and field in task.model_fields_set:
        value: JsonValue = getattr(task, field)
        return value
    return task.metadata.get(field)


def _lines(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:SHOWN]))
    return f"line {shown}" if len(numbers) == 1 else f"lines {shown}" + (", …" if len(numbers) > SHOWN else "")


def _by_ties(tasks: Sequence[Task], near: float) -> dict[str, list[Task]]:
    """Groups of tasks that are tied, also by way of others; the key is the prompt of one, whatever their order."""
    ties, group_of = Ties(tasks, near), {position: {position} for position in range(len(tasks))}
    for position, task in enumerate(tasks):
        for other in ties.of(task):
            if group_of[other] is not group_of[position]:
                small, large = sorted((group_of[other], group_of[position]), key=len)
                large |= small
                group_of |= dict.fromkeys(small, large)
    groups = {}
    for members in {id(group): group for group in group_of.values()}.values():
        key = min((plain(tasks[member].prompt) for member in members), key=lambda text: sha256(text.encode()).digest())
        groups[key] = [tasks[member] for member in members]
    return groups


class WrittenSet(Record):
    path: Path
    tasks: int
    groups: int


class WrittenSplit(Record):
    """What `write_split` did."""

    sets: Mapping[TaskSet, WrittenSet]
    left_out: tuple[str, ...]
    """Ids of tasks that are tied to two sets which were fixed before."""
    leaks: tuple[Leak, ...]
    """Between the sets; there are none where groups are near-duplicates."""


def write_split(path: Path, folder: Path, split: Split) -> WrittenSplit:
    """Splits the file into `NAME.train.jsonl` and its like in `folder`; asked again for a longer file, the sets grow.

    Each file is written whole, those held out first, so that a kill leaves no task in two sets and the same call goes
    on. Raises `ConfigError` where `folder` has another split of that name, or the file lacks a task that a set has.
    """
    tasks = read_set(path)
    record = folder / f"{path.stem}.split.json"
    files = {name: folder / f"{path.stem}.{name}.jsonl" for name in split.sets}
    _check_same(record, split, folder)
    division = divide(tasks, split, _earlier(path, tasks.values(), files, known=record.exists()))
    try:
        write_whole(record, split.model_dump_json(indent=2) + "\n")
        for name in reversed(split.sets):
            rows = (task.model_dump_json(exclude_unset=True) + "\n" for task in division.sets[name])
            write_whole(files[name], "".join(rows))
    except OSError as error:
        raise StoreError(
            f"the sets in {folder} were not all written: {error.strerror}; make room, or let it be written, and split "
            "again"
        ) from error
    sets = {
        name: WrittenSet(path=files[name], tasks=len(members), groups=division.groups[name])
        for name, members in division.sets.items()
    }
    left_out = tuple(task.id for task in division.left_out)
    return WrittenSplit(sets=sets, left_out=left_out, leaks=tuple(find_leaks(dict(division.sets.items()), split.near)))


def _check_same(record: Path, split: Split, folder: Path) -> None:
    if not record.exists():
        return
    try:
        before = Split.model_validate_json(record.read_bytes())
    except (ValidationError, OSError):
        raise ConfigError(f"{record} isn't the record of a split: move it away, or name another --out") from None
    if before != split:
        now, then = split.model_dump(), before.model_dump()
        changed = ", ".join(f"{key} was {then[key]!r}" for key in now if now[key] != then[key])
        raise ConfigError(f"{folder} has another split of these tasks ({changed}): ask for that, or name another --out")


def _earlier(
    path: Path, tasks: Iterable[Task], files: Mapping[TaskSet, Path], *, known: bool
) -> dict[str, set[TaskSet]]:
    """The sets of each prompt that has any already."""
    prompts, fixed = {plain(task.prompt) for task in tasks}, defaultdict[str, set[TaskSet]](set)
    for name, file in files.items():
        if not file.exists():
            continue
        if not known:
            raise ConfigError(f"{file} is there, and no split of {path}: move it away, or name another --out")
        for task in read_set(file).values():
            prompt = plain(task.prompt)
            if prompt not in prompts:
                raise ConfigError(f"{path} lacks {task.id!r}, which {file} has: a split only grows; put the task back")
            fixed[prompt].add(name)
    return fixed
