"""Adapters in the live server: loaded under a new name, probed, promoted, rolled back. Nothing restarts."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, Field, ValidationError

from journeyman.agents.model import BASE
from journeyman.runtime.adapters.adapter import (
    Adapter,
    Probe,
    check_fits,
    find_adapter,
    load_adapter,
    read_probe,
    split_policy,
)
from journeyman.runtime.adapters.current import CurrentPolicies
from journeyman.runtime.adapters.journal import Entry, Journal
from journeyman.runtime.adapters.prompts import weights_of
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.serving.server import ServerState, why
from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces.base import Record
from journeyman.traces.errors import AdapterError, JourneymanError, ServerError

S = TypeVar("S", bound=BaseModel)

FLOOR, SHARE = 0.1, 0.1
"""Rounding that the same weights may show, in nats a token: FLOOR + SHARE times what the adapter changes of the base
model. SmolLM2-135M in bf16, a PEFT forward against vLLM: 0.02 on text that it sampled, 0.05 on text that it would not
write, up to a tenth of the change for strong adapters; other policies lie as far off as the change is large. An adapter
that changes less than the floor is told apart by the other question: which of the two is nearer?"""

POSITIONS = 12
"""Tokens of a probe that the server is asked for, evenly spread: each costs it one prompt, some 0.1 s on two cores."""


class Distance(Record):
    """How far the served logprobs lie from those of a PEFT forward: mean absolute differences, in nats a token."""

    adapter: float
    base: float


class Swap(Record):
    """An adapter brought into the server, and proved to be what answers under its name."""

    policy: str
    swap_ms: float
    """The load call; 0 where the server had it already."""
    probe_ms: float
    distance: Distance


class Promotion(Record):
    entry: Entry
    swap: Swap | None
    """None where no server runs, or the weights are the base model's."""


class AdapterServer:
    """A vLLM server's adapters, over HTTP. Raises `AdapterError`, or `ServerError` where it doesn't answer."""

    def __init__(self, url: str, *, timeout_s: float = 120.0) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._client = httpx.Client(base_url=self._url, timeout=timeout_s, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def served(self) -> dict[str, str]:
        """Names of the loaded adapters, each with the folder it was loaded from."""
        cards = self._ask(_Models, "GET", "/v1/models").data
        return {card.id: card.root or "" for card in cards if card.parent is not None}

    def load(self, policy: str, folder: Path) -> None:
        # Never load_inplace: every request would re-read the adapter, and old prefix-cache blocks would be served.
        self._send("POST", "/v1/load_lora_adapter", {"lora_name": policy, "lora_path": str(folder.resolve())})

    def unload(self, policy: str) -> None:
        self._send("POST", "/v1/unload_lora_adapter", {"lora_name": policy})

    def score(self, policy: str, token_ids: Sequence[int], at: Sequence[int] | None = None) -> list[float]:
        """Logprob of token i + 1 after tokens 0..i under the weights that answer to `policy`, for each i in `at` (all).

        One request a position, which allows that one token: vLLM reports logprobs from before it masks. Never by
        `prompt_logprobs`: in a batch of several requests that kills a CPU engine with LoRA on (vLLM 0.32).
        """
        places = range(len(token_ids) - 1) if at is None else at
        with ThreadPoolExecutor(max_workers=16) as pool:
            return list(pool.map(lambda i: self._score(policy, token_ids[: i + 1], token_ids[i + 1]), places))

    def _score(self, policy: str, before: Sequence[int], token: int) -> float:
        body = {
            "model": policy,
            "prompt": list(before),
            "allowed_token_ids": [token],
            "max_tokens": 1,
            "temperature": 0.0,
            "logprobs": 0,
            "return_token_ids": True,
        }
        reply = self._ask(_Completion, "POST", "/v1/completions", body)
        if reply.model != policy:
            raise AdapterError(f"asked for {policy}, the server answered as {reply.model!r}")
        choice = reply.choices[0]
        if choice.token_ids != [token]:
            raise ServerError(f"{self._url} scored other tokens than it was given: is it vLLM 0.32?")
        return choice.logprobs.token_logprobs[0]

    def probe(self, policy: str, probe: Probe) -> Distance:
        """How far what answers to `policy` lies from `probe`; raises `AdapterError` where it is not that adapter."""
        at = _spread(len(probe.adapter_logprobs), POSITIONS)
        served = self.score(policy, probe.token_ids, at)
        adapter, base = [probe.adapter_logprobs[i] for i in at], [probe.base_logprobs[i] for i in at]
        distance = Distance(adapter=_mean_difference(served, adapter), base=_mean_difference(served, base))
        allowed = FLOOR + SHARE * _mean_difference(adapter, base)
        if not distance.adapter < distance.base:
            raise AdapterError(
                f"{policy} failed its probe: what is served lies {distance.base:.3f} a token from the base model, "
                f"{distance.adapter:.3f} from the adapter"
            )
        if not distance.adapter <= allowed:
            raise AdapterError(
                f"{policy} failed its probe: what is served lies {distance.adapter:.3f} a token from the adapter, "
                f"more than {allowed:.3f}: other weights answer to its name"
            )
        return distance

    def _ask(self, shape: type[S], method: str, path: str, body: dict[str, Any] | None = None) -> S:
        try:
            return shape.model_validate_json(self._send(method, path, body).content)
        except ValidationError:
            raise ServerError(f"{self._url}{path} answered nonsense: is a vLLM server there?") from None

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            reply = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise ServerError(f"{self._url} does not answer: {why(error)}") from None
        if reply.is_success:
            return reply
        raise AdapterError(f"{self._url}{path} answered {reply.status_code}: {_complaint(reply)}")


def current_policies(workspace: Workspace) -> PolicyTable:
    """What is in service now. For one who asks often, a `CurrentPolicies` reads only what changed."""
    return CurrentPolicies(workspace)()


def swap_in(workspace: Workspace, server: ServerState, policy: str) -> Swap | None:
    """Brings an adapter into the server and proves it, whether in service or not yet.

    Of a prompt candidate it is the weights that are brought in; None where these are the base model's.

    Loads under a new name and proves with a probe; on any failure the adapter is unloaded and `AdapterError` raised,
    while everything else keeps serving. What a promotion replaces stays loaded until its room is needed, because runs
    in flight keep the policy they started with.
    """
    return _bring_in(workspace, server, load_adapter(find_adapter(workspace.adapters, policy)))


def load_in(workspace: Workspace, server: ServerState, policy: str) -> None:
    """Brings an adapter into the server without a proof, for rollouts beside it and for nothing else.

    One of a few steps can't be proved: it may lie as near to the base model as two forwards of the same weights do.
    """
    with AdapterServer(server.url) as live, workspace.lock("swap"):
        _load(live, workspace, server, load_adapter(find_adapter(workspace.adapters, policy)))


def take_out(workspace: Workspace, server: ServerState, policy: str) -> None:
    """Unloads an adapter that isn't to serve; weights that something in service has stay."""
    weights = weights_of(workspace.adapters, policy)
    if weights != BASE and weights not in {*_serving(workspace), *workspace.config.models}:
        with AdapterServer(server.url) as live:
            live.unload(weights)


def is_served(workspace: Workspace, server: ServerState, policy: str) -> bool:
    """Whether the server has the weights that answer for `policy`."""
    weights = weights_of(workspace.adapters, policy)
    if weights == BASE or weights in workspace.config.models:
        return True
    with AdapterServer(server.url) as live:
        return weights in live.served()


def _serving(workspace: Workspace) -> set[str]:
    """The policies whose weights answer for what is in service."""
    return {weights_of(workspace.adapters, policy) for policy in Journal(workspace.journal).active().values()}


def _bring_in(workspace: Workspace, server: ServerState, adapter: Adapter) -> Swap | None:
    if adapter.is_model:
        return _prove_model(workspace, adapter)
    check_fits(adapter, base_digest=server.model_digest, max_rank=server.max_lora_rank)
    if adapter.weights != adapter.policy:
        return None if adapter.weights == BASE else swap_in(workspace, server, adapter.weights)
    policy = adapter.policy
    if policy in workspace.config.models:
        raise AdapterError(
            f'{policy} is an adapter, and [models."{policy}"] gives its name to another server: choose another name '
            "there"
        )
    with AdapterServer(server.url) as live:
        swap_ms = _load(live, workspace, server, adapter)
        try:
            started = perf_counter()
            distance = live.probe(policy, read_probe(find_adapter(workspace.adapters, policy)))
        except BaseException as error:
            if swap_ms or isinstance(error, AdapterError):
                with suppress(JourneymanError):
                    live.unload(policy)
            raise
    return Swap(policy=policy, swap_ms=swap_ms, probe_ms=(perf_counter() - started) * 1e3, distance=distance)


def _load(live: AdapterServer, workspace: Workspace, server: ServerState, adapter: Adapter) -> float:
    """Milliseconds that the load call took, 0 where the server had the adapter already."""
    policy, folder, loaded = adapter.policy, find_adapter(workspace.adapters, adapter.policy), live.served()
    if policy not in loaded:
        _make_room(live, list(loaded), adapter, _serving(workspace), server.max_loras)
        try:
            return _milliseconds(lambda: live.load(policy, folder))
        except BaseException:
            with suppress(JourneymanError):
                live.unload(policy)
            raise
    if Path(loaded[policy]) != folder.resolve():
        raise AdapterError(
            f"the server serves another {policy}, from {loaded[policy]}: use one workspace for one server"
        )
    return 0.0


def _prove_model(workspace: Workspace, adapter: Adapter) -> Swap:
    """A model of its own answers elsewhere: nothing is loaded, but what answers there must be it."""
    policy = adapter.policy
    folder = find_adapter(workspace.adapters, policy)
    if (endpoint := workspace.config.models.get(policy)) is None:
        raise AdapterError(
            f"{policy} is a model of its own, which no LoRA server takes: start one with `journeyman server start "
            f'--model {folder}` in another workspace, and name it here as [models."{policy}"] in {PROJECT_FILE}'
        )
    started = perf_counter()
    try:
        with AdapterServer(endpoint.url) as live:
            distance = live.probe(endpoint.model, read_probe(folder))
    except ServerError as error:
        raise AdapterError(f'[models."{policy}"]: {error}') from None
    return Swap(policy=policy, swap_ms=0.0, probe_ms=(perf_counter() - started) * 1e3, distance=distance)


def promote(workspace: Workspace, policy: str, *, reason: str, server: ServerState | None) -> Promotion:
    """Puts an adapter in service: proved on the live server first, then committed by its journal entry.

    Where another process promotes for the same agent meanwhile, one of the two gets an `AdapterError`.
    """
    agent, _ = split_policy(policy)
    adapter = load_adapter(find_adapter(workspace.adapters, policy))
    journal = Journal(workspace.journal)
    with workspace.lock("swap"):
        journal.check(agent, "promote", policy)
        expected = journal.in_service(agent)
        swap = _bring_in(workspace, server, adapter) if server else None
        entry = journal.append(agent, "promote", policy, expected=expected, digest=adapter.digest, reason=reason)
    return Promotion(entry=entry, swap=swap)


def rollback(workspace: Workspace, agent: str, *, reason: str, server: ServerState | None) -> Promotion:
    """Puts the policy back in service that the present one replaced: proved where it is an adapter, then committed."""
    journal = Journal(workspace.journal)
    with workspace.lock("swap"):
        expected, policy = journal.in_service(agent), journal.replaced(agent)
        adapter = None if policy == BASE else load_adapter(find_adapter(workspace.adapters, policy))
        swap = _bring_in(workspace, server, adapter) if server and adapter else None
        digest = None if adapter is None else adapter.digest
        entry = journal.append(agent, "rollback", policy, expected=expected, digest=digest, reason=reason)
    return Promotion(entry=entry, swap=swap)


def sync(workspace: Workspace, server: ServerState) -> list[Swap]:
    """Brings a freshly started server in line with the journal: every adapter in service, loaded and proved.

    One that can't be served doesn't keep the others out; raises `AdapterError` for it at the end.
    """
    swaps, failures = [], []
    with workspace.lock("swap"):
        for policy in Journal(workspace.journal).active().values():
            try:
                if policy != BASE and (swap := swap_in(workspace, server, policy)) is not None:
                    swaps.append(swap)
            except AdapterError as error:
                failures.append(f"{policy} is in service but can't be served: {error}")
    if failures:
        raise AdapterError("; ".join(failures))
    return swaps


def _make_room(live: AdapterServer, loaded: list[str], adapter: Adapter, serving: set[str], max_loras: int) -> None:
    """Unloads as many of the agent's old adapters as the new one needs room for, the oldest first, and no more: runs in
    flight may still ask for them."""
    # The weights of a training's steps, as in lookup@3.7, are that training's to unload.
    old = [name for name in loaded if name.startswith(f"{adapter.agent}@") and name not in serving and "." not in name]
    surplus = len(loaded) + 1 - max_loras
    if surplus > len(old):
        raise AdapterError(
            f"the server has room for {max_loras} adapters and serves {', '.join(loaded)}: raise server.max_loras, "
            "because vLLM would drop the oldest without a word"
        )
    for name in sorted(old, key=lambda name: split_policy(name)[1])[: max(surplus, 0)]:
        live.unload(name)


def _milliseconds(work: Callable[[], None]) -> float:
    started = perf_counter()
    work()
    return (perf_counter() - started) * 1e3


def _spread(length: int, count: int) -> list[int]:
    """`count` indices, or all there are, evenly over `length`."""
    return list(range(length)) if length <= count else [index * length // count for index in range(count)]


def _mean_difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return sum(abs(one - other) for one, other in zip(ours, theirs, strict=True)) / len(theirs)


def _complaint(reply: httpx.Response) -> str:
    """The server's own words: OpenAI's error shape, or the start of whatever came."""
    try:
        return str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return reply.text[:200].strip() or reply.reason_phrase


class _Card(BaseModel):
    id: str
    root: str | None = None
    parent: str | None = None


class _Models(BaseModel):
    data: list[_Card]


class _Logprobs(BaseModel):
    token_logprobs: list[float] = Field(min_length=1)


class _Choice(BaseModel):
    token_ids: list[int]
    logprobs: _Logprobs


class _Completion(BaseModel):
    model: str
    choices: list[_Choice] = Field(min_length=1)
