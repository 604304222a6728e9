"""Answering: what a workspace's runs ask, its server and the endpoints of `[models]`, and who is routed where."""

from dataclasses import dataclass

from journeyman.agents.model import ModelTable
from journeyman.runtime.models.endpoints import model_table
from journeyman.runtime.models.routing import Router
from journeyman.runtime.models.vllm import ChatVLLM
from journeyman.runtime.serving.server import ServerState, running
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ServerError


@dataclass(frozen=True)
class Backend:
    """The same for every run of a workspace: one that is tested is answered as one that is in earnest."""

    models: ModelTable
    router: Router | None
    server: ServerState | None
    """None for one that is known by its address alone, or is not running and perhaps not needed."""

    @property
    def base_digest(self) -> str | None:
        return None if self.server is None else self.server.model_digest


def open_backend(workspace: Workspace, attach: str | None = None) -> Backend:
    """`attach` is the address of a server that someone else runs; raises `ConfigError` or `ServerError`."""
    config = workspace.config
    server = None if attach else _server(workspace)
    # Where other endpoints may do all the work, only what asks for the base model or an adapter needs the server.
    address = f"http://{config.server.host}:{config.server.port}" if server is None else server.url
    return Backend(
        models=model_table(ChatVLLM(base_url=attach or address), config.models),
        router=None if config.routing is None else Router.open(config.routing, workspace.router),
        server=server,
    )


def _server(workspace: Workspace) -> ServerState | None:
    """The workspace's server; raises `ServerError` where there is none and no other endpoint either."""
    try:
        return running(workspace)
    except ServerError:
        if not workspace.config.models:
            raise
        return None
