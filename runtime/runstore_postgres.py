"""Runs kept in Postgres: what one event loop holds open of it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.postgres.aio import AsyncPostgresStore
from psycopg import AsyncConnection, Error
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import UndefinedObject
from psycopg.rows import dict_row, tuple_row
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
        self.checkpointer = AsyncPostgresSaver(pool, serde=JsonPlusSerializer(allowed_msgpack_modules=None))
        self.store = AsyncPostgresStore(pool)

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
        try:
            async with self._pool.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
                await cursor.execute(query.replace("?", "%s"), values)
                return await cursor.fetchall() if cursor.description else []
        except (Error, PoolTimeout) as error:
            # Where one connection was dropped the others were too: one failure is enough to replace them all.
            await self._pool.check()
            raise _lost(self._url, error) from None

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
