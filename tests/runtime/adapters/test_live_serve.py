"""The live swap on a real vLLM: the probe knows adapters apart, and work goes on while one replaces another."""

import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from journeyman.runtime.adapters.adapter import Adapter, Probe, digest_files, read_probe, split_policy, write_adapter
from journeyman.runtime.adapters.live import AdapterServer, current_policies, promote, rollback, swap_in
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError

pytestmark = [pytest.mark.serve, pytest.mark.timeout(600)]

TEXT = "Who wrote The Old Man and the Sea? Ernest Hemingway wrote it in 1951, in Cuba, and it came out a year later."

MakeServable = Callable[..., Path]


@pytest.fixture(scope="module")
def peft_model(embedded_model: Path) -> Any:
    """The embedded model in bf16, under LoRA layers whose weights `make_servable` sets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(embedded_model, dtype=torch.bfloat16)
        config = LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
        return get_peft_model(base, config).eval()


@pytest.fixture(scope="module")
def token_ids(embedded_model: Path) -> tuple[int, ...]:
    from transformers import AutoTokenizer

    return tuple(AutoTokenizer.from_pretrained(embedded_model)(TEXT)["input_ids"])


@pytest.fixture
def make_servable(
    workspace: Workspace, peft_model: Any, token_ids: tuple[int, ...], vllm_server: ServerState
) -> Iterator[MakeServable]:
    """Makes an adapter of random weights that the server can serve; what of it is still loaded goes after the test."""

    def make(policy: str, *, seed: int, scale: float, probe: Probe | None = None) -> Path:
        folder = workspace.adapters / policy
        _randomise(peft_model, seed, scale)
        peft_model.save_pretrained(folder)
        agent, number = split_policy(policy)
        adapter = Adapter(
            agent=agent,
            number=number,
            base_digest=vllm_server.model_digest or "",
            digest=digest_files(folder),
            method="random",
            dataset_digest="",
            rows=0,
            recipe_digest="",
            rank=8,
            train_seconds=0.0,
            created_ns=1,
        )
        write_adapter(folder, adapter, probe or _probe(peft_model, token_ids))
        return folder

    yield make
    with AdapterServer(vllm_server.url) as live:
        for policy, folder in live.served().items():
            if Path(folder).is_relative_to(workspace.root.resolve()):
                live.unload(policy)


def _randomise(model: Any, seed: int, scale: float) -> None:
    import torch

    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_" in name:
                weights.copy_(scale * torch.randn(weights.shape, generator=draw))


def _probe(model: Any, token_ids: tuple[int, ...]) -> Probe:
    with_adapter = _logprobs(model, token_ids)
    with model.disable_adapter():
        without = _logprobs(model, token_ids)
    return Probe(token_ids=token_ids, adapter_logprobs=with_adapter, base_logprobs=without)


def _logprobs(model: Any, token_ids: tuple[int, ...]) -> tuple[float, ...]:
    import torch

    tokens = torch.tensor([token_ids])
    with torch.no_grad():
        logprobs = model(tokens).logits[0, :-1].float().log_softmax(-1)
    return tuple(logprobs.gather(1, tokens[0, 1:, None])[:, 0].tolist())


def in_service(workspace: Workspace) -> str | None:
    return current_policies(workspace).agents.get("worker")


@pytest.mark.parametrize("scale", [0.1, 0.05])
def test_the_right_adapter_passes_its_probe(
    workspace: Workspace, make_servable: MakeServable, vllm_server: ServerState, scale: float
) -> None:
    make_servable("worker@1", seed=1, scale=scale)
    swap = swap_in(workspace, vllm_server, "worker@1")
    assert swap is not None
    assert swap.distance.adapter < swap.distance.base / 3
    with AdapterServer(vllm_server.url) as live:
        assert "worker@1" in live.served()


def test_another_adapters_weights_fail_the_probe_and_the_incumbent_stays(
    workspace: Workspace, make_servable: MakeServable, vllm_server: ServerState
) -> None:
    right = read_probe(make_servable("worker@1", seed=1, scale=0.1))
    promote(workspace, "worker@1", reason="test", server=vllm_server)
    other = read_probe(make_servable("worker@2", seed=2, scale=0.1))
    assert other.adapter_logprobs != right.adapter_logprobs
    make_servable("worker@3", seed=2, scale=0.1, probe=right)
    with pytest.raises(AdapterError, match="worker@3 failed its probe"):
        promote(workspace, "worker@3", reason="test", server=vllm_server)
    assert in_service(workspace) == "worker@1"
    with AdapterServer(vllm_server.url) as live:
        assert "worker@3" not in live.served()
        live.probe("worker@1", right)


def test_the_base_models_answers_fail_the_probe(
    workspace: Workspace, make_servable: MakeServable, vllm_server: ServerState
) -> None:
    """Weights of zero are the base model under an adapter's name."""
    learned = read_probe(make_servable("worker@1", seed=1, scale=0.05))
    make_servable("worker@2", seed=1, scale=0.0, probe=learned)
    with pytest.raises(AdapterError, match="from the base model"):
        swap_in(workspace, vllm_server, "worker@2")


def test_a_swap_and_a_rollback_under_load_fail_no_request(
    workspace: Workspace, make_servable: MakeServable, vllm_server: ServerState
) -> None:
    for number in (1, 2):
        make_servable(f"worker@{number}", seed=number, scale=0.05)
    promote(workspace, "worker@1", reason="test", server=vllm_server)
    with Load(vllm_server.url, lambda: in_service(workspace) or "base") as load:
        load.wait_for("worker@1")
        swap = promote(workspace, "worker@2", reason="test", server=vllm_server).swap
        load.wait_for("worker@2")
        rollback(workspace, "worker", reason="test", server=vllm_server)
        load.wait_for("worker@1")
    assert swap is not None and swap.swap_ms > 0
    assert load.failures == []


def test_many_probes_at_once_leave_the_server_alive(
    workspace: Workspace, make_servable: MakeServable, vllm_server: ServerState
) -> None:
    probe = read_probe(make_servable("worker@1", seed=1, scale=0.1))
    swap_in(workspace, vllm_server, "worker@1")
    with AdapterServer(vllm_server.url) as live, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: live.probe("worker@1", probe), range(4)))
    assert all(distance.adapter < distance.base / 3 for distance in found)


class Load:
    """Two clients that ask the policy in service again and again."""

    def __init__(self, url: str, policy: Callable[[], str]) -> None:
        self._url = url
        self._policy = policy
        self._stopped = threading.Event()
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._work) for _ in range(2)]
        self.answered: list[str] = []
        self.failures: list[str] = []

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, policy: str) -> None:
        """Until a request that starts from now on was answered by that policy."""
        with self._changed:
            seen = len(self.answered)
            assert self._changed.wait_for(lambda: policy in self.answered[seen:] or self.failures, timeout=120)

    def _work(self) -> None:
        with httpx.Client(timeout=120, trust_env=False) as client:
            while not self._stopped.is_set():
                body = {"model": self._policy(), "prompt": TEXT, "max_tokens": 16}
                reply = client.post(f"{self._url}/v1/completions", json=body)
                with self._changed:
                    if reply.is_success and reply.json()["model"] == body["model"]:
                        self.answered.append(str(body["model"]))
                    else:
                        self.failures.append(reply.text)
                    self._changed.notify_all()
