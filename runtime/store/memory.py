"""Memory: the turns of a session, and what agents noted down of a person, in LangGraph's store.

Turns are short-term: what was asked and answered in a session, shown again before the next task, and trimmed. Notes are
long-term: what the tools of `journeyman.tools.memory` wrote, by user, else by session. Both are kept in the clear, and
within the limits that a workspace sets.
"""

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from hashlib import sha256
from itertools import count
from time import time_ns
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field

from journeyman.agents.agent import MemoryConfig
from journeyman.tools.context import Notes
from journeyman.traces.base import Config, Record
from journeyman.traces.messages import Message
from journeyman.traces.trace import Task

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore, Op, Result

CHARS_A_TOKEN = 4
"""Of English text, about."""
PAGE = 500
"""Entries that one question to the store brings."""
DAY_NS = 86_400 * 10**9
SWEEP_NS = 3600 * 10**9
"""Between two looks at everybody's memory for what is too old."""
ROOT = "memory"
"""First label of every namespace; then the kind, then a digest of whose it is: a label may not have any character."""

Kind = Literal["turn", "note"]
Namespace = tuple[str, ...]


class MemoryLimits(Config):
    """Table `[memory]` of journeyman.toml: how much is remembered, and for how long, whichever crew it was told.

    How much of that a crew is shown before a task is a table of the crew's own, `MemoryConfig`.
    """

    notes: int = Field(default=500, ge=1)
    """Of one user, or of a session without one; a note beyond them takes the place of the oldest."""
    keep_days: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Older turns and notes are shown to nobody, and deleted when a run remembers something; None keeps them."""


class Stores(Protocol):
    """Where memory lies: a `RunStore`, which opens a LangGraph store for each event loop."""

    async def open(self) -> Any: ...

    @property
    def store(self) -> "BaseStore": ...


class Remembered(Record):
    """A turn or a note, and whose it is."""

    kind: Kind
    key: str
    """Of a turn the run's id, of a note its digest: what is added again is there once."""
    user: str | None
    session: str | None
    text: str
    """The note, or what was asked."""
    answer: str | None = None
    """What a turn was answered with."""
    at_ns: int


class Memory:
    """What a crew remembers between runs.

    memory = Memory(runs, MemoryConfig(turns=8))
    history = await memory.turns(task)
    ...
    await memory.add(task, outcome.answer, run_id=run_id)
    """

    def __init__(
        self,
        stores: Stores | None = None,
        config: MemoryConfig | None = None,
        limits: MemoryLimits | None = None,
        *,
        clock: Callable[[], int] = time_ns,
    ) -> None:
        """Without `stores`, what is remembered ends with the process; without `config`, no turns are."""
        self._stores = stores or _Volatile()
        self._config = config
        self._limits = limits or MemoryLimits()
        self._clock = clock
        self._next_sweep_ns = 0

    async def turns(self, task: Task) -> tuple[Message, ...]:
        """Earlier turns of the task's session, oldest first: messages that stand between instructions and task."""
        if self._config is None or task.session is None:
            return ()
        kept = trimmed(await self._entries(_namespace("turn", task)), self._config)
        room = self._config.max_tokens * CHARS_A_TOKEN
        return tuple(message for turn in kept for message in _messages(turn, room))

    async def add(self, task: Task, answer: str, *, run_id: str) -> None:
        """Adds a turn to the task's session, and forgets those that are past the limits."""
        if self._config is None or task.session is None:
            return
        namespace = _namespace("turn", task)
        await self._put(namespace, _entry("turn", run_id, task, task.prompt, self._clock(), answer))
        turns = await self._entries(namespace)
        await self._drop(namespace, turns[: len(turns) - len(trimmed(turns, self._config))])
        await self._sweep()

    def notes(self, task: Task) -> Notes | None:
        """What the tools of a run write to and read from; None for a task that names neither user nor session."""
        return None if task.user is None and task.session is None else _Notes(self, task)

    async def find(self, *, user: str | None = None, session: str | None = None) -> list[Remembered]:
        """All that is stored of a user, of a session, of a user in a session, or of everybody; oldest first."""
        found = [entry async for _, entry in self._all(user, session)]
        return sorted(found, key=_age)

    async def forget(self, *, user: str | None = None, session: str | None = None) -> int:
        """Deletes what `find` would show, and returns how much it was."""
        doomed = [found async for found in self._all(user, session)]
        for namespace, entry in doomed:
            await self._drop(namespace, [entry])
        return len(doomed)

    async def note(self, task: Task, text: str) -> None:
        """Adds a note to the task's user, else to its session."""
        namespace = _namespace("note", task)
        await self._put(namespace, _entry("note", sha256(text.encode()).hexdigest(), task, text, self._clock()))
        notes = await self._entries(namespace)
        await self._drop(namespace, notes[: max(0, len(notes) - self._limits.notes)])
        await self._sweep()

    async def noted(self, task: Task) -> list[str]:
        """The notes of the task's user, else of its session, newest first."""
        return [note.text for note in reversed(await self._entries(_namespace("note", task)))]

    async def _entries(self, namespace: Namespace) -> list[Remembered]:
        oldest_ns = self._oldest_ns
        return sorted([entry async for _, entry in self._search(namespace, {}) if entry.at_ns >= oldest_ns], key=_age)

    @property
    def _oldest_ns(self) -> int:
        """When the oldest entry that is still shown may have been made."""
        days = self._limits.keep_days
        return 0 if days is None else self._clock() - int(days * DAY_NS)

    async def _sweep(self) -> None:
        """Deletes what is too old of everybody, so that who never comes back is forgotten too."""
        if self._limits.keep_days is None or self._clock() < self._next_sweep_ns:
            return
        self._next_sweep_ns = self._clock() + SWEEP_NS
        oldest_ns = self._oldest_ns
        old = [found async for found in self._search((ROOT,), {"at_ns": {"$lt": oldest_ns}})]
        for namespace, entry in old:
            if entry.at_ns < oldest_ns:  # Postgres compares numbers as texts.
                await self._drop(namespace, [entry])

    async def _all(self, user: str | None, session: str | None) -> AsyncIterator[tuple[Namespace, Remembered]]:
        wanted = {name: value for name, value in (("user", user), ("session", session)) if value is not None}
        async for found in self._search((ROOT,), wanted):
            yield found

    async def _search(self, prefix: Namespace, wanted: dict[str, Any]) -> AsyncIterator[tuple[Namespace, Remembered]]:
        store = await self._store()
        for start in count(0, PAGE):
            page = await store.asearch(prefix, filter=wanted or None, limit=PAGE, offset=start)
            for item in page:
                yield item.namespace, Remembered.model_validate(item.value)
            if len(page) < PAGE:
                return

    async def _put(self, namespace: Namespace, entry: Remembered) -> None:
        store = await self._store()
        await store.aput(namespace, entry.key, entry.model_dump(), index=False)

    async def _drop(self, namespace: Namespace, entries: Sequence[Remembered]) -> None:
        store = await self._store()
        for entry in entries:
            await store.adelete(namespace, entry.key)

    async def _store(self) -> "BaseStore":
        await self._stores.open()
        return self._stores.store


def trimmed(turns: Sequence[Remembered], config: MemoryConfig) -> Sequence[Remembered]:
    """The newest turns, of which the older half is left out until the rest is within both limits, or one is left."""
    while len(turns) > config.turns or (len(turns) > 1 and sum(map(_tokens, turns)) > config.max_tokens):
        turns = turns[(len(turns) + 1) // 2 :]
    return turns


class _Notes:
    """`tools.context.Notes` of one task."""

    def __init__(self, memory: Memory, task: Task) -> None:
        self._memory = memory
        self._task = task

    async def add(self, text: str) -> None:
        await self._memory.note(self._task, text)

    async def all(self) -> list[str]:
        return await self._memory.noted(self._task)


class _Volatile:
    """Memory of this process."""

    def __init__(self) -> None:
        self._store: BaseStore | None = None
        self._lock = threading.Lock()

    async def open(self) -> None: ...

    @property
    def store(self) -> "BaseStore":
        with self._lock:
            if self._store is None:
                self._store = _shared_store()
            return self._store


def _shared_store() -> "BaseStore":
    """For event loops in several threads, which LangGraph's own store in memory is not made for: one at a time."""
    from langgraph.store.memory import InMemoryStore  # LangGraph takes half a second to import.

    lock = threading.Lock()

    class Shared(InMemoryStore):
        def batch(self, ops: "Iterable[Op]") -> "list[Result]":
            with lock:
                return super().batch(ops)

        async def abatch(self, ops: "Iterable[Op]") -> "list[Result]":
            return self.batch(ops)

    return Shared()


def _namespace(kind: Kind, task: Task) -> Namespace:
    """Turns are of a user in a session, notes of a user in all sessions; two people never meet in one."""
    whose = [task.user, task.session if kind == "turn" or task.user is None else None]
    return (ROOT, kind, sha256(json.dumps(whose).encode()).hexdigest())


def _entry(kind: Kind, key: str, task: Task, text: str, at_ns: int, answer: str | None = None) -> Remembered:
    return Remembered(kind=kind, key=key, user=task.user, session=task.session, text=text, answer=answer, at_ns=at_ns)


def _messages(turn: Remembered, room: int) -> tuple[Message, Message]:
    """The turn, or the beginnings of its two texts where together they have more than `room` characters."""
    asked, answered = turn.text, turn.answer or ""
    asked = _beginning(asked, max(room // 2, room - len(answered)))
    answered = _beginning(answered, max(room // 2, room - len(asked)))
    return Message(role="user", content=asked), Message(role="assistant", content=answered)


def _beginning(text: str, chars: int) -> str:
    return text if len(text) <= chars else f"{text[:chars]} […]"


def _tokens(turn: Remembered) -> int:
    return (len(turn.text) + len(turn.answer or "")) // CHARS_A_TOKEN


def _age(entry: Remembered) -> tuple[int, str]:
    return entry.at_ns, entry.key
