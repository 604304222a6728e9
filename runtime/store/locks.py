"""Locks of runs: a run goes on in one place at a time, and whoever dies lets go of it."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from io import FileIO
from pathlib import Path

from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.files import make_folder, try_lock

PATIENCE_S = 0.3
"""A lock that somebody only looked at is free again within this time; one that is held is not."""
SETUP = ".setup"
"""Held while tables are made; no run can have that id."""
SETUP_S = 30.0

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


class RunBusyError(ConfigError):
    """The run goes on elsewhere: in another task, thread or process."""


def check_run_id(run_id: str) -> str:
    """`run_id`, where it can name a run; raises `ConfigError`."""
    if not _ID.fullmatch(run_id):
        raise ConfigError(f"run id {run_id!r}: up to 128 letters, digits and . _ : - with a letter or a digit first")
    return run_id


async def take(name: str, attempt: Callable[[], Awaitable[bool]], patience_s: float) -> None:
    """Returns when `attempt` got the lock; raises `RunBusyError` where it can't be had for so long."""
    loop = asyncio.get_running_loop()
    until = loop.time() + patience_s
    while not await attempt():
        if loop.time() > until:
            raise RunBusyError(f"run {name} goes on elsewhere: wait for it, or `journeyman runs cancel {name}`")
        await asyncio.sleep(0.02)


class FileLocks:
    """One file for each run in a folder, locked by the kernel, which lets go when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @asynccontextmanager
    async def lock(self, name: str, patience_s: float = PATIENCE_S) -> AsyncIterator[None]:
        path = self._folder / name
        held: list[FileIO] = []

        async def attempt() -> bool:
            try:
                make_folder(self._folder)
                held.extend(filter(None, [try_lock(path, mode=0o600)]))
            except OSError as error:
                raise StoreError(f"runs cannot be locked in {self._folder}: {error.strerror}") from None
            return bool(held)

        await take(name, attempt, patience_s)
        try:
            yield
        finally:
            # While it is still held: afterwards the file might be somebody else's.
            path.unlink(missing_ok=True)
            held[0].close()
