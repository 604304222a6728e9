"""One session with an MCP server: opened, kept and closed by a task of its own, as the SDK's scopes demand."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp.types import CONNECTION_CLOSED, INVALID_REQUEST, JSONRPCResponse
from pydantic import ValidationError

from journeyman.tools.mcp.last_words import LastWords, secrets_of
from journeyman.tools.mcp.wire import mend
from journeyman.traces.base import first_mistake
from journeyman.traces.errors import ToolError

# Where an app keeps no log, Python would print each line of a server that is no message, with a traceback.
logging.getLogger("mcp").addHandler(logging.NullHandler())

T = TypeVar("T")
FORGOTTEN = "Session terminated"
CLOSED = ("Connection closed", "SSE stream ended")
"""The SDK's words where a server does not know the session any more, and where nobody is there to answer."""
SECONDS_TO_CLOSE = 5.0
TIMEOUT = httpx2.Timeout(30.0, read=None)
"""Of the connection; how long an answer may take is up to the call."""


class BrokenError(Exception):
    """The connection closed while something was asked."""

    def __init__(self, *, untouched: bool = False) -> None:
        super().__init__()
        self.untouched = untouched
        """The server said that it did nothing: it has forgotten the session, as one does that was started anew."""


class Session:
    def __init__(self, make: "Callable[[Session], Client]") -> None:
        self.over = asyncio.Event()
        """Set when the session shall end, or the server has ended it."""
        self.words: LastWords | None = None
        """Of a server that was started."""
        self.client = make(self)
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._keeper = asyncio.create_task(self._keep())

    @classmethod
    async def opened(cls, make: "Callable[[Session], Client]", seconds: float) -> Self:
        """A session that is ready; raises `ToolError` with the reason where there is none."""
        session = cls(make)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(session._ready)
        except TimeoutError:
            await session.close()
            raise ToolError(f"no answer in {seconds:.2g} s{session._last_words()}") from None
        except ToolError as error:
            await session.close()
            raise ToolError(f"{error}{session._last_words()}") from None
        except BaseException:
            await session.close()
            raise
        return session

    @property
    def alive(self) -> bool:
        return not (self.over.is_set() or self._keeper.done())

    async def within(self, asked: Awaitable[T], seconds: float) -> T:
        """The answer; raises `ToolError` for what the server refuses, `BrokenError` when there is nobody to answer."""
        try:
            async with asyncio.timeout(seconds):
                return await asked
        except TimeoutError:
            raise ToolError(f"the server did not answer in {seconds:g} s") from None
        except ValidationError as error:
            raise ToolError(f"the server's answer is none of the protocol's: {first_mistake(error)}") from None
        except MCPError as error:
            if error.code == INVALID_REQUEST and error.message == FORGOTTEN:
                raise BrokenError(untouched=True) from None
            # The code alone says nothing: servers use it for errors of their own.
            if error.code == CONNECTION_CLOSED and (self.over.is_set() or error.message.startswith(CLOSED)):
                raise BrokenError from None
            raise ToolError(error.message) from None

    async def close(self) -> None:
        self.over.set()
        if not self._ready.done():
            self._keeper.cancel()
        done, _ = await asyncio.wait([self._keeper], timeout=SECONDS_TO_CLOSE)
        if not done:
            self._keeper.cancel()

    def _last_words(self) -> str:
        words = "" if self.words is None else self.words.shown()
        return f"; the last that it wrote: {words}" if words else ""

    async def _keep(self) -> None:
        try:
            async with self.client:
                self._ready.set_result(None)
                await self.over.wait()
        except (Exception, BaseExceptionGroup) as error:
            if not self._ready.done():
                self._ready.set_exception(ToolError(_reason(error)))
        finally:
            self.over.set()
            if not self._ready.done():
                self._ready.cancel()


def web_client(url: str, headers: dict[str, str], session: Session) -> Client:
    return Client(_web(url, headers))


def process_client(command: tuple[str, ...], env: dict[str, str], log: Path, session: Session) -> Client:
    """Starts `command` when it is entered; the session is over when the process goes away: no call is sent in vain."""
    return Client(_process(StdioServerParameters(command=command[0], args=list(command[1:]), env=env), log, session))


@asynccontextmanager
async def _web(url: str, headers: dict[str, str]) -> AsyncIterator[tuple[Any, Any]]:
    async with (
        httpx2.AsyncClient(headers=headers, timeout=TIMEOUT) as http,
        streamable_http_client(url, http_client=http) as (read, write),
    ):
        yield _Watched(read), write


@asynccontextmanager
async def _process(server: StdioServerParameters, log: Path, session: Session) -> AsyncIterator[tuple[Any, Any]]:
    session.words = LastWords(log, secrets_of([server.command, *server.args], (server.env or {}).values()))
    with session.words.pipe as pipe:
        async with stdio_client(server, errlog=pipe) as (read, write):
            pipe.close()
            yield _Watched(read, session.over), write


class _Watched:
    """What comes from a server, mended; sets `over` at the end of it."""

    def __init__(self, stream: Any, over: asyncio.Event | None = None) -> None:
        self._stream = stream
        self._over = over or asyncio.Event()

    async def receive(self) -> Any:
        return _mended(await self._stream.receive())

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return _mended(await self._stream.__anext__())
        except StopAsyncIteration:
            self._over.set()
            raise

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        left: bool | None = await self._stream.__aexit__(kind, error, trace)
        return left


def _mended(message: Any) -> Any:
    if isinstance(message, SessionMessage) and isinstance(message.message, JSONRPCResponse):
        mend(message.message.result)
    return message


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(str(error).split()) or type(error).__name__
