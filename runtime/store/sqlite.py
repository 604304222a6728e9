"""Runs kept in an SQLite file: what one event loop holds open of it."""

import asyncio
import sqlite3
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.store.base import Op, PutOp, Result
from langgraph.store.sqlite.aio import AsyncSqliteStore
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random

from journeyman.runtime.store.locks import PATIENCE_S, SETUP, SETUP_S, FileLocks
from journeyman.traces.errors import StoreError
from journeyman.traces.files import publish

T = TypeVar("T")

BUSY_S = 30.0
"""How long a write waits while another connection writes."""
SYNCHRONOUS = {"async": "NORMAL", "sync": "FULL"}
WHILE_LOCKED: dict[str, Any] = {
    "retry": retry_if_exception(lambda error: isinstance(error, sqlite3.OperationalError) and "locked" in str(error)),
    "stop": stop_after_delay(BUSY_S),
    "wait": wait_random(0.01, 0.05),
    "reraise": True,
}
"""While the last connection of a file closes, SQLite turns a new one away at once, whatever its patience."""
TRIM = (
    "DELETE FROM {table} WHERE thread_id = ?1 AND checkpoint_id < ("
    "SELECT max(checkpoint_id) FROM checkpoints AS kept"
    " WHERE kept.thread_id = ?1 AND kept.checkpoint_ns = {table}.checkpoint_ns)"
)


class SqliteRuns:
    """Three connections, because LangGraph's saver and store each keep transactions open between two steps."""

    def __init__(self, path: Path, locks: FileLocks, connections: Sequence[aiosqlite.Connection]) -> None:
        self._path = path
        self._locks = locks
        self._connections = connections
        self._own = connections[0]
        self.checkpointer = _Saver(connections[1], serde=JsonPlusSerializer(allowed_msgpack_modules=None))
        self.checkpointer.path = path
        self.store = _Store(connections[2])
        self.store.path = path

    @classmethod
    async def open(cls, path: Path, *, durability: str, tables: Sequence[str]) -> "SqliteRuns":
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unkept(path, error) from None
        locks = FileLocks(path.with_name(f"{path.name}.locks"))
        async with locks.lock(SETUP, SETUP_S):
            # Made aside: a kill amid LangGraph's migrations leaves a file that it can never open again.
            if (new := _aside(path)) is not None:
                await (await cls._open(new, locks, durability, tables)).close()
                publish(new, path)
            return await cls._open(path, locks, durability, tables)

    @classmethod
    async def _open(cls, path: Path, locks: FileLocks, durability: str, tables: Sequence[str]) -> "SqliteRuns":
        try:
            connections: list[aiosqlite.Connection] = [
                await AsyncRetrying(**WHILE_LOCKED)(_connect, path, SYNCHRONOUS[durability], isolation_level)
                for isolation_level in (None, "IMMEDIATE", None)
            ]
            opened = cls(path, locks, connections)
            await opened._set_up(tables)
        except (OSError, sqlite3.Error) as error:
            raise _unkept(path, error) from None
        return opened

    async def _set_up(self, tables: Sequence[str]) -> None:
        try:
            for table in tables:
                await self.rows(table)
            await self.checkpointer.setup()
            await self.store.setup()
        except BaseException:
            await self.close()
            raise

    async def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return [tuple(row) for row in await self._own.execute_fetchall(query, values)]
        except sqlite3.Error as error:
            raise _unkept(self._path, error) from None

    async def trim(self, run_id: str) -> None:
        for table in ("writes", "checkpoints"):
            await self.rows(TRIM.format(table=table), run_id)

    async def compact(self) -> None:
        await self.rows("PRAGMA incremental_vacuum")

    def lock(self, run_id: str, patience_s: float = PATIENCE_S) -> AbstractAsyncContextManager[None]:
        return self._locks.lock(run_id, patience_s)

    async def close(self) -> None:
        await self.checkpointer.settled()
        for connection in self._connections:
            # A connection that is closed amid a transaction may hold its lock until the last cursor is collected.
            await connection.rollback()
            await connection.close()

    def abandon(self) -> None:
        for connection in self._connections:
            connection.stop()


class _Saver(AsyncSqliteSaver):
    """Finishes each write: a task cancelled between a write and its commit would else keep every other writer out."""

    path: Path

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._writing: set[asyncio.Future[Any]] = set()

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return await self._finished(super().aput(config, checkpoint, metadata, new_versions))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await self._finished(super().aput_writes(config, writes, task_id, task_path))

    async def settled(self) -> None:
        """Waits for the writes whose tasks were cancelled."""
        await asyncio.gather(*self._writing, return_exceptions=True)

    async def _finished(self, writing: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(writing)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        try:
            return await asyncio.shield(task)
        except sqlite3.Error as error:
            raise _unkept(self.path, error) from None


class _Store(AsyncSqliteStore):
    """Reads and writes in transactions of their own.

    SQLite gives up at once, without waiting, on a transaction that has read and then wants to write while another
    process wrote in between.
    """

    path: Path

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        asked = list(ops)
        results: list[Result] = [None] * len(asked)
        for writes in (False, True):
            places = [place for place, op in enumerate(asked) if isinstance(op, PutOp) == writes]
            if places:
                found = await self._batch([asked[place] for place in places])
                for place, result in zip(places, found, strict=True):
                    results[place] = result
        return results

    async def _batch(self, ops: Sequence[Op]) -> list[Result]:
        try:
            return await super().abatch(ops)
        except sqlite3.Error as error:
            raise _unkept(self.path, error) from None


def _aside(path: Path) -> Path | None:
    """Where to make a file that is not there yet, cleared of what a killed process left."""
    if path.exists():
        return None
    new = path.with_name(f"{path.name}.new")
    for ending in ("", "-wal", "-shm"):
        new.with_name(f"{new.name}{ending}").unlink(missing_ok=True)
    return new


async def _connect(path: Path, synchronous: str, isolation_level: Any) -> aiosqlite.Connection:
    connecting = aiosqlite.connect(path, timeout=BUSY_S, isolation_level=isolation_level)
    # A store that nobody closed must not keep the interpreter from ending.
    connecting._thread.daemon = True
    try:
        connection = await connecting
    except BaseException:
        # It ends with a word to this event loop, which may be closed by then.
        await asyncio.to_thread(connecting._thread.join)
        raise
    try:
        # Before the first table, or it has no effect.
        await connection.execute_fetchall("PRAGMA auto_vacuum = INCREMENTAL")
        await connection.execute_fetchall("PRAGMA journal_mode = WAL")
        await connection.execute_fetchall(f"PRAGMA synchronous = {synchronous}")
    except BaseException:
        await connection.close()
        raise
    return connection


def _unkept(path: Path, error: Exception) -> StoreError:
    return StoreError(f"runs cannot be kept in {path}: {error}")
