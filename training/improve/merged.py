"""Merged serving: one policy's weights in a server of their own, for a phase that draws many samples from it.

On a CPU vLLM's LoRA path is several times slower than plain weights. The workspace's server stays as it is.
"""

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from journeyman.agents.model import BASE, Model, ModelReply, ModelRequest
from journeyman.runtime.adapters.adapter import check_fits, find_adapter, load_adapter, read_probe
from journeyman.runtime.adapters.live import AdapterServer
from journeyman.runtime.serving.embedded import model_digest
from journeyman.runtime.serving.server import ServerState, start, stop
from journeyman.runtime.workspace import Workspace

if TYPE_CHECKING:
    from journeyman.runtime.serving.backend import Backend

SERVER = "merged"
"""Folder of such a server in the workspace: its state and log, and the merged weights while it runs."""


@contextmanager
def merged_server(
    workspace: Workspace,
    policy: str,
    base_model: Path,
    *,
    streams: int,
    on_start: Callable[[str], None] = lambda policy: None,
) -> Iterator[ServerState]:
    """A server that answers to `policy` alone, with the adapter merged into the base model; ended after the block.

    An adapter is proved by its probe before anybody asks. `streams` is how many requests are decoded at once. Raises
    `AdapterError`, `StoreError` or `ServerError`.
    """
    from journeyman.training.methods.trainers.merge import merge  # torch takes seconds to import.

    room = Workspace(workspace.root / SERVER)
    with workspace.lock(SERVER):
        stop(room)  # One that a kill left behind.
        folder = base_model
        if policy != BASE:
            adapter = load_adapter(find_adapter(workspace.adapters, policy))
            check_fits(adapter, base_digest=(digest := model_digest(base_model)), max_rank=adapter.rank)
            folder = merge(base_model, find_adapter(workspace.adapters, policy), room.root / adapter.digest[:16])
        on_start(policy)
        config = workspace.config.server
        given = ("--served-model-name", policy, "--no-enable-lora")  # The last of equal options counts.
        own = {"model": str(folder), "port": _free_port(config.host), "traces": False, "max_num_seqs": streams}
        state = start(room, config.model_copy(update={**own, "extra_args": (*config.extra_args, *given)}))
        try:
            if policy != BASE:
                with AdapterServer(state.url) as live:
                    live.probe(policy, read_probe(find_adapter(workspace.adapters, policy)))
            yield state.model_copy(update={"model_digest": digest if policy != BASE else state.model_digest})
        finally:
            stop(room)
            shutil.rmtree(room.root, ignore_errors=True)


def merged_backend(workspace: Workspace, policy: str, server: ServerState, behind: "Backend | None") -> "Backend":
    """`policy` asks that server; all others ask `behind`, where there are any."""
    from journeyman.runtime.models.endpoints import model_table
    from journeyman.runtime.models.vllm import ChatVLLM  # langchain takes a second to import.
    from journeyman.runtime.serving.backend import Backend

    split = _Split(policy, ChatVLLM(base_url=server.url), None if behind is None else behind.models[BASE])
    return Backend(models=model_table(split, workspace.config.models), router=None, server=server)


class _Split:
    """Two servers of one base model as one model: the merged policy has its own."""

    provider = "vllm"
    demonstrates = False

    def __init__(self, policy: str, merged: Model, behind: Model | None) -> None:
        self._policy = policy
        self._merged = merged
        self._behind = behind

    async def complete(self, request: ModelRequest) -> ModelReply:
        model = self._merged if request.policy == self._policy or self._behind is None else self._behind
        return await model.complete(request)

    async def aclose(self) -> None:
        for model in (self._merged, self._behind):
            if model is not None:
                await model.aclose()


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
