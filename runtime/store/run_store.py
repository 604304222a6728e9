"""The run store: every run that can be taken up again, in SQLite or Postgres.

It keeps what a run is (`RunRecord`), what its agents have already done (steps), LangGraph's checkpoints, and memory.
A run that ended keeps its record and its last checkpoint; the rest is dropped.

What a crash may take, by `durability`:

- kill -9 takes nothing that was written, with either. What one step of the graph had not written yet is done again
  from its steps: no model call and no tool call is made twice for that.
- Power loss takes nothing with `sync`: each write waits for the disk, and the graph for each checkpoint. With `async`,
  the default, it may take what SQLite wrote in the last seconds (the file stays whole): those calls are made again, and
  a tool that may be called only once may be called twice. Postgres keeps what its own `synchronous_commit` promises.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakSet

from pydantic import Field, JsonValue

from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.store.database import TABLES, Database, delete_run, prune_runs
from journeyman.runtime.store.locks import RunBusyError, check_run_id
from journeyman.runtime.store.questions import Question
from journeyman.runtime.store.step_writer import StepWriter
from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.trace import Origin, Outcome, Status, Task

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.store.base import BaseStore

RunStatus = Literal["running", Status]
WAITING: tuple[RunStatus, ...] = ("running", "needs_input", "paused")
"""What a run has that can be taken up again: every other status is an end."""


class RunRecord(Record):
    """One run, from its first moment on; what is needed to go on with it in another process."""

    id: str
    trace_id: str
    crew: str
    """The crew's name."""
    crew_path: str | None = None
    """Its TOML file; None for a crew made in Python."""
    task: Task
    origin: Origin = Origin()
    """Why it was made, as its first part was told. A store from before that was written down is one of service."""
    policies: PolicyTable = PolicyTable()
    """Those it started with, which it keeps to its end."""
    seed: int = 0
    temperature: float = 0.0
    status: RunStatus = "running"
    """`running` also where its process died; `RunStore.alive` tells the two apart."""
    pending: tuple[Question, ...] = ()
    """What a person is asked."""
    answers: Mapping[str, JsonValue] = Field(default_factory=dict)
    """Question's id to what a person said, where the run has not taken it up yet: a text, or a `Consent`."""
    attempt: int = 1
    """1 where it began, one more each time that it was taken up again."""
    seconds: float = 0.0
    """At work, in all parts; of one that goes on, or died, what it noted now and then."""
    cancel: bool = False
    """Somebody wants it to end."""
    outcome: Outcome | None = None
    created_ns: int = Field(default_factory=time_ns)
    updated_ns: int = 0
    version: int = 0
    """Counts the changes, so that two who change a record at once can't undo each other."""

    @property
    def open_questions(self) -> tuple[Question, ...]:
        """Those that nobody has answered."""
        return tuple(question for question in self.pending if question.id not in self.answers)

    def of_part(self, attempt: int) -> "RunRecord":
        """The record, for who works at that part of the run; raises `StoreError` where a later one has begun."""
        if self.attempt != attempt:
            raise taken_up(self.id)
        return self


class RunStore:
    """Runs kept at `address`: a path of an SQLite file, or a `postgresql://` URL.

    A password in a URL is never shown; libpq also takes it from `PGPASSWORD` or a password file. Any number of event
    loops, threads and processes may use one store; each event loop calls `open` first and `aclose` last.
    """

    def __init__(
        self,
        address: Path | str,
        *,
        durability: Literal["async", "sync"] = "async",
        keep_days: float | None = None,
    ) -> None:
        self._address = _address(address)
        self.durability = durability
        """Also LangGraph's: whether the graph waits for each checkpoint."""
        self._keep_days = keep_days
        self._opened: dict[asyncio.AbstractEventLoop, asyncio.Task[_Here]] = {}
        self._users: dict[asyncio.AbstractEventLoop, WeakSet[Any]] = {}

    async def open(self, user: object | None = None) -> "RunStore":
        """Connects the running event loop, and deletes ended runs beyond `keep_days`. Raises `StoreError`.

        The connections stay until every `user`, such as a runtime, has called `aclose`, or is gone.
        """
        for loop in list(self._opened):  # Other threads, with loops of their own, may do the same in this moment.
            if loop.is_closed():
                self._abandon(loop)
        loop = asyncio.get_running_loop()
        if user is not None:
            self._users.setdefault(loop, WeakSet()).add(user)
        if loop not in self._opened:
            # A task, because many runs may begin at once and each opens the store.
            self._opened[loop] = asyncio.create_task(self._connected())
        try:
            await asyncio.shield(self._opened[loop])
        except Exception:
            self._opened.pop(loop, None)
            raise
        return self

    async def aclose(self, user: object | None = None) -> None:
        """Closes the connections of the running event loop, unless a user other than `user` still needs them."""
        loop = asyncio.get_running_loop()
        users = self._users.get(loop, WeakSet())
        if user is not None:
            users.discard(user)
        if users:
            return
        self._users.pop(loop, None)
        opened = self._opened.pop(loop, None)
        if opened is not None:
            here = await opened
            await here.steps.finished()
            await here.database.close()

    @property
    def checkpointer(self) -> "BaseCheckpointSaver[Any]":
        """LangGraph's, for the running event loop. It reads back records of this package and nothing else."""
        return self._here.checkpointer.with_allowlist([(kind.__module__, kind.__name__) for kind in _kinds(Record)])

    @property
    def store(self) -> "BaseStore":
        """LangGraph's, for the running event loop."""
        return self._here.store

    async def get(self, run_id: str) -> RunRecord | None:
        if not run_id.isprintable():
            return None  # Half a surrogate pair or a null character is nothing that a database could be asked for.
        found = await self._here.rows("SELECT record FROM journeyman_runs WHERE id = ?", run_id)
        return _record(found[0][0]) if found else None

    async def find(self, status: RunStatus | None = None, limit: int | None = None) -> list[RunRecord]:
        """Newest first; without a limit all of them."""
        where, among = ("", ()) if status is None else (" WHERE status = ?", (status,))
        most, few = ("", ()) if limit is None else (" LIMIT ?", (limit,))
        query = f"SELECT record FROM journeyman_runs{where} ORDER BY created_ns DESC{most}"
        return [_record(text) for (text,) in await self._here.rows(query, *among, *few)]

    async def complete_id(self, prefix: str) -> str:
        """The whole id of the one run whose id starts so; raises `ConfigError`."""
        query = "SELECT id FROM journeyman_runs WHERE substr(id, 1, ?) = ? ORDER BY length(id) LIMIT 2"
        rows = await self._here.rows(query, len(prefix), prefix) if prefix.isprintable() else []
        found = [name for (name,) in rows]
        if prefix in found or (prefix and len(found) == 1):
            return str(found[0])
        if found:
            raise ConfigError(f"more than one run starts with {prefix!r}: give more of the id")
        raise ConfigError(f"no run {prefix!r}: `journeyman runs list` shows those there are")

    async def put(self, record: RunRecord) -> RunRecord:
        """Keeps `record` in place of what was kept before; for a run that others may know of already, `change` it."""
        kept = record.model_copy(update={"updated_ns": time_ns(), "version": record.version + 1})
        await self._here.rows(
            "INSERT INTO journeyman_runs (id, trace_id, status, created_ns, updated_ns, version, record)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET status = excluded.status,"
            " updated_ns = excluded.updated_ns, version = excluded.version, record = excluded.record",
            *(kept.id, kept.trace_id, kept.status, kept.created_ns, kept.updated_ns, kept.version),
            kept.model_dump_json(),
        )
        return kept

    async def change(self, run_id: str, how: Callable[[RunRecord], RunRecord]) -> RunRecord:
        """What `how` makes of the record, kept; where somebody else was faster, `how` is asked again of what they left.

        Raises `ConfigError` for a run that is not there.
        """
        while True:
            known = await self.get(run_id)
            if known is None:
                raise ConfigError(f"no run {run_id!r}: `journeyman runs list` shows those there are")
            new = how(known).model_copy(update={"updated_ns": time_ns(), "version": known.version + 1})
            done = await self._here.rows(
                "UPDATE journeyman_runs SET status = ?, updated_ns = ?, version = ?, record = ?"
                " WHERE id = ? AND version = ? RETURNING id",
                *(new.status, new.updated_ns, new.version, new.model_dump_json(), run_id, known.version),
            )
            if done:
                return new

    async def note_step(self, run_id: str, step_key: str, number: int, value: Mapping[str, JsonValue]) -> None:
        """Keeps what is known of one call of a run, instead of what was; it outlives a kill -9 once this returns."""
        await self._current.steps.write((run_id, step_key, number), json.dumps(value, ensure_ascii=False))

    async def steps(self, run_id: str, step_key: str) -> dict[int, dict[str, JsonValue]]:
        """Number to value, of the calls made at that place of the run."""
        query = "SELECT number, value FROM journeyman_steps WHERE run_id = ? AND place = ? ORDER BY number"
        return {number: json.loads(value) for number, value in await self._here.rows(query, run_id, step_key)}

    async def finish(self, record: RunRecord) -> RunRecord:
        """Keeps the record of a run that ended, and drops its steps and all but its last checkpoint."""
        kept = await self.put(record)
        await self._here.rows("DELETE FROM journeyman_steps WHERE run_id = ?", record.id)
        await self._here.trim(record.id)
        return kept

    async def forget(self, trace_ids: Iterable[str]) -> int:
        """Deletes the runs of those traces, also ones that could be taken up again, and says how many."""
        found = [
            await self._here.rows("SELECT id FROM journeyman_runs WHERE trace_id = ?", trace_id)
            for trace_id in trace_ids
        ]
        run_ids = [run_id for rows in found for (run_id,) in rows]
        for run_id in run_ids:
            await self.delete(run_id)
        return len(run_ids)

    async def delete(self, run_id: str) -> None:
        """Everything that is kept of a run."""
        await delete_run(self._here, run_id)

    async def prune(self, older_than_days: float) -> int:
        """Deletes the runs that ended longer ago, and says how many; those that can still be taken up again stay."""
        return await prune_runs(self._here, older_than_days, keep=WAITING)

    def lock(self, run_id: str) -> AbstractAsyncContextManager[None]:
        """Holds the run, so that it goes on nowhere else; raises `RunBusyError` where it does.

        It is let go when the process ends, however it ends. `ConfigError` for an id that can name no run.
        """
        return self._here.lock(check_run_id(run_id))

    async def alive(self, run_id: str) -> bool:
        """Whether somebody runs it now."""
        try:
            async with self.lock(run_id):
                return False
        except RunBusyError:
            return True

    @property
    def _here(self) -> Database:
        return self._current.database

    @property
    def _current(self) -> "_Here":
        opened = self._opened.get(asyncio.get_running_loop())
        if opened is None or not opened.done():
            raise StoreError("the run store is not open in this event loop: await open() first")
        return opened.result()

    def _abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        opened = self._opened.pop(loop, None)
        self._users.pop(loop, None)
        if opened is not None and opened.done() and not opened.cancelled() and opened.exception() is None:
            opened.result().database.abandon()

    async def _connected(self) -> "_Here":
        database = await self._connect()
        if self._keep_days is not None:
            await prune_runs(database, self._keep_days, keep=WAITING)
        return _Here(database, StepWriter(database))

    async def _connect(self) -> Database:
        if isinstance(self._address, Path):
            from journeyman.runtime.store.sqlite import SqliteRuns

            return await SqliteRuns.open(self._address, durability=self.durability, tables=TABLES)
        try:
            from journeyman.runtime.store.postgres import PostgresRuns
        except ImportError:
            raise ConfigError("runs in Postgres need the extra: pip install 'journeyman[postgres]'") from None
        return await PostgresRuns.open(self._address, tables=TABLES)


@dataclass(frozen=True)
class _Here:
    """What one event loop has of the store."""

    database: Database
    steps: StepWriter


def taken_up(run_id: str) -> StoreError:
    """For who is at work on a run that somebody else has: a lock goes with the connection to its database."""
    return StoreError(f"run {run_id} was taken up elsewhere, after the connection that held its lock was lost")


def _address(address: Path | str) -> Path | str:
    """A path for SQLite, which later changes of the working folder leave as it is; a URL for Postgres."""
    if isinstance(address, Path):
        return address.expanduser().absolute()
    scheme, found, rest = address.partition("://")
    if scheme in ("postgres", "postgresql") and found:
        return address
    if scheme == "sqlite" and rest.startswith("/"):
        return _address(Path(rest.removeprefix("/")))
    if found or address.startswith(("postgres:", "postgresql:")):
        scheme = f"{scheme}://" if found else "postgresql:"
        raise ConfigError(f"runs cannot be kept at a {scheme} address: give a path, or postgresql://...")
    if not address or address == ":memory:" or address.startswith("file:"):
        raise ConfigError(f"runs cannot be kept in {address!r}: give a path of a file")
    return _address(Path(address))


def _record(text: str) -> RunRecord:
    try:
        return RunRecord.model_validate_json(text)
    except ValueError:
        raise StoreError("a run was kept by another version of journeyman: update it, or prune the run") from None


def _kinds(base: type[Record]) -> list[type[Record]]:
    """The records of this package that are loaded now, which those of a graph that runs are."""
    found = [base, *(kind for child in base.__subclasses__() for kind in _kinds(child))]
    return [kind for kind in found if kind.__module__.startswith("journeyman.")]
