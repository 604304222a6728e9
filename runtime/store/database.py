"""What the run store needs of a database: its connections, tables and texts, and how runs leave it."""

import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from time import time_ns
from typing import TYPE_CHECKING, Any, Protocol

from pydantic_core import PydanticSerializationError, to_json

from journeyman.traces.errors import ConfigError

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.store.base import BaseStore

TABLES = (
    "CREATE TABLE IF NOT EXISTS journeyman_runs ("
    "id TEXT PRIMARY KEY, trace_id TEXT NOT NULL, status TEXT NOT NULL, created_ns BIGINT NOT NULL,"
    " updated_ns BIGINT NOT NULL, version BIGINT NOT NULL, record TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS journeyman_runs_created ON journeyman_runs (created_ns)",
    "CREATE INDEX IF NOT EXISTS journeyman_runs_status ON journeyman_runs (status, created_ns)",
    "CREATE INDEX IF NOT EXISTS journeyman_runs_trace ON journeyman_runs (trace_id)",
    "CREATE TABLE IF NOT EXISTS journeyman_steps ("
    "run_id TEXT NOT NULL, place TEXT NOT NULL, number BIGINT NOT NULL, value TEXT NOT NULL,"
    " PRIMARY KEY (run_id, place, number))",
)
"""Ours, beside LangGraph's own: its store can't change a record only where nobody else did, and refuses dots."""

NULL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""A null character in JSON text, and not the same letters behind a backslash."""


class Database(Protocol):
    """What one event loop holds open of a database."""

    @property
    def checkpointer(self) -> "BaseCheckpointSaver[Any]": ...

    @property
    def store(self) -> "BaseStore": ...

    async def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """One statement, which is a transaction of its own; `?` stands for a value. Raises `StoreError`."""
        ...

    async def trim(self, run_id: str) -> None:
        """Drops all checkpoints of a run but the last."""
        ...

    async def compact(self) -> None:
        """Gives back the space of what was deleted."""
        ...

    def lock(self, run_id: str) -> AbstractAsyncContextManager[None]:
        """Raises `RunBusyError`."""
        ...

    async def close(self) -> None: ...

    def abandon(self) -> None:
        """For connections whose event loop has gone: nobody can wait for them any more."""
        ...


def check_text(name: str, value: object) -> None:
    """Raises `ConfigError` for what not every store can keep: Postgres has no null character, UTF-8 no half of a pair.

    `value` is a record or a JSON value; `name` says what it is.
    """
    try:
        text = to_json(value)
    except PydanticSerializationError:
        raise ConfigError(f"{name} holds half a surrogate pair, which isn't a character: take it out") from None
    if NULL.search(text):
        raise ConfigError(f"{name} holds a null character, which isn't text: take it out")


async def prune_runs(database: Database, older_than_days: float, *, keep: Sequence[str]) -> int:
    """Deletes the runs that are not of a status in `keep` and last changed longer ago, and says how many."""
    before_ns = time_ns() - int(older_than_days * 86_400 * 1e9)
    kept = ", ".join("?" * len(keep))
    query = f"SELECT id FROM journeyman_runs WHERE status NOT IN ({kept}) AND updated_ns < ?"
    ended = await database.rows(query, *keep, before_ns)
    for (run_id,) in ended:
        await delete_run(database, run_id)
    if ended:
        await database.compact()
    return len(ended)


async def delete_run(database: Database, run_id: str) -> None:
    # Its record last: what a crash leaves is found by it.
    await database.checkpointer.adelete_thread(run_id)
    await database.rows("DELETE FROM journeyman_steps WHERE run_id = ?", run_id)
    await database.rows("DELETE FROM journeyman_runs WHERE id = ?", run_id)
