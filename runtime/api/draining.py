"""Draining: SIGTERM stops a process's runs at their next step, where nothing is lost and all can be resumed."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from journeyman.runtime.runtime import Runtime


@asynccontextmanager
async def drains(runtime: Runtime) -> AsyncIterator[None]:
    """Within the block SIGTERM drains `runtime` instead of ending the process. For a program's main thread only."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, runtime.drain, "SIGTERM")
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
