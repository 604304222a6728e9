"""Runs kept in Postgres: what one event loop holds open of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.postgres.aio import AsyncPostgresStore
from psycopg import AsyncConnection, AsyncCursor, Error
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import UndefinedObject
from psycopg.rows import DictRow, dict_row, tuple_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from journeyman.runtime.runlocks import PATIENCE_S, SETUP, SETUP_S, take
from journeyman.traces.errors import StoreError

MAX_CONNECTIONS = 8
"""For one event loop, besides the one that holds its locks."""
CONNECT_S = 10.0
SETTINGS: dict[str, Any] = {
    "autocommit": True,
    "prepare_threshold": 0,
    # The server notices within a minute that a machine with locks has gone.
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}


class PostgresRuns:
    """A pool for statements, and one connection whose session holds the advisory locks of the runs that go on here.

    The pool does not try its connections before it gives them: a server that dropped all of them has dropped the locks
    too, and then the next write must fail. A proxy that shares sessions (transaction pooling) would break the locks.
    """

    def __init__(self, url: str, pool: "AsyncConnectionPool[Any]", session: "AsyncConnection[Any]") -> None:
        self._url = url
        self._pool = pool
        self._session = session
        self._held: set[str] = set()
        self.checkpointer = _Saver(pool, serde=JsonPlusSerializer(allowed_msgpack_modules=None))
        self.store = _Store(pool)
        # Of the database and not of this object: LangGraph's store ends its task when nobody refers to it any more.
        self._kept = self.checkpointer.kept = self.store.kept = partial(_kept, url, pool)

    @classmethod
    async def open(cls, url: str, *, tables: Sequence[str]) -> "PostgresRuns":
        try:
            session = await _session(url)
        except Error as error:
            raise _lost(url, error) from None
        settings = {**SETTINGS, "row_factory": dict_row}
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            url, min_size=1, max_size=MAX_CONNECTIONS, timeout=CONNECT_S, kwargs=settings, configure=_stays, open=False
        )
        await pool.open()
        opened = cls(url, pool, session)
        try:
            async with opened.lock(SETUP, SETUP_S):
                for table in tables:
                    await opened.rows(table)
                await opened.checkpointer.setup()
                await opened.store.setup()
        except BaseException:
            await opened.close()
            raise
        return opened

    async def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        async with self._kept(), self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=tuple_row)
            await cursor.execute(query.replace("?", "%s"), values)
            return await cursor.fetchall() if cursor.description else []

    async def trim(self, run_id: str) -> None:
        await self.checkpointer.aprune([run_id])

    async def compact(self) -> None:
        """Nothing: the server's autovacuum does it."""

    @asynccontextmanager
    async def lock(self, run_id: str, patience_s: float = PATIENCE_S) -> AsyncIterator[None]:
        # Asked again and again: a session that waits inside the server would hold up what makes an index.
        await take(run_id, lambda: self._locked(run_id), patience_s)
        try:
            yield
        finally:
            self._held.discard(run_id)
            # The server lets go of what a lost session held.
            with suppress(StoreError):
                await self._ask("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", run_id)

    async def _locked(self, run_id: str) -> bool:
        # The server counts the locks of one session instead of refusing the second.
        if run_id in self._held:
            return False
        self._held.add(run_id)
        got = False
        asking = asyncio.ensure_future(self._ask("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", run_id))
        try:
            got = await asyncio.shield(asking)
        except asyncio.CancelledError:
            if await asking:
                await self._ask("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", run_id)
            raise
        finally:
            if not got:
                self._held.discard(run_id)
        return got

    async def _ask(self, query: str, run_id: str) -> bool:
        try:
            if self._session.closed:
                self._session = await _session(self._url)
            cursor = await self._session.execute(query, (f"journeyman:{run_id}",))
            row = await cursor.fetchone()
        except Error as error:
            raise _lost(self._url, error) from None
        return bool(row and row[0])

    async def close(self) -> None:
        await self._pool.close()
        await self._session.close()

    def abandon(self) -> None:
        """For connections whose event loop has gone: they are closed when nobody refers to them."""


class _Saver(AsyncPostgresSaver):
    kept: Callable[[], AbstractAsyncContextManager[None]]

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator["AsyncCursor[DictRow]"]:
        async with self.kept(), super()._cursor(pipeline=pipeline) as cursor:
            yield cursor

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        # Plain texts lie in JSON, which in Postgres has no null character; a server's complaint may have one.
        values = {name: _shown(value) for name, value in checkpoint["channel_values"].items()}
        kept: Checkpoint = {**checkpoint, "channel_values": values}
        return await super().aput(config, kept, metadata, new_versions)


class _Store(AsyncPostgresStore):
    kept: Callable[[], AbstractAsyncContextManager[None]]

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator["AsyncCursor[DictRow]"]:
        async with self.kept(), super()._cursor(pipeline=pipeline) as cursor:
            yield cursor


@asynccontextmanager
async def _kept(url: str, pool: "AsyncConnectionPool[Any]") -> AsyncIterator[None]:
    """What the database says against the block is a `StoreError`."""
    try:
        yield
    except (Error, PoolTimeout) as error:
        # Where one connection was dropped the others were too: one failure is enough to replace them all.
        await pool.check()
        raise _lost(url, error) from None


def _shown(value: object) -> object:
    return value.replace("\0", "\N{SYMBOL FOR NULL}") if isinstance(value, str) else value


async def _session(url: str) -> "AsyncConnection[Any]":
    timeout = int(CONNECT_S)
    session = await AsyncConnection.connect(url, connect_timeout=timeout, row_factory=tuple_row, **SETTINGS)
    await _stays(session)
    return session


async def _stays(connection: "AsyncConnection[Any]") -> None:
    """Where a server ends sessions that say nothing for a while, a run in a long call would lose its lock."""
    with suppress(UndefinedObject):  # Older than Postgres 14, which has no such setting.
        await connection.execute("SET idle_session_timeout = 0")


def _lost(url: str, error: Exception) -> StoreError:
    """Without the URL, which may hold a password."""
    known = conninfo_to_dict(url)
    where = f"{known.get('host', 'the local socket')}:{known.get('port', 5432)}/{known.get('dbname', '')}"
    return StoreError(f"runs cannot be kept in Postgres at {where}: {' '.join(str(error).split())}")
