"""What every folder's tests may use: the prepared model, and one real vLLM server for the whole session."""

import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from journeyman.runtime import server
from journeyman.runtime.config import ServerConfig, Workspace
from journeyman.runtime.embedded import pull_model
from journeyman.runtime.server import ServerState


@pytest.fixture(scope="session")
def embedded_model() -> Path:
    """The folder of the embedded model, prepared on the first use on this machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # What torch and transformers deprecate is not ours to fail on.
        return pull_model()


@pytest.fixture(scope="session")
def vllm_server(embedded_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerState]:
    """A real vLLM with LoRA on, in a workspace of its own, on a free port; `.url` is where it answers."""
    workspace = Workspace(tmp_path_factory.mktemp("served") / ".journeyman")
    config = ServerConfig(model=str(embedded_model), port=free_port(), kv_cache_gb=1.0)
    try:
        yield server.start(workspace, config)
    finally:
        server.stop(workspace)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
