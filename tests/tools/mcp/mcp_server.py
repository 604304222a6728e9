"""A real MCP server, made with the SDK, that the tests start: over stdio, or over HTTP at the port given."""

import asyncio
import os
import sys
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations
from pydantic import BaseModel

server = MCPServer("test", log_level="CRITICAL")
waits = 0


class Place(BaseModel):
    name: str
    within: "Place | None" = None


@server.tool()
def add(a: int, b: int = 1) -> int:
    """Adds two numbers."""
    return a + b


@server.tool(name="go-to.place")
def go(place: Place) -> str:
    return f"went to {place.name}"


@server.tool()
async def wait(seconds: float) -> str:
    global waits
    waits += 1
    try:
        await asyncio.sleep(seconds)
    finally:
        waits -= 1
    return "waited"


@server.tool()
def waiting() -> int:
    return waits


@server.tool(structured_output=False)
async def process() -> str:
    return str(os.getpid())


@server.tool()
def variable(name: str) -> str:
    return os.environ.get(name, "unset")


@server.tool()
async def die() -> None:
    os._exit(1)


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
async def die_once(mark: str) -> str:
    if not os.path.exists(mark):  # noqa: ASYNC240, PTH110
        os.close(os.open(mark, os.O_CREAT))
        os._exit(1)
    return "alive"


@server.tool()
def fail() -> Any:
    from mcp.server.mcpserver.exceptions import ToolError

    raise ToolError("no luck today")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        server.run()
