"""The workspace's server: what is recorded, known again, attached and ended. Real processes and sockets, no vLLM."""

import http.server
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep, time_ns
from typing import Any

import pytest

from journeyman.runtime.config import ServerConfig
from journeyman.runtime.serving import server
from journeyman.runtime.serving.launch import environment, failure, stage
from journeyman.runtime.serving.process import Process, spawn
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError, ServerError

FAMILY = """
import signal, subprocess, sys, time
if "stubborn" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / ".journeyman").create()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that passes for a model until somebody reads it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").touch()
    (folder / "model.safetensors").touch()
    return folder


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Process]:
    """A process with a child, in a session of their own."""
    process = spawn([sys.executable, "-c", FAMILY], env=os.environ, log=tmp_path / "family.log")
    yield process
    process.end(patience_s=0)


class Answers(http.server.BaseHTTPRequestHandler):
    body: bytes = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[tuple[str, type[Answers]]]:
    """A server on a socket that answers every path with `body`, and its address."""

    class Site(Answers):
        pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{listener.server_port}", Site
        listener.shutdown()
        thread.join()


def served(*names: str) -> bytes:
    return json.dumps({"data": [{"id": name, "root": "some/model"} for name in names]}).encode()


def record(workspace: Workspace, **changes: Any) -> ServerState:
    values: dict[str, Any] = {
        "url": "http://127.0.0.1:9",
        "model": "some/model",
        "model_digest": None,
        "pid": None,
        "port": 9,
        "attached": False,
        "max_loras": 4,
        "max_lora_rank": 16,
        "log": None,
        "started_ns": time_ns(),
    }
    state = ServerState(**values | changes)
    workspace.server.write_text(state.model_dump_json())
    return state


def child_of(family: Process, tmp_path: Path) -> int:
    deadline = monotonic() + 10
    while not (text := (tmp_path / "family.log").read_text()).endswith("\n") and monotonic() < deadline:
        sleep(0.02)
    return int(text)


def exists(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_stop_ends_the_process_with_its_children(workspace: Workspace, family: Process, tmp_path: Path) -> None:
    child = child_of(family, tmp_path)
    record(workspace, pid=family.pid, birth=family.birth)
    assert server.stop(workspace) is not None
    assert not exists(family.pid) and not exists(child)
    assert server.status(workspace).condition == "none"
    assert server.stop(workspace) is None


def test_a_process_that_ignores_being_asked_is_killed(tmp_path: Path) -> None:
    process = spawn([sys.executable, "-c", FAMILY, "stubborn"], env=os.environ, log=tmp_path / "family.log")
    child = child_of(process, tmp_path)
    process.end(patience_s=0.3)
    assert not exists(process.pid) and not exists(child)


def test_children_of_a_server_that_was_killed_are_ended_too(
    workspace: Workspace, family: Process, tmp_path: Path
) -> None:
    child = child_of(family, tmp_path)
    record(workspace, pid=family.pid, birth=family.birth)
    os.kill(family.pid, 9)
    assert family.exit_code() == -9
    assert server.status(workspace).condition == "dead"
    assert exists(child)
    server.stop(workspace)
    assert not exists(child)


def test_stop_does_not_touch_a_stranger_with_the_same_pid(workspace: Workspace, family: Process) -> None:
    record(workspace, pid=family.pid, birth="another-boot/1")
    assert server.status(workspace).condition == "dead"
    server.stop(workspace)
    assert family.alive


def test_a_server_outlives_whoever_started_it_in_a_session_of_its_own(family: Process) -> None:
    assert os.getsid(family.pid) == family.pid != os.getsid(0)


def test_running_says_what_to_do_where_there_is_no_server(workspace: Workspace, family: Process) -> None:
    with pytest.raises(ServerError, match=r"no server is running in .*journeyman server start.*--attach URL"):
        server.running(workspace)
    record(workspace, pid=family.pid, birth=family.birth, ready=False)
    with pytest.raises(ServerError, match="still starting"):
        server.running(workspace)
    record(workspace, pid=family.pid, birth=family.birth)
    with pytest.raises(ServerError, match="does not answer"):
        server.running(workspace)
    record(workspace, pid=family.pid, birth="another-boot/1")
    with pytest.raises(ServerError, match="has died"):
        server.running(workspace)


def test_a_record_that_is_damaged_is_said_to_be(workspace: Workspace) -> None:
    workspace.server.write_text("{")
    with pytest.raises(ServerError, match="cannot be read"):
        server.status(workspace)


def test_attach_asks_what_is_served_and_stop_only_forgets(
    workspace: Workspace, site: tuple[str, type[Answers]]
) -> None:
    url, answers = site
    answers.body = served("base", "worker@1")
    state = server.attach(workspace, f"{url}/v1/")
    assert (state.url, state.model, state.attached, state.pid) == (url, "some/model", True, None)
    assert server.status(workspace).policies == ("base", "worker@1")
    assert server.running(workspace) == state
    server.stop(workspace)
    assert server.status(workspace).condition == "none"
    assert server.attach(workspace, url).url == url


@pytest.mark.parametrize(
    ("body", "complaint"),
    [(b"<html>", "nonsense"), (b'{"data": 1}', "nonsense"), (served("llama"), "serves llama, not 'base'")],
)
def test_attach_refuses_what_is_no_server_of_ours(
    workspace: Workspace, site: tuple[str, type[Answers]], body: bytes, complaint: str
) -> None:
    url, answers = site
    answers.body = body
    with pytest.raises(ServerError, match=complaint):
        server.attach(workspace, url)
    assert not workspace.server.exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "http://[", ""])
def test_attach_refuses_an_address_where_nothing_answers(workspace: Workspace, url: str) -> None:
    with pytest.raises(ServerError, match="does not answer"):
        server.attach(workspace, url)


def test_attach_leaves_a_server_of_its_own_alone(workspace: Workspace, family: Process) -> None:
    before = record(workspace, pid=family.pid, birth=family.birth)
    with pytest.raises(ConfigError, match="journeyman server stop"):
        server.attach(workspace, "http://127.0.0.1:9")
    assert server.status(workspace).server == before


def test_start_refuses_a_port_that_is_taken(workspace: Workspace, model: Path, site: tuple[str, type[Answers]]) -> None:
    port = int(site[0].rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"port {port} .* is taken"):
        server.start(workspace, ServerConfig(model=str(model), port=port))
    assert not workspace.server.exists()


@pytest.mark.parametrize("name", ["no-such-model", "no-such-org/no-such-model"])
def test_start_refuses_a_model_that_is_not_here(workspace: Workspace, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        server.start(workspace, ServerConfig(model=name))


def test_start_returns_a_server_that_has_the_model_and_refuses_another(
    workspace: Workspace, model: Path, family: Process, site: tuple[str, type[Answers]]
) -> None:
    url, answers = site
    answers.body = served("base")
    before = record(workspace, pid=family.pid, birth=family.birth, url=url, model=str(model))
    assert server.start(workspace, ServerConfig(model=str(model))) == before
    record(workspace, pid=family.pid, birth=family.birth, url=url, model="another/model")
    with pytest.raises(ConfigError, match="already runs"):
        server.start(workspace, ServerConfig(model=str(model)))
    assert family.alive


def test_start_waits_for_a_server_that_a_killed_command_left_loading(
    workspace: Workspace, model: Path, family: Process, site: tuple[str, type[Answers]], tmp_path: Path
) -> None:
    log = tmp_path / "family.log"
    record(workspace, pid=family.pid, birth=family.birth, url=site[0], model=str(model), ready=False, log=log)
    state = server.start(workspace, ServerConfig(model=str(model)))
    assert state.ready and state.pid == family.pid and state.model_digest is not None


def test_start_refuses_while_attached(workspace: Workspace, model: Path) -> None:
    record(workspace, attached=True)
    with pytest.raises(ConfigError, match="attached to"):
        server.start(workspace, ServerConfig(model=str(model)))


def test_two_starts_at_once_do_not_both_go_on(workspace: Workspace, model: Path) -> None:
    with workspace.lock("server"), pytest.raises(ConfigError, match="another process"):
        server.start(workspace, ServerConfig(model=str(model)))


def test_the_environment_opens_lora_loading_and_uses_every_core() -> None:
    inherited = {"VLLM_API_KEY": "secret", "LD_PRELOAD": "mine.so"}
    env = environment("vllm-cpu", ServerConfig(kv_cache_gb=1.5), inherited)
    assert env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "1.5"
    assert env["VLLM_CPU_OMP_THREADS_BIND"].count(",") == len(os.sched_getaffinity(0)) - 1
    assert env["LD_PRELOAD"].endswith("mine.so")
    assert "VLLM_API_KEY" not in env
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment("vllm", ServerConfig(), {})


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("OSError: [Errno 98] Address already in use", "port was taken"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "too little memory"),
        (
            "ValueError: Available memory on node 0 is less than requested memory for kv (500.0 GiB).",
            "too little memory",
        ),
        (
            "RuntimeError: Engine core initialization failed. Failed core proc(s): {'EngineCore': -9}",
            "too little memory",
        ),
        ("api_server.py: error: unrecognized arguments: --no-such-flag", "one of its arguments"),
        (
            "safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata",
            "weights are damaged",
        ),
        (
            "Value error, User-specified max_model_len (9) is greater than the derived max_model_len",
            "more than the model",
        ),
        ("Error parsing config for model: model type `mystery` is unknown", "cannot be read"),
        ("ZeroDivisionError: division by zero", "died while loading (exit code 1)"),
    ],
)
def test_a_failure_tells_its_cause_and_the_line_that_says_so(tmp_path: Path, line: str, cause: str) -> None:
    log = tmp_path / "server.log"
    log.write_text(f"(APIServer pid=1) INFO 11-22 06:18:37 [utils.py:1] Out of memory is not meant\n(W pid=2) {line}\n")
    told = failure(log, 1).splitlines()
    assert cause in told[0]
    assert told[1:] == [f"  {line}", f"  whole log: {log}"]


def test_a_server_that_was_killed_is_said_to_be(tmp_path: Path) -> None:
    assert "killed" in failure(tmp_path / "no.log", -9)


def test_the_stage_is_the_latest_that_the_log_tells(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    assert stage(log) == "importing vLLM"
    log.write_text("Initializing a V1 LLM engine with compilation_config\nStarting to load model x\n")
    assert stage(log) == "loading the weights"
