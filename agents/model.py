"""The `Model` protocol: anything that answers a chat request under a policy's name."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import Field

from journeyman.agents.plan import Assignment
from journeyman.traces.base import Record
from journeyman.traces.messages import Message, ToolCall, Usage

BASE = "base"
"""The policy that is the base model itself, without an adapter."""


ToolChoice = Literal["auto", "required", "none"]
"""`required`: the reply must call a tool. `none`: it must not, though the prompt still shows them, byte for byte."""


class ModelRequest(Record):
    """A chat request to the model that answers for `policy`."""

    policy: str
    messages: tuple[Message, ...]
    json_schema: dict[str, Any] | None = None
    """The reply is decoded under this schema, where the server can."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Functions for a model that has a tool-call template of its own: name, description, parameters (JSON schema)."""
    tool_choice: ToolChoice = "auto"
    parallel_calls: bool = True
    """Whether the reply may call several tools; a small model that may often goes on calling to the end."""
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int | None = None
    timeout_s: float = 120.0
    traceparent: str | None = None
    """W3C trace context of the span that this call belongs to."""
    task_id: str | None = None
    """The run's task. Like the next two it is for a model that plays agents itself, as a teacher may: no server is
    sent them."""
    agent: str | None = None
    """Who asks."""
    assignment: Assignment | None = None
    """What a worker is at; None for who plans or judges."""


class ModelReply(Record):
    """What a model answered, with the token ids and logprobs that its server sampled."""

    id: str
    model: str
    """The policy that answered, in the server's words."""
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    """Calls in the model's own template, read by the server."""
    unreadable: str | None = None
    """Why calls that it asked for could not be read; `tool_calls` is empty then: no part of them may be used."""
    finish_reason: str
    """`stop`, `tool_calls`, or `length` where `max_tokens` cut the reply short."""
    usage: Usage
    prompt_token_ids: tuple[int, ...] | None = None
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    """Natural-log probability of each of `token_ids`."""
    unsent: Mapping[str, str] = Field(default_factory=dict)
    """What of the request the server was not sent, `seed` or `temperature`, and why."""


class Model(Protocol):
    """A model, or a server of many. `complete` raises `ModelError` and nothing else."""

    @property
    def provider(self) -> str:
        """`gen_ai.provider.name` in the record, e.g. `vllm`."""
        ...

    @property
    def demonstrates(self) -> bool:
        """True where a person or a script wrote the replies, so that they carry no token ids."""
        ...

    async def complete(self, request: ModelRequest) -> ModelReply: ...

    async def aclose(self) -> None:
        """Closes the connections of the running event loop; the next call opens new ones."""
        ...


@runtime_checkable
class StreamingModel(Protocol):
    """A model that can also show a reply while it is written."""

    async def stream_reply(
        self, request: ModelRequest, on_text: Callable[[str], None], on_restart: Callable[[], None]
    ) -> ModelReply:
        """Like `complete`; `on_text` is given the text piece by piece.

        `on_restart` is called where the reply broke off and is asked for again: the pieces so far count no longer.
        """
        ...


class ModelTable:
    """Which model answers for which policy; policies without a row of their own go to `default`.

    A row is another model than the one that adapters are trained on, so its token ids are of no use here.
    """

    def __init__(
        self, default: Model, others: Mapping[str, Model] | None = None, terms: Mapping[str, str] | None = None
    ) -> None:
        self._default = default
        self._others = dict(others or {})
        self.terms: Mapping[str, str] = terms or {}
        """By policy, what its provider's terms say of learning from its replies, for the record."""

    def __getitem__(self, policy: str) -> Model:
        return self._others.get(policy, self._default)

    def __contains__(self, policy: object) -> bool:
        """True for a policy with a row of its own."""
        return policy in self._others

    def with_others(self, others: Mapping[str, Model]) -> "ModelTable":
        """The same with more rows, which count before those of the same policy."""
        return ModelTable(self._default, {**self._others, **others}, self.terms)

    async def aclose(self) -> None:
        for model in (self._default, *self._others.values()):
            await model.aclose()
