"""A model of its own: no LoRA server takes it, and what answers for it elsewhere is proved to be it."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.adapters.adapter import (
    MODEL_CONFIG,
    RECORD,
    WEIGHTS,
    Adapter,
    digest_files,
    load_adapter,
    read_probe,
    write_adapter,
)
from journeyman.runtime.adapters.live import is_served, promote, swap_in, sync, take_out
from journeyman.runtime.models.endpoints import ModelConfig, model_table
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces.errors import AdapterError


class Peer(BaseHTTPRequestHandler):
    """The part of a model's own server that a probe asks."""

    logprobs: tuple[float, ...] = ()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        choice = {
            "token_ids": body["allowed_token_ids"],
            "logprobs": {"token_logprobs": [self.logprobs[len(body["prompt"]) - 1]]},
        }
        text = json.dumps({"model": body["model"], "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def peer() -> type[Peer]:
    return type("PeerOfOneTest", (Peer,), {})


@pytest.fixture
def url(peer: type[Peer]) -> Iterator[str]:
    listener = ThreadingHTTPServer(("127.0.0.1", 0), peer)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{listener.server_address[1]}"
    listener.shutdown()
    thread.join()
    listener.server_close()


@pytest.fixture
def folder(make_adapter: Callable[..., Path]) -> Path:
    """That of a model of its own."""
    made = make_adapter("worker@3")
    adapter, probe = load_adapter(made), read_probe(made)
    (made / WEIGHTS).rename(made / "model.safetensors")
    (made / "adapter_config.json").unlink()
    (made / MODEL_CONFIG).write_text("{}")
    own = {"method": "full", "rank": 0, "digest": digest_files(made)}
    write_adapter(made, Adapter(**{**adapter.model_dump(), **own}), probe)
    return made


@pytest.fixture
def server() -> ServerState:
    """A LoRA server that nobody may ask."""
    facts: dict[str, Any] = {"model_digest": "b" * 64, "max_loras": 3, "max_lora_rank": 8, "log": None, "started_ns": 1}
    return ServerState(url="http://127.0.0.1:9", model="model", pid=None, port=None, attached=True, **facts)


def declare(workspace: Workspace, url: str) -> Workspace:
    (workspace.root.parent / PROJECT_FILE).write_text(f'[models."worker@3"]\nurl = "{url}"\nmodel = "base"\n')
    return Workspace(workspace.root)


def test_a_lora_server_refuses_it_and_says_how_it_is_served(
    workspace: Workspace, folder: Path, server: ServerState
) -> None:
    with pytest.raises(AdapterError) as refused:
        swap_in(workspace, server, "worker@3")
    assert f"`journeyman server start --model {folder}` in another workspace" in str(refused.value)
    assert '[models."worker@3"] in journeyman.toml' in str(refused.value)


def test_its_endpoint_is_proved_and_put_in_service(
    workspace: Workspace, folder: Path, server: ServerState, url: str, peer: type[Peer]
) -> None:
    workspace = declare(workspace, url)
    peer.logprobs = read_probe(folder).adapter_logprobs
    swap = promote(workspace, "worker@3", reason="test", server=server).swap
    assert swap is not None and (swap.distance.adapter, swap.swap_ms) == (0.0, 0.0)
    assert [one.policy for one in sync(workspace, server)] == ["worker@3"]
    assert is_served(workspace, server, "worker@3")
    take_out(workspace, server, "worker@3")  # There is nothing to unload.


def test_an_endpoint_that_serves_something_else_is_told(
    workspace: Workspace, folder: Path, server: ServerState, url: str, peer: type[Peer]
) -> None:
    workspace = declare(workspace, url)
    peer.logprobs = read_probe(folder).base_logprobs
    with pytest.raises(AdapterError, match="failed its probe"):
        swap_in(workspace, server, "worker@3")


def test_an_endpoint_that_is_down_is_told(workspace: Workspace, folder: Path, server: ServerState) -> None:
    workspace = declare(workspace, "http://127.0.0.1:9")
    with pytest.raises(AdapterError, match=r'\[models."worker@3"\]: http://127.0.0.1:9 does not answer'):
        swap_in(workspace, server, "worker@3")


def test_requests_for_it_go_to_its_endpoint() -> None:
    table = model_table(ScriptedModel([]), {"worker@3": ModelConfig(url="http://127.0.0.1:9", model="base")})
    assert "worker@3" in table and "worker@2" not in table


def test_a_damaged_model_is_named(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"x" * 9)
    with pytest.raises(AdapterError, match=r"model\.safetensors"):
        load_adapter(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(AdapterError, match=r"holds no \*\.safetensors"):
        load_adapter(folder)
    assert (folder / RECORD).exists()


def test_an_endpoint_that_takes_an_adapters_name_is_refused(
    workspace: Workspace, make_adapter: Callable[..., Path], server: ServerState
) -> None:
    make_adapter("worker@3")
    workspace = declare(workspace, "http://127.0.0.1:9")
    with pytest.raises(
        AdapterError, match=r'worker@3 is an adapter, and \[models."worker@3"\] gives its name to another'
    ):
        swap_in(workspace, server, "worker@3")
