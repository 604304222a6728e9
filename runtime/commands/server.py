"""`journeyman server`: the vLLM server of the workspace."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep, time_ns
from typing import Annotated

import typer

from journeyman.runtime.adapters.live import sync
from journeyman.runtime.config import ServerConfig
from journeyman.runtime.console import AttachOption, Exit, JsonOption, WorkspaceOption, emit, notes, out
from journeyman.runtime.serving import server
from journeyman.runtime.serving.launch import tail
from journeyman.runtime.serving.server import OnProgress, ServerState, ServerStatus
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces.base import parse_config
from journeyman.traces.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Start, watch and stop the vLLM server, LoRA adapters on.")


@app.command()
def start(
    attach: AttachOption = None,
    model: Annotated[str | None, typer.Option("--model", help="Embedded model, local folder or hub id")] = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Port to listen on")] = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start vLLM and wait until it answers; it goes on when this command ends.

    Every adapter in service is loaded into it and proved.

    Example: journeyman server start --port 8731
    """
    workspace = find_workspace(folder)
    config = _config(workspace, model, port)
    if attach is not None:
        if model is not None or port is not None:
            raise ConfigError("--attach takes a server as it is: leave out --model and --port")
        attached = server.attach(workspace, attach, config)
        emit(attached, as_json, lambda: out.print(f"attached to {attached.url} ({attached.model})", soft_wrap=True))
        _sync(workspace, attached)
        return
    before = server.status(workspace).server
    with _progress_line() as on_progress:
        state = server.start(workspace, config, on_progress)
    seconds = (time_ns() - state.started_ns) / 1e9
    words = "runs already" if before == state else f"answers after {seconds:.0f} s"
    emit(state, as_json, lambda: out.print(f"{state.model} {words} at {state.url} (pid {state.pid})", soft_wrap=True))
    _sync(workspace, state)


def _sync(workspace: Workspace, state: ServerState) -> None:
    for swap in sync(workspace, state):
        notes.print(f"{swap.policy} is in service: loaded and proved", markup=False)


@app.command()
def status(folder: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """How the server is, and which policies it answers to. Ends with 1 where none answers.

    Example: journeyman server status
    """
    found = server.status(find_workspace(folder))
    emit(found, as_json, lambda: _print_status(found))
    if found.condition != "running":
        raise typer.Exit(Exit.FAILED)


@app.command()
def stop(folder: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Stop the server and all its processes; one that was attached is forgotten and goes on.

    Example: journeyman server stop
    """
    stopped = server.stop(find_workspace(folder))
    emit({"stopped": stopped}, as_json, lambda: out.print(_farewell(stopped), soft_wrap=True))


@app.command()
def logs(
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="How many of the last lines")] = 40,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as the log grows, until Ctrl-C")] = False,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """The end of the server's log.

    Example: journeyman server logs --follow
    """
    workspace = find_workspace(folder)
    if not workspace.server_log.exists():
        raise ConfigError(f"there is no log in {workspace.root}: start a server there with `journeyman server start`")
    if follow and as_json:
        raise ConfigError("--json prints one value: leave out --follow")
    text = tail(workspace.server_log, lines)
    emit({"log": workspace.server_log, "lines": text.splitlines()}, as_json, lambda: _write(text))
    if follow:
        _follow(workspace.server_log)


def _config(workspace: Workspace, model: str | None, port: int | None) -> ServerConfig:
    named = {key: value for key, value in {"model": model, "port": port}.items() if value is not None}
    return parse_config(ServerConfig, workspace.config.server.model_dump() | named, "server start")


@contextmanager
def _progress_line() -> Iterator[OnProgress]:
    """One line on stderr that is kept up to date; where stderr is no terminal, a line for each new stage."""
    if notes.is_terminal:
        with notes.status("starting the server") as line:
            yield lambda elapsed, doing: line.update(f"starting the server: {elapsed:.0f} s, {doing}")
        return
    said: set[str] = set()

    def say(elapsed: float, doing: str) -> None:
        if doing not in said:
            said.add(doing)
            notes.print(f"starting the server: {elapsed:.0f} s, {doing}")

    yield say


def _print_status(found: ServerStatus) -> None:
    state = found.server
    if state is None:
        out.print("no server: start one with `journeyman server start`, or attach one with --attach URL")
        return
    rows = {
        "condition": found.condition + (" (attached)" if state.attached else ""),
        "url": state.url,
        "model": state.model,
        "policies": ", ".join(found.policies) or "unknown",
        "adapters": f"up to {state.max_loras} at once, rank up to {state.max_lora_rank}",
        "pid": state.pid,
        "log": state.log,
    }
    for key, value in rows.items():
        if value is not None:
            out.print(f"{key:<10} {value}", markup=False, soft_wrap=True)


def _farewell(stopped: ServerState | None) -> str:
    if stopped is None:
        return "no server was running"
    return f"forgot {stopped.url}, which goes on" if stopped.attached else f"stopped the server at {stopped.url}"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _follow(log: Path) -> None:
    with log.open(encoding="utf-8", errors="replace") as file:
        file.seek(0, 2)
        try:
            while True:
                _write(file.read())
                sleep(0.3)
        except KeyboardInterrupt:
            return
