"""The settings of a project: what its `journeyman.toml` may say."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Self, get_args

from pydantic import Field, model_validator

from journeyman.agents.agent import Crew
from journeyman.agents.model import BASE
from journeyman.runtime.models.endpoints import AgentConfig, ModelConfig
from journeyman.runtime.models.routing import RoutingConfig
from journeyman.runtime.store.memory import MemoryLimits
from journeyman.traces.base import Config
from journeyman.traces.errors import ConfigError
from journeyman.traces.prices import Price

if TYPE_CHECKING:
    pass

TaskSet = Literal["train", "gate", "test", "vault"]
"""The sets that one file of tasks is split into."""
TASK_SETS: tuple[TaskSet, ...] = get_args(TaskSet)


class ServerConfig(Config):
    """Table `[server]`: how `journeyman server start` starts vLLM."""

    model: str = "smollm2-135m-instruct"
    """`smollm2-135m-instruct` (embedded), a local folder, or a hub id."""
    host: str = "127.0.0.1"
    """Address to listen on. There is no login, so keep it on this machine or behind a proxy that has one."""
    port: int = Field(default=8731, ge=1, le=65535)
    """Port to listen on."""
    max_model_len: int = 2048
    """Longest prompt and reply together, in tokens."""
    max_loras: int = Field(default=4, ge=1)
    """Adapters served side by side; past it vLLM would evict the oldest silently, so a load beyond it is refused."""
    max_lora_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = 8
    """Highest rank of an adapter; vLLM knows these values only. On a CPU every token pays for it, also where
    adapters have a lower rank: vLLM copies that many rows of each layer's adapter for each token, read or generated."""
    max_num_seqs: int = 32
    """Requests decoded together."""
    kv_cache_gb: float = 2.0
    """CPU build only: memory for the KV cache, in GiB."""
    tool_call_parser: str | None = None
    """How vLLM reads the tool calls of this model's own template, e.g. `hermes`; agents with `tool_calls = "native"`
    need it. None where the model has no such template."""
    start_timeout_s: float = 600.0
    """Seconds that vLLM may take until it answers; then it is stopped."""
    traces: bool = True
    """The server's own span of each request is recorded: its time in the queue, in prefill and in decode."""
    extra_args: tuple[str, ...] = ()
    """Passed to vLLM as they are."""


class ViewConfig(Config):
    """Table `[[traces.views]]`: a copy of the record for an OTLP endpoint; it may lose, the record does not."""

    url: str
    """E.g. `http://127.0.0.1:4318` (OTLP over HTTP), `http://127.0.0.1:4317` (gRPC), or an MLflow server's address."""
    kind: Literal["otlp-http", "otlp-grpc", "mlflow"] = "otlp-http"
    """What the endpoint speaks."""
    headers_env: str | None = None
    """Name of an environment variable with `name=value,name=value` headers: secrets stay out of this file."""
    queue: int = Field(default=4096, ge=1)
    """Spans that wait at most; what comes beyond them is dropped and counted."""
    older_metrics: bool = False
    """Metrics also under the two names that dashboards made for the GenAI conventions up to 1.41 read."""


class TracesConfig(Config):
    """Table `[traces]`: what is recorded, where, and for how long."""

    content: Literal["full", "digest", "off"] = "full"
    """Texts of prompts, replies, tools and answers: whole, as a digest, or not at all. Training needs `full`."""
    redact: tuple[str, ...] = ("keys",)
    """What is blacked out before anything is written: `keys`, `email`, `phone`, `card`, or `module:function`."""
    on_full: Literal["stop", "continue"] = "stop"
    """When the disk refuses a span: end the run, or go on and count the loss."""
    memory_mb: float | None = Field(default=None, ge=64)
    """What questions to the record may take, e.g. of reports and mining; None for a quarter of the machine's memory.
    Beyond it, sorts and joins go to temporary files."""
    rotate_mb: float = Field(default=16.0, gt=0)
    """Size at which a process starts a new log file, so that the old one can become a segment."""
    segments: str | None = None
    """Where segments go: a folder or an fsspec URL such as `s3://bucket/prefix`; None for the workspace."""
    views: tuple[ViewConfig, ...] = ()
    keep_days: float | None = Field(default=None, gt=0)
    """`journeyman traces compact` deletes runs that ended longer ago; None keeps all."""
    keep_gb: float | None = Field(default=None, gt=0)
    """`journeyman traces compact` deletes the oldest runs beyond this size; None keeps all."""
    prices: dict[str, Price] = Field(default_factory=dict)
    """By policy; `default` is for the others."""
    currency: str = "USD"
    """What prices and costs are told in; nothing is converted."""
    watts: float | None = Field(default=None, gt=0)
    """Power that energy is estimated with where the machine has no counter; None gives no estimate."""


class RunsConfig(Config):
    """Table `[runs]`: where runs are kept so that they can be taken up again, and for how long.

    What is kept there holds prompts and replies whole, because a run goes on from them. `[traces] content` doesn't
    change that.
    """

    store: str | None = None
    """A path of an SQLite file, or a `postgresql://` URL without a password (libpq reads `PGPASSWORD`); None for
    `runs.db` in the workspace."""
    durability: Literal["async", "sync"] = "async"
    """`sync` waits for the disk at each write, so that power loss takes nothing; kill -9 takes nothing with either."""
    keep_days: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """Runs that ended longer ago are deleted when the store is opened; their traces stay."""


class TasksConfig(Config):
    """Table `[tasks]`: the workspace's task sets, which commands then take by name, as in `--tasks gate`.

    Paths count from the folder of `journeyman.toml`. Nothing is mined from tasks of `gate`, `test` and `vault`.
    """

    train: str | None = None
    """Tasks to learn from."""
    gate: str | None = None
    """Tasks on which a candidate meets the policy in service."""
    test: str | None = None
    """Tasks that a report is made on; no decision is."""
    vault: str | None = None
    """Tasks for the very end: nobody looks at them before."""
    near: float = Field(default=0.7, gt=0, le=1)
    """Prompts are near-equal whose letter trigrams are so much the same (Jaccard, 0..1)."""


class TrainingConfig(Config):
    """Table `[training]`: what a training may take of this machine, and what that costs."""

    nice: int | None = Field(default=None, ge=0, le=19)
    """Niceness of `journeyman train`: the higher, the more it leaves to others. None: 10 while the workspace's own
    server runs on this machine, else 0."""
    threads: int | None = Field(default=None, ge=1)
    """Threads that it computes on; None leaves that to torch, which takes a thread for each core."""
    cost_per_hour: float | None = Field(default=None, ge=0)
    """What an hour of this machine costs, in `[traces] currency`; None leaves the cost of a training open."""


class ProjectConfig(Config):
    """`journeyman.toml`, which lies beside the workspace and is optional."""

    server: ServerConfig = ServerConfig()
    traces: TracesConfig = TracesConfig()
    runs: RunsConfig = RunsConfig()
    tasks: TasksConfig = TasksConfig()
    memory: MemoryLimits = MemoryLimits()
    training: TrainingConfig = TrainingConfig()
    models: dict[str, ModelConfig] = Field(default_factory=dict)
    """Policies that other servers answer for, by name; `"clerk@3"` where that is a model of its own."""
    agents: dict[str, AgentConfig] = Field(default_factory=dict)
    """Which policies answer whom; an agent without a row has what was promoted, else the base model."""
    routing: RoutingConfig | None = None
    mlflow: str | None = None
    """MLflow tracking URI; None for a SQLite store in the workspace."""

    @model_validator(mode="after")
    def _check_policies(self) -> Self:
        for name in self.models:
            if name == BASE:
                raise ValueError(f"models.{name}: the workspace's server answers for that; choose another name")
        for policy in self._named_policies():
            if (problem := self._problem_with(policy)) is not None:
                raise ValueError(problem)
        return self

    def check_crew(self, crew: Crew) -> None:
        """Raises `ConfigError` where an agent of `crew` names a policy that nobody answers for."""
        for agent in crew.agents:
            for policy in agent.fallback if agent.model is None else (agent.model, *agent.fallback):
                if (problem := self._problem_with(policy)) is not None:
                    raise ConfigError(f"crew {crew.name!r}, agent {agent.name!r}: {problem}")

    def check_policy(self, policy: str) -> None:
        """Raises `ConfigError` for a policy that nobody answers for."""
        if (problem := self._problem_with(policy)) is not None:
            raise ConfigError(problem)

    def _problem_with(self, policy: str) -> str | None:
        if policy == BASE or "@" in policy or policy in self.models:
            return None
        return f"unknown policy {policy!r}; have {', '.join((BASE, *self.models))}, and adapters such as worker@8"

    def _named_policies(self) -> Iterator[str]:
        for agent in self.agents.values():
            yield from agent.fallback if agent.policy is None else (agent.policy, *agent.fallback)
        if self.routing is not None:
            yield from (policy for policy in (self.routing.small, self.routing.large) if policy is not None)


def read_headers(variable: str | None) -> dict[str, str]:
    """The `name=value,name=value` of that variable, none for None; raises `ConfigError` that quotes no value."""
    if variable is None:
        return {}
    text = os.environ.get(variable)
    if text is None:
        raise ConfigError(f"the environment variable {variable} is not set: write the headers there as name=value")
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise ConfigError(f"{variable} holds no headers: write them as name=value,name=value")
    return {name.strip(): value.strip() for name, _, value in pairs}
