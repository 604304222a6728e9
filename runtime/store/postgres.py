"""Runs kept in Postgres: what one event loop holds open of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.postgres.aio import AsyncPostgresStore
from psycopg import AsyncConnection, Error, OperationalError, ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import UndefinedObject
from psycopg.rows import dict_row, tuple_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from journeyman.runtime.loops import finished
from journeyman.runtime.store.locks import PATIENCE_S, SETUP, SETUP_S, take
from journeyman.traces.errors import ConfigError, StoreError

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
LOCK = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
UNLOCK = "SELECT pg_advisory_unlock(hashtextextended(%s, 0))"
QUOTED = "JSON: "
"""Begins a text that lies in a checkpoint as JSON within JSON: in that of Postgres there is no null character."""


class PostgresRuns:
    """A pool for statements, and one connection whose session holds the advisory locks of the runs that go on here.

    Locks that were lost with their session are taken again when the next one is asked for. Who was at work meanwhile on
    a run that somebody else took up learns it from the run's record, at the latest half a second later, and before each
    call that may be made only once. A proxy that shares sessions (transaction pooling) would break the locks.
    """

    def __init__(self, url: str, pool: "AsyncConnectionPool[Any]", session: "AsyncConnection[Any]") -> None:
        self._url = url
        self._pool = pool
        self._session = session
        self._held: dict[str, bool] = {}
        """Runs to whether the server gave their lock, or is only asked for it."""
        self._renewal: asyncio.Task[None] | None = None
        self.checkpointer = _Saver(pool, serde=JsonPlusSerializer(allowed_msgpack_modules=None))
        self.store = AsyncPostgresStore(pool)

    @classmethod
    async def open(cls, url: str, *, tables: Sequence[str]) -> "PostgresRuns":
        _shown(url)
        try:
            session = await _session(url)
        except Error as error:
            raise _lost(url, error) from None
        pool = _Pool(url)
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
        async with self._pool.connection() as connection:
            try:
                return await _fetched(connection, query, values)
            except OperationalError:
                if not (connection.closed and query.startswith("SELECT")):
                    raise
        # What only reads may be asked again: the server was started anew while nobody asked it for anything.
        await self._pool.check()
        async with self._pool.connection() as connection:
            return await _fetched(connection, query, values)

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
            del self._held[run_id]
            await self._unlock(run_id)

    async def _locked(self, run_id: str) -> bool:
        # The server counts the locks of one session instead of refusing the second.
        if run_id in self._held:
            return False
        self._held[run_id] = False
        asking = asyncio.ensure_future(self._ask(run_id))
        try:
            self._held[run_id] = await asyncio.shield(asking)
        except asyncio.CancelledError:
            if await asking:
                await self._unlock(run_id)
            raise
        finally:
            if not (got := self._held[run_id]):
                del self._held[run_id]
        return got

    async def _unlock(self, run_id: str) -> None:
        with suppress(Error):  # The server lets go of what a lost session held.
            # Who is cancelled while he waits for his turn at the session would never let go.
            await finished(_locking(self._session, UNLOCK, run_id))

    async def _ask(self, run_id: str) -> bool:
        try:
            try:
                return await _locking(self._session, LOCK, run_id)
            except OperationalError:
                if not self._session.closed:
                    raise
            if self._renewal is None or self._renewal.done():
                self._renewal = asyncio.create_task(self._renew())
                self._renewal.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            await asyncio.shield(self._renewal)
            return await _locking(self._session, LOCK, run_id)
        except Error as error:
            raise _lost(self._url, error) from None

    async def _renew(self) -> None:
        """A lost session has lost its locks: they are taken again, but for those that somebody else has taken since.

        A run that goes on without its lock learns from its record who took it up.
        """
        session = await _session(self._url)
        held = [run_id for run_id, got in self._held.items() if got]
        try:
            for run_id in held:
                await _locking(session, LOCK, run_id)
        except BaseException:
            await session.close()
            raise
        self._session = session
        for run_id in held:
            if run_id not in self._held:  # It ended meanwhile.
                await self._unlock(run_id)

    async def close(self) -> None:
        if self._renewal is not None:
            await asyncio.wait({self._renewal})
        await self._pool.close()
        await self._session.close()

    def abandon(self) -> None:
        """For connections whose event loop has gone: they are closed when nobody refers to them."""


class _Pool(AsyncConnectionPool[Any]):
    """Connections for us, and for LangGraph's saver and store alike."""

    def __init__(self, url: str) -> None:
        self._url = url
        super().__init__(
            url,
            min_size=1,
            max_size=MAX_CONNECTIONS,
            timeout=CONNECT_S,
            kwargs={**SETTINGS, "row_factory": dict_row},
            configure=_stays,
            open=False,
        )

    @asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[Any]:  # noqa: ASYNC109 psycopg's own
        """What the database says against the block is a `StoreError`."""
        try:
            async with super().connection(timeout) as connection:
                yield connection
        except (Error, PoolTimeout) as error:
            # Where one connection was dropped the others were too: one failure is enough to replace them all.
            await self.check()
            raise _lost(self._url, error) from None


class _Saver(AsyncPostgresSaver):
    """Keeps plain texts of a state as they are: these lie in JSON, and a server's complaint may hold anything."""

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        values = {name: _quoted(value) for name, value in checkpoint["channel_values"].items()}
        return await super().aput(config, {**checkpoint, "channel_values": values}, metadata, new_versions)

    async def _load_checkpoint_tuple(self, value: dict[str, Any]) -> CheckpointTuple:
        found = await super()._load_checkpoint_tuple(value)
        values = found.checkpoint["channel_values"]
        found.checkpoint["channel_values"] = {name: _unquoted(value) for name, value in values.items()}
        return found


def _quoted(value: object) -> object:
    asks = isinstance(value, str) and ("\0" in value or value.startswith(QUOTED))
    return QUOTED + json.dumps(value) if asks else value


def _unquoted(value: object) -> object:
    return json.loads(value.removeprefix(QUOTED)) if isinstance(value, str) and value.startswith(QUOTED) else value


async def _session(url: str) -> "AsyncConnection[Any]":
    timeout = int(CONNECT_S)
    session = await AsyncConnection.connect(url, connect_timeout=timeout, row_factory=tuple_row, **SETTINGS)
    await _stays(session)
    return session


async def _fetched(connection: "AsyncConnection[Any]", query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
    cursor = connection.cursor(row_factory=tuple_row)
    await cursor.execute(query.replace("?", "%s"), values)
    return await cursor.fetchall() if cursor.description else []


async def _locking(session: "AsyncConnection[Any]", query: str, run_id: str) -> bool:
    cursor = await session.execute(query, (f"journeyman:{run_id}",))
    row = await cursor.fetchone()
    return bool(row and row[0])


async def _stays(connection: "AsyncConnection[Any]") -> None:
    """Where a server ends sessions that say nothing for a while, a run in a long call would lose its lock."""
    with suppress(UndefinedObject):  # Older than Postgres 14, which has no such setting.
        await connection.execute("SET idle_session_timeout = 0")


def _lost(url: str, error: Exception) -> StoreError:
    return StoreError(f"runs cannot be kept in Postgres at {_shown(url)}: {' '.join(str(error).split())}")


def _shown(url: str) -> str:
    """Without what may hold a password; raises `ConfigError` for a URL in which it can't be told from the rest."""
    server, _, rest = url.partition("://")[2].partition("/")
    try:
        known = conninfo_to_dict(url)
    except ProgrammingError:
        known = None
    if known is None or server.count("@") > 1 or "@" in rest.partition("?")[0]:
        raise ConfigError("the URL of Postgres cannot be read: write signs in its user and password as %XX, %40 for @")
    return f"{known.get('host', 'the local socket')}:{known.get('port', 5432)}/{known.get('dbname', '')}"
