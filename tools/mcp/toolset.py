"""MCP: the tools of any server of the Model Context Protocol, over stdio or streamable HTTP.

The server is connected to when the tools are made, in a loop and thread of its own, so that one connection serves
every event loop of the process. When it breaks it is opened again for the next call. A call that was under way is
repeated only if the server calls its tool read-only or idempotent: of any other nobody knows whether it was done.

What it protects from: arguments are held to the server's own schema before anything is sent; calls, connecting and
reconnecting have time limits; a server started by `command` gets a handful of environment variables and those named.

No tool makes its server unusable. What cannot be read of a tool's schema is left out of it, for the server to check,
and the log names the tool; a schema that cannot be read at all lets everything through. A tool without a name is left
out. Results are held to no schema.

What it does not: a server started by `command` is a program with your rights, not a sandbox. The descriptions of its
tools go into the prompt, and its results are read by the model: connect only to servers that you trust with both.
"""

import asyncio
import json
import logging
import os
import re
import threading
import weakref
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from itertools import chain, count
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, TypeVar

from journeyman.tools.mcp.foreign_schema import outlined, readable
from journeyman.tools.mcp.wire import AS_LISTED
from journeyman.tools.secret import header_text
from journeyman.tools.tool import Seconds, Tool
from journeyman.traces.errors import ConfigError, ToolError, in_one_line

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult
    from mcp.types import Tool as Offered

    from journeyman.tools.mcp.session import Session

T = TypeVar("T")

PAUSES_S = (0.2, 0.5, 0.0)
"""After each attempt to connect, the last of which ends it."""
MAX_PAGES = 100
SECONDS_TO_CLOSE = 6.0

_logger = logging.getLogger(__name__)


def mcp(
    *,
    command: Sequence[str] | None = None,
    url: str | None = None,
    tools: Sequence[str] | None = None,
    env: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    log: Path | None = None,
    max_seconds: Seconds = 60.0,
    connect_seconds: Seconds = 30.0,
) -> tuple[Tool, ...]:
    """The tools of the server that `command` starts, or that answers at `url`; all of them, or those named in `tools`.

    A name that is no Python identifier gets `_` for what does not fit, and a number where another tool has that name.
    Raises `ConfigError` where the server cannot be reached or lacks a tool.

    - `command`: the program and its arguments; it speaks over standard input and output.
    - `url`: where a server answers over HTTP, instead of `command`.
    - `tools`: which of its tools; None for all.
    - `env`: variables of this process that the started server gets besides PATH, HOME and the like.
    - `headers`: sent with each request; in a value `${TOKEN}` stands for an environment variable, so that no secret is
      written down.
    - `log`: the file for what a started server writes to its standard error.
    - `max_seconds`: for a call.
    - `connect_seconds`: for all attempts to connect, and for the list of tools.
    """
    if tools is not None and not tools:
        raise ConfigError("tools is empty: name some, or leave it out to get all")
    if find_spec("mcp") is None:
        raise ConfigError("MCP servers need the package mcp: pip install 'journeyman[mcp]'")
    from journeyman.tools.mcp.session import process_client, web_client

    # Neither the arguments of a command nor the query of a url appear in errors: both may hold secrets.
    if url is not None and command is None:
        link = _Link(url.partition("?")[0], partial(web_client, url, _filled(headers or {})), connect_seconds)
    elif command and url is None:
        client = partial(process_client, tuple(command), _picked(env), log or Path(os.devnull))
        link = _Link(f"the MCP server {command[0]}", client, connect_seconds)
    else:
        raise ConfigError("an MCP server needs either a command or a url")
    server = _Server(link)
    try:
        offered = {one.name: one for one in server.run(link.tools())}
    except ToolError as error:
        raise ConfigError(str(error)) from None
    if not offered:
        raise ConfigError("the MCP server has no tools: name another command or address")
    if missing := [name for name in tools or () if name not in offered]:
        raise ConfigError(f"the MCP server has no tool {missing[0]!r}; it has: {', '.join(offered)}")
    names: dict[str, str] = {}
    for name in dict.fromkeys(tools or offered):
        names[_unlike(_identifier(name), names)] = name
    return tuple(_tool(server, offered[name], called, max_seconds) for called, name in names.items())


def _tool(server: "_Server", offered: "Offered", name: str, max_seconds: float) -> Tool:
    hints = offered.annotations
    again = hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)

    async def call(**arguments: Any) -> str:
        return _text(await server.call(offered.name, arguments, max_seconds, again))

    listed = (offered.meta or {}).get(AS_LISTED, offered.input_schema)
    tool = partial(
        Tool,
        call,
        name=name,
        description=offered.description or offered.title or offered.name,
        timeout_s=max_seconds + 5,
        writes=hints is None or not hints.read_only_hint,
        idempotent=again,
    )
    return _with_schema(tool, listed, offered.name)


def _with_schema(tool: Callable[..., Tool], listed: Any, name: str) -> Tool:
    """The tool with as much of its schema as can be read; what is left out is told."""
    try:
        schema, left = readable(listed)
    except Exception as error:  # Nobody can say what a schema of somebody else's does to those who read it.
        _logger.warning("MCP tool %r: its schema cannot be read, so it takes anything: %s", name, in_one_line(error))
        return tool(parameters={"type": "object"})
    if left:
        _logger.warning("MCP tool %r: left to the server, as it cannot be read here: %s", name, "; ".join(left))
    try:
        return tool(parameters=schema)
    except (ConfigError, RecursionError) as error:
        _logger.warning("MCP tool %r is shown by its outermost parameters: %s", name, in_one_line(error))
        return tool(parameters=outlined(schema))


class _Server:
    """What the tools hold: when the last of them is gone, and at the end of the process, the connection is closed."""

    def __init__(self, link: "_Link") -> None:
        self._link = link
        self._close = weakref.finalize(self, link.close)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._link.loop).result()

    async def call(self, name: str, arguments: dict[str, Any], seconds: float, again: bool) -> "CallToolResult":
        work = self._link.call(name, arguments, seconds, again)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._link.loop))


class _Link:
    """The connection, in a loop and thread of its own; its coroutines run there."""

    def __init__(self, where: str, client: "Callable[[Session], Client]", connect_seconds: float) -> None:
        self.loop = asyncio.new_event_loop()
        self._where = where
        self._client = client
        self._connect_seconds = connect_seconds
        self._session: Session | None = None
        self._connecting = asyncio.Lock()
        self._leaving: asyncio.Future[None] | None = None
        self._thread = threading.Thread(target=self._serve, name=f"mcp {where}", daemon=True)
        self._thread.start()

    async def tools(self) -> "list[Offered]":
        session = await self._open()
        return await session.within(_all_tools(session.client), self._connect_seconds)

    async def call(self, name: str, arguments: dict[str, Any], seconds: float, again: bool) -> "CallToolResult":
        from journeyman.tools.mcp.session import BrokenError

        for attempt in (1, 2):
            session = await self._open()
            try:
                return await session.within(session.client.call_tool(name, arguments), seconds)
            except BrokenError as broken:
                session.over.set()
                if attempt == 2 or not (again or broken.untouched):
                    break
        raise ToolError(f"the connection to {self._where} broke; nobody knows whether the call was carried out")

    async def _open(self) -> "Session":
        """The open session, or a new one; raises `ToolError` after some attempts."""
        from journeyman.tools.mcp.session import Session

        async with self._connecting:
            if self._session is not None and self._session.alive:
                return self._session
            if self._session is not None:
                await self._session.close()
            until = self.loop.time() + self._connect_seconds
            for pause in PAUSES_S:
                try:
                    self._session = await Session.opened(self._client, until - self.loop.time())
                    return self._session
                except ToolError as error:
                    problem = error
                if self.loop.time() + pause > until:
                    break
                await asyncio.sleep(pause)
        raise ToolError(f"{self._where} cannot be reached: {problem}")

    def close(self) -> None:
        """Ends the session and the thread, and waits for that unless the garbage is collected in that very thread."""
        if threading.current_thread() is self._thread:
            self._leaving = asyncio.ensure_future(self._end(), loop=self.loop)
            self._leaving.add_done_callback(lambda _: self.loop.stop())
            return
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(SECONDS_TO_CLOSE)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(SECONDS_TO_CLOSE)

    def _serve(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    async def _end(self) -> None:
        if self._session is not None:
            await self._session.close()
        await self.loop.shutdown_asyncgens()


async def _all_tools(client: "Client") -> "list[Offered]":
    found: list[Offered] = []
    cursor = None
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        if not page.next_cursor or page.next_cursor == cursor:
            break
        cursor = page.next_cursor
    return found


def _identifier(name: str) -> str:
    """A tool's name as a crew can use it."""
    written = re.sub(r"\W", "_", name)
    return written if written.isidentifier() and written != "answer" else f"_{written}"


def _unlike(name: str, taken: Collection[str]) -> str:
    numbered = (f"{name}_{number}" for number in count(2))
    return next(one for one in chain((name,), numbered) if one not in taken)


def _text(result: "CallToolResult") -> str:
    parts = []
    for block in result.content:
        match block.type:
            case "text":
                parts.append(block.text)
            case "resource_link":
                parts.append(f"[{block.uri}]")
            case "resource":
                parts.append(getattr(block.resource, "text", f"[{block.resource.uri}]"))
            case kind:
                parts.append(f"[{kind}]")
    text = "\n".join(parts)
    if result.is_error:
        raise ToolError(text or "it failed without a word")
    if not text and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return text


def _picked(names: Sequence[str]) -> dict[str, str]:
    if missing := [name for name in names if name not in os.environ]:
        raise ConfigError(f"the environment has no variable {missing[0]!r}, which an MCP server is to get")
    return {name: os.environ[name] for name in names}


def _filled(headers: Mapping[str, str]) -> dict[str, str]:
    try:
        filled = {name: Template(value).substitute(os.environ) for name, value in headers.items()}
    except KeyError as error:
        raise ConfigError(f"the environment has no variable {error}, which a header names") from None
    except ValueError:
        raise ConfigError("in a header, write ${NAME} for a variable and $$ for a dollar sign") from None
    return {name: header_text(value, f"the header {name}") for name, value in filled.items()}
