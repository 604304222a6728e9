"""The model server of a workspace: a vLLM that we start and stop, or one that someone else runs."""

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep, time_ns
from typing import Literal

import httpx
from pydantic import BaseModel, ValidationError

from journeyman.agents.model import BASE
from journeyman.runtime.config import ServerConfig
from journeyman.runtime.serving.embedded import model_digest, resolve_model
from journeyman.runtime.serving.launch import command, environment, failure, installed_build, stage
from journeyman.runtime.serving.process import Process, spawn
from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError, JourneymanError, ServerError
from journeyman.traces.files import regular, write_whole

OnProgress = Callable[[float, str], None]
"""Told the seconds since the start and what the server does now, about twice a second."""


class ServerState(Record):
    """What a workspace knows of its server; kept in `server.json`."""

    version: int = 1
    url: str
    """Without `/v1`."""
    model: str
    """Folder of the base model; of an attached server, what it says that it serves."""
    model_digest: str | None
    """None while it is loading, and where the model is not a folder on this machine."""
    pid: int | None
    """None for an attached server."""
    birth: str | None = None
    """By which the process is told from a later one with the same pid."""
    port: int | None
    attached: bool
    max_loras: int
    max_lora_rank: int
    log: Path | None
    started_ns: int
    ready: bool = True
    """False until the server first answered."""

    @property
    def process(self) -> Process | None:
        return None if self.pid is None else Process(pid=self.pid, birth=self.birth or "unknown")


class ServerStatus(Record):
    condition: Literal["none", "starting", "running", "unreachable", "dead"]
    """`unreachable`: it should answer and doesn't; `dead`: its process is gone and nobody stopped it."""
    server: ServerState | None = None
    policies: tuple[str, ...] = ()
    """Names that it answers to: the base model and the adapters loaded."""


def start(
    workspace: Workspace, config: ServerConfig, on_progress: OnProgress = lambda elapsed, doing: None
) -> ServerState:
    """Starts vLLM and returns when it answers; one that already serves the same model is returned as it is.

    Raises `ConfigError` for what can be known before, and `ServerError` with the cause and the log's telling lines
    for a server that does not come up; nothing of it is left then, nor after an interruption.
    """
    with workspace.create().lock("server"):
        build = installed_build()
        model = resolve_model(config.model)
        if isinstance(model, str):
            raise ConfigError(f"model {model} is not here: `journeyman model pull {model}` first")
        state = _recorded(workspace)
        if state is not None and (state.attached or (state.process and state.process.alive)):
            _check_same(workspace, state, model)
            if state.ready:
                return running(workspace)
        else:
            if state is not None and state.process is not None:
                state.process.end()  # What a server that died left behind would keep its port and memory.
            _check_free(config.host, config.port)
            process = spawn(
                command(model, config, build, workspace.root),
                env=environment(build, config, os.environ),
                log=_log(workspace),
            )
            state = _state(workspace, config, model, process)
        return _bring_up(workspace, state, config.start_timeout_s, on_progress)


def attach(workspace: Workspace, url: str, config: ServerConfig | None = None) -> ServerState:
    """Uses a server that someone else runs, after asking it what it serves."""
    config = config or ServerConfig()
    url = url.rstrip("/").removesuffix("/v1")
    with workspace.create().lock("server"):
        known = _recorded(workspace)
        if known is not None and known.process is not None and known.process.alive:
            raise ConfigError(
                f"{workspace.root} has a server of its own at {known.url}: `journeyman server stop` first"
            )
        cards = {card.id: card for card in _served(url)}
        if BASE not in cards:
            names = ", ".join(cards) or "nothing"
            raise ServerError(f"{url} serves {names}, not {BASE!r}: it must be started with --served-model-name {BASE}")
        root = cards[BASE].root or BASE
        state = ServerState(
            url=url,
            model=root,
            model_digest=_digest(root),
            pid=None,
            port=httpx.URL(url).port,
            attached=True,
            max_loras=config.max_loras,
            max_lora_rank=config.max_lora_rank,
            log=None,
            started_ns=time_ns(),
        )
        _record(workspace, state)
        return state


def status(workspace: Workspace) -> ServerStatus:
    """How the server is now; asks it."""
    state = _recorded(workspace)
    if state is None:
        return ServerStatus(condition="none")
    if state.process is not None and not state.process.alive:
        return ServerStatus(condition="dead", server=state)
    try:
        policies = tuple(card.id for card in _served(state.url))
    except ServerError:
        return ServerStatus(condition="unreachable" if state.ready else "starting", server=state)
    return ServerStatus(condition="running", server=state, policies=policies)


def running(workspace: Workspace) -> ServerState:
    """The server to use; raises `ServerError` that says what to do where there is none that answers."""
    found = status(workspace)
    if found.condition == "running" and found.server is not None:
        return found.server
    place = workspace.root
    if found.server is None:
        raise ServerError(
            f"no server is running in {place}: start one with `journeyman server start` or use `--attach URL`"
        )
    if found.condition == "dead":
        raise ServerError(f"the server of {place} has died (`journeyman server logs`): `journeyman server start` again")
    if found.condition == "starting":
        raise ServerError(
            f"the server of {place} is still starting: wait for `journeyman server status` to say running"
        )
    raise ServerError(f"the server at {found.server.url} does not answer: see `journeyman server status`")


def stop(workspace: Workspace) -> ServerState | None:
    """Ends the server and all its processes, or forgets one that was attached; None where there is none."""
    state = _recorded(workspace)
    if state is None:
        return None
    if state.process is not None:
        state.process.end()
    workspace.server.unlink(missing_ok=True)
    return state


class _Card(BaseModel):
    id: str
    root: str | None = None


class _Cards(BaseModel):
    data: list[_Card]


def _served(url: str) -> list[_Card]:
    """What `/v1/models` lists."""
    try:
        reply = httpx.get(f"{url}/v1/models", timeout=10.0, trust_env=False)
        reply.raise_for_status()
        return _Cards.model_validate_json(reply.content).data
    except httpx.HTTPStatusError as error:
        raise ServerError(f"{url}/v1/models answered {error.response.status_code}: is a vLLM server there?") from None
    except ValidationError:
        raise ServerError(f"{url}/v1/models answered nonsense: is a vLLM server there?") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerError(f"{url} does not answer: {why(error)}") from None


def why(error: Exception) -> str:
    """What an HTTP library says of a request that got no answer, without the operating system's number."""
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__


def _bring_up(workspace: Workspace, state: ServerState, timeout_s: float, on_progress: OnProgress) -> ServerState:
    """Waits until the server answers; whatever comes instead, it is ended and forgotten."""
    assert state.process is not None and state.log is not None
    try:
        _record(workspace, state)
        digest = _digest(state.model)
        _wait(state.process, state.url, state.log, timeout_s, on_progress)
        ready = state.model_copy(update={"ready": True, "model_digest": digest})
        _record(workspace, ready)
        return ready
    except BaseException:
        state.process.end()
        workspace.server.unlink(missing_ok=True)
        raise


def _wait(process: Process, url: str, log: Path, timeout_s: float, on_progress: OnProgress) -> None:
    began = monotonic()
    while not _healthy(url):
        elapsed = monotonic() - began
        if not process.alive:
            raise ServerError(f"the server did not start: {failure(log, process.exit_code())}")
        if elapsed > timeout_s:
            raise ServerError(
                f"the server did not answer within {timeout_s:g} s (it was {stage(log)}): "
                f"raise start_timeout_s in [server]\n  whole log: {log}"
            )
        on_progress(elapsed, stage(log))
        sleep(0.5)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _check_same(workspace: Workspace, state: ServerState, model: Path) -> None:
    if state.attached:
        raise ConfigError(f"{workspace.root} is attached to {state.url}: `journeyman server stop` forgets it")
    if state.model != str(model):
        raise ConfigError(
            f"a server with {state.model} already runs in {workspace.root} at {state.url}, not with {model}: "
            "`journeyman server stop` first"
        )


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} of {host} is taken ({error.strerror}): choose another with --port, or use that server "
                f"with --attach http://{host}:{port}"
            ) from None


def _state(workspace: Workspace, config: ServerConfig, model: Path, process: Process) -> ServerState:
    return ServerState(
        url=f"http://[{config.host}]:{config.port}" if ":" in config.host else f"http://{config.host}:{config.port}",
        model=str(model),
        model_digest=None,
        pid=process.pid,
        birth=process.birth,
        port=config.port,
        attached=False,
        max_loras=config.max_loras,
        max_lora_rank=config.max_lora_rank,
        log=_log(workspace),
        started_ns=time_ns(),
        ready=False,
    )


def _log(workspace: Workspace) -> Path:
    return workspace.server_log.resolve()


def _digest(model: str) -> str | None:
    folder = Path(model)
    try:
        return model_digest(folder) if folder.is_dir() else None
    except JourneymanError:
        return None


def _recorded(workspace: Workspace) -> ServerState | None:
    try:
        return ServerState.model_validate_json(regular(workspace.server).read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError):
        raise ServerError(
            f"{workspace.server} cannot be read: delete it, and end its server by hand if one runs"
        ) from None


def _record(workspace: Workspace, state: ServerState) -> None:
    try:
        write_whole(workspace.server, state.model_dump_json(indent=2))
    except OSError as error:
        raise ServerError(f"{workspace.server} was not written: {error.strerror}") from error
