"""Writing steps: those that are noted while a write is under way go together in the next one."""

import asyncio

from journeyman.runtime.store.database import Database

Key = tuple[str, str, int]
"""Run, place, number."""
MOST = 1000
"""Rows in one statement; SQLite takes 32,766 values."""


class StepWriter:
    """One event loop's. Many workers at once cost few transactions, and a single one waits for nobody."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[Key, str] = {}
        self._written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._work: asyncio.Task[None] | None = None

    async def write(self, key: Key, value: str) -> None:
        """Returns when it is written; raises `StoreError`."""
        self._waiting[key] = value
        written = self._written
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._write_all())
        # Shared with others, whom the end of this task must not take it from.
        await asyncio.shield(written)

    async def finished(self) -> None:
        """Returns when nothing is left to write, of tasks that were cancelled neither."""
        if self._work is not None:
            await self._work

    async def _write_all(self) -> None:
        while self._waiting:
            batch, written = self._waiting, self._written
            self._waiting, self._written = {}, asyncio.get_running_loop().create_future()
            try:
                await self._write(list(batch.items()))
            except Exception as error:
                written.set_exception(error)
                written.exception()  # Where all who waited are gone, nobody else asks for it.
            else:
                written.set_result(None)

    async def _write(self, steps: list[tuple[Key, str]]) -> None:
        for first in range(0, len(steps), MOST):
            part = steps[first : first + MOST]
            values = ", ".join(["(?, ?, ?, ?)"] * len(part))
            await self._database.rows(
                f"INSERT INTO journeyman_steps (run_id, place, number, value) VALUES {values}"
                " ON CONFLICT (run_id, place, number) DO UPDATE SET value = excluded.value",
                *(value for key, text in part for value in (*key, text)),
            )
