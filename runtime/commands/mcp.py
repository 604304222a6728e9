"""`journeyman mcp`: the crew as a server of the Model Context Protocol."""

import asyncio
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from journeyman.runtime.console import AttachOption, JsonOption, WorkspaceOption, emit, notes
from journeyman.runtime.workspace import find_workspace
from journeyman.traces.errors import ConfigError


def mcp_command(
    crew: Annotated[Path, typer.Option("--crew", metavar="FILE", help="The crew's TOML file")] = Path("crew.toml"),
    http: Annotated[
        int | None, typer.Option("--http", metavar="PORT", min=0, max=65535, help="Serve over HTTP; 0 for a free port")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; there is no login")] = "127.0.0.1",
    attach: AttachOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Sampling seed of every model call")] = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Offer the crew to MCP clients: over standard input and output, or with --http over HTTP.

    A client's entry is such a command, with whole paths.

    Example: journeyman mcp --crew crew.toml -C .journeyman
    """
    if as_json and http is None:
        raise ConfigError("--json prints the address of --http: without it standard output is the client's")
    if find_spec("mcp") is None:
        raise ConfigError("an MCP server needs the package mcp: pip install 'journeyman[mcp]'")
    from journeyman.runtime.api.mcp import PATH, listen, serve
    from journeyman.runtime.runtime import Runtime

    runtime = Runtime.open(crew, workspace=find_workspace(workspace), attach=attach, seed=seed)
    listening = None if http is None else listen(host, http)
    if listening is not None:
        address, port = listening.getsockname()[:2]
        url = f"http://{address}:{port}{PATH}"
        said = f"crew {runtime.crew.name} at {url}: Ctrl-C ends it"
        emit({"crew": runtime.crew.name, "url": url}, as_json, lambda: notes.print(said, markup=False))
        sys.stdout.flush()
    try:
        asyncio.run(serve(runtime, listening))
    except KeyboardInterrupt:
        return  # It is how serving ends.
