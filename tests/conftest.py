"""What every folder's tests may use: adapters of a few weights, the prepared model, and one real vLLM server."""

import json
import os
import socket
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import Any

import httpx
import pytest

from journeyman.agents.agent import Crew, Example
from journeyman.agents.prompt import Prompt, prompt_form
from journeyman.runtime.adapters.adapter import (
    CONFIG,
    WEIGHTS,
    Adapter,
    Probe,
    adapter_digests,
    digest_files,
    split_policy,
    write_adapter,
    write_prompt,
)
from journeyman.runtime.config import ServerConfig
from journeyman.runtime.serving import server
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.serving.process import Process, spawn
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import Workspace

MakeAdapter = Callable[..., Path]
MakePrompt = Callable[..., Path]


@pytest.fixture(scope="session")
def embedded_model() -> Path:
    """The folder of the embedded model, prepared on the first use on this machine.

    By a process of its own: a server that begins where torch was used finds its threads bound to no core.
    """
    subprocess.run([sys.executable, "-c", f"from {pull_model.__module__} import pull_model; pull_model()"], check=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # What torch and transformers deprecate is not ours to fail on.
        return pull_model()


@pytest.fixture(scope="session")
def vllm_server(embedded_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerState]:
    """A real vLLM with LoRA on, in a workspace of its own, on a free port; `.url` is where it answers."""
    workspace = Workspace(tmp_path_factory.mktemp("served") / ".journeyman")
    # The model's own template with a part for tools and calls, which it lacks.
    template = Path(__file__).parent / "data" / "tools.jinja"
    config = ServerConfig(
        model=str(embedded_model),
        port=_free_port(),
        kv_cache_gb=1.0,
        tool_call_parser="hermes",
        extra_args=("--chat-template", str(template), "--enable-scale-out"),
    )
    try:
        yield server.start(workspace, config)
    finally:
        server.stop(workspace)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real `mlflow server` on SQLite; it takes half a minute to start."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    port = _free_port()
    command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "art")]
    process = spawn([sys.executable, "-m", *command, *store], env=dict(os.environ), log=folder / "log")
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(f"{url}/health", process, folder / "log")
        yield url
    finally:
        process.end()


def _wait_for(url: str, process: Process, log: Path) -> None:
    for _ in range(240):
        with suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5.0, trust_env=False).is_success:
                return
        assert process.alive, log.read_text()
        sleep(0.5)
    raise AssertionError(f"{url} did not answer within two minutes: {log.read_text()}")


@pytest.fixture
def free_port() -> int:
    return _free_port()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / ".journeyman").create()


@pytest.fixture
def make_adapter(workspace: Workspace) -> MakeAdapter:
    """Makes the folder of an adapter: `config` goes into PEFT's file, `tensors` names the weights."""

    def make(
        policy: str,
        *,
        rank: int = 2,
        config: dict[str, Any] | None = None,
        tensors: tuple[str, ...] = ("base_model.model.q_proj.lora_A.weight", "base_model.model.q_proj.lora_B.weight"),
        base_digest: str = "b" * 64,
        prompt_form: str | None = None,
    ) -> Path:
        agent, number = split_policy(policy)
        folder = workspace.adapters / policy
        folder.mkdir(parents=True)
        peft = {"peft_type": "LORA", "r": rank, "bias": "none", "target_modules": ["q_proj"], **(config or {})}
        (folder / CONFIG).write_text(json.dumps(peft))
        (folder / WEIGHTS).write_bytes(safetensors(tensors, fill=number))
        adapter = Adapter(
            agent=agent,
            number=number,
            base_digest=base_digest,
            digest=digest_files(folder),
            method="sft",
            dataset_digest="d" * 64,
            rows=8,
            prompt_form=prompt_form,
            recipe_digest="e" * 64,
            rank=rank,
            train_seconds=1.0,
            created_ns=1,
        )
        logprobs = tuple(-float(number) - position for position in range(3))
        write_adapter(
            folder, adapter, Probe(token_ids=(5, 6, 7, 8), adapter_logprobs=logprobs, base_logprobs=(0.0, 0.0, 0.0))
        )
        return folder

    return make


@pytest.fixture
def make_prompt(workspace: Workspace) -> MakePrompt:
    """Makes the folder of a prompt candidate on the weights of a policy that is there."""

    def make(
        policy: str,
        instructions: str,
        *,
        examples: tuple[Example, ...] = (),
        weights: str = "base",
        in_crew: Crew | None = None,
    ) -> Path:
        agent, number = split_policy(policy)
        folder = workspace.adapters / policy
        folder.mkdir(parents=True)
        digest = adapter_digests(workspace.adapters, [weights]).get(weights)
        prompt = Prompt(instructions=instructions, examples=examples, weights=weights, weights_digest=digest)
        write_prompt(folder, prompt)
        form = None if in_crew is None else prompt_form(in_crew.worker(agent), in_crew, prompt).digest
        adapter = Adapter(
            agent=agent,
            number=number,
            base_digest="b" * 64,
            digest=digest_files(folder),
            start=weights,
            start_digest=digest,
            method="prompt",
            dataset_digest="d" * 64,
            rows=8,
            prompt_form=form,
            recipe_digest="e" * 64,
            rank=0,
            train_seconds=1.0,
            created_ns=1,
        )
        write_adapter(folder, adapter, None)
        return folder

    return make


def safetensors(names: tuple[str, ...], fill: int) -> bytes:
    """A safetensors file of one 2 by 2 F32 tensor for each name."""
    header = {
        name: {"dtype": "F32", "shape": [2, 2], "data_offsets": [16 * place, 16 * place + 16]}
        for place, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + struct.pack("<4f", *[float(fill)] * 4) * len(names)
