"""Writing: attempts become tasks in a file, each of them on the disk at once, until there are enough."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from journeyman.runtime.store.database import check_text
from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError, ModelError, OverBudgetError, ServerError, StoreError
from journeyman.traces.files import RowFile, append_rows, is_torn, make_folder, try_lock
from journeyman.traces.trace import Task
from journeyman.training.data.tasks.heldout import HeldOut
from journeyman.training.data.tasks.near import Texts, plain, shingles
from journeyman.training.data.writing.drafts import ORIGIN, Attempt, RefusedError, TaskOrigin, Way, written_by
from journeyman.training.data.writing.ways import Writer

R = TypeVar("R", bound=Record)


class Refusal(Record):
    """A draft that became no task."""

    attempt: str
    way: Way
    source: str
    reason: str
    detail: str = ""


class WrittenTasks(Record):
    """What there is after a call, by it and by those before."""

    path: Path
    refusals: Path
    """Every refused draft, with its reason."""
    wanted: int
    tasks: int
    added: int
    """By this call."""
    by_way: Mapping[str, int]
    without_reference: int
    refused: Mapping[str, int]
    """By reason, the most frequent first."""
    examples: Mapping[str, str]
    """What one refused draft of each reason was."""
    stopped: str | None
    """Why there are fewer than wanted."""
    over_budget: bool


class Standing:
    """What a new task has to differ from: tasks that there are, those written meanwhile, and what is held out."""

    def __init__(self, held_out: HeldOut, own: Sequence[Task], near: float) -> None:
        self._held_out = held_out
        self._near = near
        self._own = Texts(plain(task.prompt) for task in own)
        self._equal = set(self._own.texts)
        self._written = list[set[str]]()

    def clear(self, task: Task, way: Way) -> None:
        """Raises `RefusedError` for a task that there is already, or that is held out, near ones included.

        Of a template's own tasks only equal ones are there already: they differ in their values, and in their answers.
        """
        try:
            check_text("it", task)
        except ConfigError as error:
            raise RefusedError("it holds what isn't text", str(error)) from None
        if (reason := self._held_out.task(task)) is not None:
            raise RefusedError(reason, task.prompt)
        prompt = plain(task.prompt)
        if not prompt or prompt in self._equal:
            raise RefusedError("there is such a task already" if prompt else "its prompt is empty", task.prompt)
        if way != "values" and self._is_near(prompt):
            raise RefusedError("near a task that there is already", task.prompt)

    def add(self, task: Task) -> None:
        prompt = plain(task.prompt)
        self._equal.add(prompt)
        self._written.append(shingles(prompt))

    def _is_near(self, prompt: str) -> bool:
        if next(self._own.near(prompt, self._near), None) is not None:
            return True
        asked = shingles(prompt)
        return any(len(asked & other) >= self._near * len(asked | other) for other in self._written)


class TaskFile:
    """The tasks that were written to a file, and beside it what was refused: what was tried is not tried again."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self.path = path
        self.refusals_path = path.with_name(f"{path.stem}.refused.jsonl")
        self._file = file
        self._refusals = RowFile(self.refusals_path)
        self.tasks = [*_read(path, Task, b'{"id":')]
        refusals = [*_read(self.refusals_path, Refusal, b'{"attempt":')]
        self.refused = Counter(refusal.reason for refusal in refusals)
        self.examples = {refusal.reason: refusal.detail for refusal in reversed(refusals)}
        self.tried = {refusal.attempt for refusal in refusals} | {_origin(path, task).attempt for task in self.tasks}

    def add(self, task: Task) -> None:
        self.tasks.append(task)
        self._append(lambda row: append_rows(self._file, row), task.model_dump_json(exclude_unset=True))

    def refuse(self, refusal: Refusal) -> None:
        self.refused[refusal.reason] += 1
        self.examples.setdefault(refusal.reason, refusal.detail)
        self._append(self._refusals.append, refusal.model_dump_json())

    def _append(self, append: Callable[[bytes], None], row: str) -> None:
        try:
            append(row.encode() + b"\n")
        except OSError as error:
            raise StoreError(
                f"{self.path} could not be written on: {error.strerror}; make room, and run the same command again"
            ) from error


@contextmanager
def open_tasks(path: Path) -> Iterator[TaskFile]:
    """The file, which no other process adds to meanwhile.

    Raises `ConfigError` where another process does, or the file holds tasks that somebody else wrote.
    """
    make_folder(path.parent)
    if (file := try_lock(path)) is None:
        raise ConfigError(f"another `journeyman tasks write` writes {path}: wait for it, or name another --out")
    with file:
        yield TaskFile(path, file)


def _read(path: Path, kind: type[R], beginning: bytes) -> Iterator[R]:
    """Its rows, which begin so; a line that a crash cut short is none, and the next one takes its place."""
    for line in RowFile(path):
        try:
            yield kind.model_validate_json(line)
        except ValidationError:
            if not (is_torn(line) and line.startswith(beginning[: len(line)])):
                raise _foreign(path) from None


def _origin(path: Path, task: Task) -> TaskOrigin:
    try:
        return TaskOrigin.model_validate(task.metadata.get(ORIGIN))
    except ValidationError:
        raise _foreign(path) from None


def _foreign(path: Path) -> ConfigError:
    return ConfigError(f"{path} holds something other than what `journeyman tasks write` wrote: name another --out")


class Writing:
    """Attempts at a file of tasks. They run side by side and are settled in their order: the same replies, the same
    file."""

    def __init__(
        self, file: TaskFile, writer: Writer, standing: Standing, *, wanted: int, conditions: Sequence[str]
    ) -> None:
        """`conditions` are what an attempt depends on besides its source: under others it is another attempt."""
        self._file = file
        self._writer = writer
        self._standing = standing
        self._wanted = wanted
        self._conditions = conditions
        self._before = len(file.tasks)
        self._running = deque[tuple[Attempt, str, asyncio.Task[Task]]]()
        self._outage: ModelError | None = None
        self._over: OverBudgetError | None = None
        for task in file.tasks:
            standing.add(task)

    async def go_on(
        self,
        attempts: Iterator[Attempt],
        most: int,
        *,
        concurrency: int = 8,
        on_settled: Callable[[int], None] = lambda tasks: None,
    ) -> WrittenTasks:
        """Until the file has as many tasks as are wanted, `most` attempts were made, or the budget is used up.

        `on_settled` is told how many tasks there are. Raises `ServerError` where nobody answers; what was settled
        before is in the file.
        """
        tried = 0
        try:
            for attempt in attempts:
                # No more at once than may all be wanted: each attempt is paid for.
                while self._running and len(self._running) >= min(concurrency, self._lacking):
                    await self._settle()
                    on_settled(len(self._file.tasks))
                if self._outage or self._over or self._lacking == 0 or tried == most:
                    break
                tried += 1
                if (key := attempt.key(self._conditions)) not in self._file.tried:
                    self._running.append((attempt, key, asyncio.create_task(self._writer.write(attempt, key))))
            while self._running:
                await self._settle()
                on_settled(len(self._file.tasks))
        finally:
            left = [running for _, _, running in self._running]
            for running in left:
                running.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        if self._outage is not None:
            raise ServerError(
                f"{self._outage}; {len(self._file.tasks)} tasks are in {self._file.path}: run the same command again "
                "to go on"
            ) from self._outage
        made = f"{tried} attempts were made, as many as were to be"
        return self._report(made if tried == most else "there is nothing more to write from")

    @property
    def _lacking(self) -> int:
        return max(0, self._wanted - len(self._file.tasks))

    async def _settle(self) -> None:
        """The attempt that began first. One that was paid for counts, also after another has ended the work."""
        attempt, key, running = self._running.popleft()
        try:
            task = await running
            self._standing.clear(task, attempt.way)
            self._standing.add(task)
            self._file.add(task)
        except RefusedError as refused:
            self._file.refuse(
                Refusal(
                    attempt=key,
                    way=attempt.way,
                    source=attempt.source.id,
                    reason=refused.reason,
                    detail=refused.detail,
                )
            )
        except OverBudgetError as over:
            self._over = over
        except ModelError as error:
            self._outage = self._outage or error

    def _report(self, ended: str) -> WrittenTasks:
        tasks = self._file.tasks
        return WrittenTasks(
            path=self._file.path,
            refusals=self._file.refusals_path,
            wanted=self._wanted,
            tasks=len(tasks),
            added=len(tasks) - self._before,
            by_way=written_by(tasks),
            without_reference=sum(task.reference is None for task in tasks),
            refused=dict(self._file.refused.most_common()),
            examples=self._file.examples,
            stopped=str(self._over or ended) if self._lacking else None,
            over_budget=self._over is not None,
        )
