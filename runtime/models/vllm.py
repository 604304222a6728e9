"""`ChatVLLM`: a vLLM server as a langchain chat model and as our own `Model`, token ids and logprobs kept."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, get_args

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages import ChatMessage as RoleMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field, PrivateAttr, SecretStr

from journeyman.agents.model import BASE, ModelReply, ModelRequest
from journeyman.runtime.models.chat_api import ChatAPI
from journeyman.runtime.models.chat_wire import Piece
from journeyman.traces.errors import ConfigError, ModelError
from journeyman.traces.messages import Message, Role, ToolCall, Usage

ROLES: dict[str, Role] = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}
"""langchain's message types in the API's words."""

REQUEST_KEYS = {"json_schema", "max_tokens", "temperature", "seed", "timeout_s", "traceparent"}


class ChatVLLM(BaseChatModel):
    """Replies of a vLLM server. Each field but the address is a default that a single call may override by keyword."""

    base_url: str
    """E.g. `http://127.0.0.1:8731`."""
    model: str = BASE
    """The policy: `base`, or an adapter such as `worker@8`."""
    max_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    seed: int | None = None
    json_schema: dict[str, Any] | None = None
    """The reply is decoded under this schema."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Seconds for one attempt."""
    retries: int = Field(default=3, ge=0)
    """Attempts after the first, for a server that is unreachable, slow, busy (429) or broken (5xx)."""
    retry_wait_s: float = Field(default=0.5, ge=0)
    """Mean wait before the first retry; it doubles, with jitter, up to 8 s."""
    api_key: SecretStr | None = None
    extensions: bool = True
    """Whether it is asked for what only vLLM has: token ids, logprobs, and tool calls that obey any schema."""

    _api: ChatAPI = PrivateAttr()

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        key = None if self.api_key is None else self.api_key.get_secret_value()
        self._api = ChatAPI(
            self.base_url, api_key=key, retries=self.retries, wait_s=self.retry_wait_s, extensions=self.extensions
        )

    @property
    def provider(self) -> str:
        return "vllm"

    @property
    def demonstrates(self) -> bool:
        return False

    async def complete(self, request: ModelRequest) -> ModelReply:
        return await self._api.complete(request)

    async def stream_reply(
        self, request: ModelRequest, on_text: Callable[[str], None], on_restart: Callable[[], None]
    ) -> ModelReply:
        return await self._api.stream_reply(request, on_text, on_restart)

    async def aclose(self) -> None:
        """Closes the connections of the running event loop."""
        await self._api.aclose()

    @property
    def _llm_type(self) -> str:
        return "vllm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"base_url": self.base_url, "model": self.model, "temperature": self.temperature, "seed": self.seed}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(self._api.complete_sync(*self._asked(messages, stop, kwargs)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(await self._api.complete(*self._asked(messages, stop, kwargs)))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for piece in self._api.stream(*self._asked(messages, stop, kwargs)):
            chunk = ChatGenerationChunk(message=_chunk(piece))
            if run_manager is not None:
                await run_manager.on_llm_new_token(piece.content, chunk=chunk)
            yield chunk

    def _asked(
        self, messages: Sequence[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[ModelRequest, dict[str, Any]]:
        """A request, and the further keys of the body that a request has no field for."""
        own = {
            "json_schema": self.json_schema,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "timeout_s": self.timeout_s,
        }
        own |= {key: kwargs[key] for key in REQUEST_KEYS & kwargs.keys()}
        policy = kwargs.get("model", self.model)
        request = ModelRequest(policy=policy, messages=tuple(_message(message) for message in messages), **own)
        extra = {key: value for key, value in kwargs.items() if key not in REQUEST_KEYS | {"model"}}
        return request, extra if stop is None else {**extra, "stop": stop}


def _message(message: BaseMessage) -> Message:
    role = message.role if isinstance(message, RoleMessage) else ROLES.get(message.type.removesuffix("MessageChunk"))
    if role not in get_args(Role):
        raise ConfigError(f"ChatVLLM takes system, user, assistant and tool messages, not {message.type!r}")
    if not isinstance(message.content, str) and any(
        not isinstance(block, str) and block.get("type") != "text" for block in message.content
    ):
        raise ConfigError("ChatVLLM takes text only: a message holds another kind of content")
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    return Message(
        role=role,
        content=str(message.text),
        tool_calls=tuple(ToolCall(id=call["id"] or "", name=call["name"], arguments=call["args"]) for call in calls),
        tool_call_id=message.tool_call_id if isinstance(message, ToolMessage) else None,
    )


def _result(reply: ModelReply) -> ChatResult:
    if reply.unreadable is not None:
        raise ModelError(f"a reply of {reply.model} is unusable: {reply.unreadable}", kind="unusable")
    message = AIMessage(
        content=reply.content,
        tool_calls=[tool_call(name=call.name, args=dict(call.arguments), id=call.id) for call in reply.tool_calls],
        id=reply.id,
        usage_metadata=_usage(reply.usage),
        response_metadata=_metadata(reply.id, reply.model, reply.finish_reason),
        additional_kwargs={
            "prompt_token_ids": list(reply.prompt_token_ids or ()),
            "token_ids": list(reply.token_ids or ()),
            "logprobs": list(reply.logprobs or ()),
        },
    )
    generation = ChatGeneration(message=message, generation_info={"finish_reason": reply.finish_reason})
    return ChatResult(generations=[generation], llm_output={"model_name": reply.model})


def _chunk(piece: Piece) -> AIMessageChunk:
    kept = {
        "prompt_token_ids": list(piece.prompt_token_ids or ()),
        "token_ids": list(piece.token_ids),
        "logprobs": list(piece.logprobs),
    }
    return AIMessageChunk(
        content=piece.content,
        tool_call_chunks=[
            tool_call_chunk(name=part.name or None, args=part.arguments, id=part.id or None, index=part.index)
            for part in piece.call_parts
        ],
        id=piece.id,
        usage_metadata=None if piece.usage is None else _usage(piece.usage),
        # In one piece only: adding messages up would repeat the text of each.
        response_metadata=_metadata(piece.id, piece.model, piece.finish_reason) if piece.finish_reason else {},
        additional_kwargs={key: values for key, values in kept.items() if values},
    )


def _metadata(reply_id: str, model: str, finish_reason: str) -> dict[str, Any]:
    return {"id": reply_id, "model_name": model, "finish_reason": finish_reason, "model_provider": "vllm"}


def _usage(usage: Usage) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
    )
