"""Promotion and rollback against a server that speaks vLLM's HTTP interface and answers what the loaded probe says."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.adapters.adapter import PROBE, read_probe
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.adapters.live import (
    FLOOR,
    SHARE,
    AdapterServer,
    current_policies,
    promote,
    rollback,
    swap_in,
    sync,
)
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError, ConfigError, ServerError

MakeAdapter = Callable[..., Path]
Swap = Callable[[str], Any]


class Peer(BaseHTTPRequestHandler):
    """The part of vLLM's interface that adapters need."""

    loaded: dict[str, str]
    unloaded: list[str]
    shift: float = 0.0
    """Added to every logprob that it answers."""
    answers_as: str | None = None
    """The name in its replies, where it isn't the one asked for."""
    strays: int = 0
    """Added to the token that it was told to choose."""
    nonsense: bytes | None = None

    def do_GET(self) -> None:
        base = {"id": "base", "root": "model", "parent": None}
        self._answer({"data": [base, *({"id": k, "root": v, "parent": "base"} for k, v in self.loaded.items())]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        match self.path:
            case "/v1/load_lora_adapter":
                assert "load_inplace" not in body
                self.loaded[body["lora_name"]] = body["lora_path"]
                self._answer("Success")
            case "/v1/unload_lora_adapter":
                if self.loaded.pop(body["lora_name"], None) is None:
                    self._answer({"error": {"message": "no such adapter"}}, status=404)
                else:
                    self.unloaded.append(body["lora_name"])
                    self._answer("Success")
            case "/v1/completions":
                self._score(body)

    def _score(self, body: dict[str, Any]) -> None:
        name, [token] = body["model"], body["allowed_token_ids"]
        if name != "base" and name not in self.loaded:
            return self._answer({"error": {"message": f"The model `{name}` does not exist."}}, status=404)
        learned = [0.0] * 3 if name == "base" else read_probe(Path(self.loaded[name])).adapter_logprobs
        logprob = learned[len(body["prompt"]) - 1] + self.shift
        choice = {"token_ids": [token + self.strays], "logprobs": {"token_logprobs": [logprob]}}
        return self._answer({"model": self.answers_as or name, "choices": [choice]})

    def _answer(self, body: object, status: int = 200) -> None:
        text = self.nonsense or json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def peer() -> type[Peer]:
    """What the server of this test does, for the test to change."""
    return type("PeerOfOneTest", (Peer,), {"loaded": {}, "unloaded": []})


@pytest.fixture
def server(peer: type[Peer]) -> Iterator[ServerState]:
    listener = ThreadingHTTPServer(("127.0.0.1", 0), peer)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state(f"http://127.0.0.1:{listener.server_address[1]}")
    listener.shutdown()
    thread.join()
    listener.server_close()


def state(url: str) -> ServerState:
    return ServerState(
        url=url,
        model="model",
        model_digest="b" * 64,
        pid=None,
        port=None,
        attached=True,
        max_loras=3,
        max_lora_rank=16,
        log=None,
        started_ns=1,
    )


def put_in_service(workspace: Workspace, policy: str, server: ServerState | None = None) -> None:
    promote(workspace, policy, reason="test", server=server)


def test_an_adapter_is_loaded_and_proved(
    workspace: Workspace, make_adapter: MakeAdapter, server: ServerState, peer: type[Peer]
) -> None:
    folder = make_adapter("worker@8")
    swap = swap_in(workspace, server, "worker@8")
    assert swap is not None
    assert peer.loaded == {"worker@8": str(folder)}
    assert swap.distance.adapter == 0.0 and swap.distance.base == 9.0
    assert swap.swap_ms > 0 and swap.probe_ms > 0


def test_one_that_is_loaded_already_is_only_probed(
    workspace: Workspace, make_adapter: MakeAdapter, server: ServerState
) -> None:
    make_adapter("worker@8")
    swap_in(workspace, server, "worker@8")
    again = swap_in(workspace, server, "worker@8")
    assert again is not None
    assert again.swap_ms == 0.0


def test_a_promotion_is_proved_and_then_written_down(
    workspace: Workspace, make_adapter: MakeAdapter, server: ServerState
) -> None:
    make_adapter("worker@8")
    promotion = promote(workspace, "worker@8", reason="better", server=server)
    assert promotion.swap is not None and promotion.swap.policy == "worker@8"
    assert promotion.entry.reason == "better" and promotion.entry.previous == "base"
    table = current_policies(workspace)
    assert table.agents == {"worker": "worker@8"}
    assert table.digests == {"worker@8": promotion.entry.digest}


def test_without_a_server_the_journal_alone_changes(workspace: Workspace, make_adapter: MakeAdapter) -> None:
    make_adapter("worker@8")
    assert promote(workspace, "worker@8", reason="test", server=None).swap is None
    assert Journal(workspace.journal).in_service("worker") == "worker@8"


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ({"shift": FLOOR + SHARE * 9 + 0.01}, "other weights answer to its name"),
        ({"shift": 100.0}, "from the base model"),
        ({"shift": float("nan")}, "failed its probe"),
        ({"answers_as": "base"}, "the server answered as 'base'"),
    ],
)
def test_a_failed_probe_leaves_the_incumbent_serving(
    workspace: Workspace,
    make_adapter: MakeAdapter,
    server: ServerState,
    peer: type[Peer],
    behaviour: dict[str, Any],
    words: str,
) -> None:
    make_adapter("worker@7")
    make_adapter("worker@8")
    put_in_service(workspace, "worker@7", server)
    for name, value in behaviour.items():
        setattr(peer, name, value)
    with pytest.raises(AdapterError, match=words):
        promote(workspace, "worker@8", reason="test", server=server)
    assert list(peer.loaded) == ["worker@7"]
    assert Journal(workspace.journal).in_service("worker") == "worker@7"


def test_a_damaged_folder_never_reaches_the_server(
    workspace: Workspace, make_adapter: MakeAdapter, server: ServerState, peer: type[Peer]
) -> None:
    (make_adapter("worker@8") / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(AdapterError, match="truncated"):
        promote(workspace, "worker@8", reason="test", server=server)
    assert peer.loaded == {}
    assert Journal(workspace.journal).entries() == []


@pytest.mark.parametrize(("shape", "words"), [({"base_digest": "c" * 64}, "base model"), ({"rank": 64}, "rank 64")])
def test_an_adapter_of_another_base_or_too_high_a_rank_is_refused(
    workspace: Workspace, make_adapter: MakeAdapter, server: ServerState, shape: dict[str, Any], words: str
) -> None:
    make_adapter("worker@8", **shape)
    with pytest.raises(AdapterError, match=words):
        swap_in(workspace, server, "worker@8")


def test_a_replaced_adapter_stays_until_its_room_is_needed(
    workspace: Workspace, make_adapter: MakeAdapter, server: ServerState, peer: type[Peer]
) -> None:
    for number in range(1, 6):
        make_adapter(f"worker@{number}")
        put_in_service(workspace, f"worker@{number}", server)
        assert list(peer.loaded) == [f"worker@{kept}" for kept in range(max(1, number - 2), number + 1)]
    assert peer.unloaded == ["worker@1", "worker@2"]


def test_a_load_beyond_max_loras_is_refused(
    workspace: Workspace, make_adapter: MakeAdapter, server: ServerState, peer: type[Peer]
) -> None:
    for policy in ("planner@1", "judge@1", "reader@1"):
        make_adapter(policy)
        put_in_service(workspace, policy, server)
    make_adapter("worker@1")
    with pytest.raises(AdapterError, match="room for 3 adapters and serves planner@1, judge@1, reader@1"):
        promote(workspace, "worker@1", reason="test", server=server)
    assert sorted(peer.loaded) == ["judge@1", "planner@1", "reader@1"]


def test_a_name_that_the_server_has_from_another_folder_is_refused(
    workspace: Workspace, make_adapter: MakeAdapter, server: ServerState, peer: type[Peer], tmp_path: Path
) -> None:
    make_adapter("worker@1")
    peer.loaded["worker@1"] = str(tmp_path / "elsewhere" / "worker@1")
    with pytest.raises(AdapterError, match="serves another worker@1"):
        swap_in(workspace, server, "worker@1")


def test_a_rollback_brings_the_replaced_adapter_back_and_then_the_base_model(
    workspace: Workspace, make_adapter: MakeAdapter, server: ServerState
) -> None:
    for number in (1, 2):
        make_adapter(f"worker@{number}")
        put_in_service(workspace, f"worker@{number}", server)
    back = rollback(workspace, "worker", reason="worse", server=server)
    assert back.entry.policy == "worker@1" and back.swap is not None and back.swap.swap_ms == 0.0
    base = rollback(workspace, "worker", reason="still worse", server=server)
    assert base.entry.policy == "base" and base.entry.digest is None and base.swap is None
    assert current_policies(workspace).agents == {"worker": "base"}
    with pytest.raises(AdapterError, match="nothing to roll back"):
        rollback(workspace, "worker", reason="again", server=server)


def test_a_rollback_to_an_adapter_that_fails_its_probe_changes_nothing(
    workspace: Workspace, make_adapter: MakeAdapter, server: ServerState, peer: type[Peer]
) -> None:
    for number in (1, 2):
        make_adapter(f"worker@{number}")
        put_in_service(workspace, f"worker@{number}", server)
    peer.shift = 1.0
    with pytest.raises(AdapterError, match="failed its probe"):
        rollback(workspace, "worker", reason="worse", server=server)
    assert Journal(workspace.journal).in_service("worker") == "worker@2"
    assert list(peer.loaded) == ["worker@2"]


def test_a_fresh_server_is_brought_in_line_with_the_journal(
    workspace: Workspace, make_adapter: MakeAdapter, server: ServerState, peer: type[Peer]
) -> None:
    for policy in ("worker@1", "worker@2", "planner@1"):
        make_adapter(policy)
        put_in_service(workspace, policy)
    assert [swap.policy for swap in sync(workspace, server)] == ["worker@2", "planner@1"]
    assert sorted(peer.loaded) == ["planner@1", "worker@2"]


def test_one_that_cannot_be_served_does_not_keep_the_others_out(
    workspace: Workspace, make_adapter: MakeAdapter, server: ServerState, peer: type[Peer]
) -> None:
    for policy in ("worker@1", "planner@1"):
        make_adapter(policy)
        put_in_service(workspace, policy)
    (workspace.adapters / "worker@1" / PROBE).unlink()
    with pytest.raises(AdapterError, match="worker@1 is in service but can't be served"):
        sync(workspace, server)
    assert list(peer.loaded) == ["planner@1"]


def test_two_swaps_at_once_in_one_workspace_are_one_too_many(
    workspace: Workspace, make_adapter: MakeAdapter, server: ServerState
) -> None:
    make_adapter("worker@1")
    with workspace.lock("swap"), pytest.raises(ConfigError, match="another process"):
        promote(workspace, "worker@1", reason="test", server=server)


def test_a_server_that_is_down_changes_nothing(workspace: Workspace, make_adapter: MakeAdapter) -> None:
    make_adapter("worker@1")
    with pytest.raises(ServerError, match="does not answer"):
        promote(workspace, "worker@1", reason="test", server=state("http://127.0.0.1:9"))
    assert Journal(workspace.journal).entries() == []


@pytest.mark.parametrize("nonsense", [b"<html>", b"[]", b'{"data": [{}]}'])
def test_a_server_that_answers_nonsense_is_named(server: ServerState, peer: type[Peer], nonsense: bytes) -> None:
    peer.nonsense = nonsense
    with AdapterServer(server.url) as live, pytest.raises(ServerError, match="answered nonsense"):
        live.served()


def test_a_server_that_chooses_another_token_than_the_one_allowed_is_not_believed(
    workspace: Workspace, make_adapter: MakeAdapter, server: ServerState, peer: type[Peer]
) -> None:
    make_adapter("worker@1")
    peer.strays = 1
    with pytest.raises(ServerError, match="other tokens than it was given"):
        swap_in(workspace, server, "worker@1")
    assert peer.loaded == {}


def test_a_refusal_carries_the_words_of_the_server(server: ServerState) -> None:
    with AdapterServer(server.url + "/v1") as live:
        with pytest.raises(AdapterError, match="404: no such adapter"):
            live.unload("worker@1")
        with pytest.raises(AdapterError, match="does not exist"):
            live.score("worker@1", (1, 2))
