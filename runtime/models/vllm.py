"""`ChatVLLM`: a vLLM server as a langchain chat model and as our own `Model`, token ids and logprobs kept."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import AliasChoices, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError

from journeyman.agents.model import BASE, ModelReply, ModelRequest
from journeyman.runtime.models.chat_api import ChatAPI
from journeyman.runtime.models.chat_wire import readable
from journeyman.runtime.models.vllm_messages import read_message, write_chunk, write_result
from journeyman.runtime.models.vllm_structured import (
    Method,
    Schema,
    Tool,
    chat_choice,
    chat_format,
    chat_tools,
    reply_parser,
    structured,
)
from journeyman.traces.base import first_mistake
from journeyman.traces.errors import ConfigError

REQUEST_KEYS = {"json_schema", "max_tokens", "temperature", "seed", "timeout_s", "traceparent"}

OF_TOOLS = {"tool_choice", "parallel_tool_calls"}
"""Keys that servers refuse where there are no tools."""


class ChatVLLM(BaseChatModel):
    """Replies of a vLLM server. Each field but the address is a default that a single call may override by keyword.

        model = ChatVLLM(base_url="http://127.0.0.1:8731", model="clerk@3", max_tokens=512)
        model.invoke("How many orders are open?").content
        model.bind_tools([price], tool_choice="any").invoke("What does the coffee cost?").tool_calls
        model.with_structured_output(Order).invoke("Two coffees, please.")

    Text and tool calls only: reasoning in a history is left out, an image is a `ConfigError`. A call that fails is a
    `ModelError`; a structured reply that can't be read is LangChain's `OutputParserException`, too.
    """

    model_config = ConfigDict(extra="forbid")

    base_url: str
    """E.g. `http://127.0.0.1:8731`."""
    model: str = BASE
    """The policy: `base`, or an adapter such as `worker@8`."""
    max_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    seed: int | None = None
    stop: list[str] | None = None
    """Texts at which a reply ends; they are no part of it."""
    json_schema: dict[str, Any] | None = None
    """The reply is decoded under this schema."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further keys of the API, such as `top_p` or `parallel_tool_calls`."""
    timeout_s: float = Field(default=120.0, gt=0, validation_alias=AliasChoices("timeout_s", "timeout"))
    """Seconds for one attempt."""
    retries: int = Field(default=3, ge=0, validation_alias=AliasChoices("retries", "max_retries"))
    """Attempts after the first, for a server that is unreachable, slow, busy (429) or broken (5xx)."""
    retry_wait_s: float = Field(default=0.5, ge=0)
    """Mean wait before the first retry; it doubles, with jitter, up to 8 s."""
    api_key: SecretStr | None = None
    extensions: bool = True
    """Whether it is asked for what only vLLM has: token ids, logprobs, and tool calls that obey any schema."""
    streaming: bool = False
    """Whether `invoke` reads a stream, too, for callbacks that want each token."""

    _api: ChatAPI = PrivateAttr()

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            unknown = any(one["type"] == "extra_forbidden" for one in error.errors())
            hint = "; further keys of the API go into model_kwargs" * unknown
            raise ConfigError(f"ChatVLLM: {first_mistake(error, type(self))}{hint}") from None
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

    def bind_tools(
        self,
        tools: Sequence[Tool],
        *,
        tool_choice: str | bool | Mapping[str, Any] | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Replies may call `tools`: LangChain's tools, functions, pydantic classes or JSON schemas.

        `tool_choice`: `any` or `required` forces a call, a name forces that tool's, `none` forbids one. The server
        needs a tool-call parser for a choice of the model's own, which is the default.
        """
        if not tools:
            return self.bind(**kwargs)
        described = chat_tools(tools, strict=strict)
        chosen = {} if tool_choice is None else {"tool_choice": chat_choice(tool_choice, described)}
        return self.bind(tools=described, **chosen, **kwargs)

    def with_structured_output(
        self,
        schema: Schema,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Replies as `schema` has them: objects of a pydantic class, else dicts.

        The server decodes under the schema (`json_schema`), or as arguments of a call (`function_calling`), or as any
        JSON object (`json_mode`; the prompt must say which). `kwargs` go to each call.
        """
        if method not in get_args(Method):
            raise ConfigError(f"method {method!r} is unknown; have {', '.join(get_args(Method))}")
        shown = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
        if method == "function_calling":
            (tool,) = chat_tools([schema], strict=strict)
            name = tool["function"]["name"]
            model = self.bind_tools([tool], tool_choice=name, ls_structured_output_format=shown, **kwargs)
            return structured(model, reply_parser(schema, name), include_raw=include_raw)
        form = chat_format(schema, method, strict)
        model = self.bind(response_format=form, ls_structured_output_format=shown, **kwargs)
        return structured(model, reply_parser(schema), include_raw=include_raw)

    def get_token_ids(self, text: str) -> list[int]:
        """As the server's own tokenizer has them; of a server that isn't vLLM give `custom_get_token_ids`."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        request, _ = self._asked((), None, {})
        return list(self._api.sync(self._api.token_ids(request, text)))

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """What the server would count for them as a prompt, in its own chat template."""
        if self.custom_get_token_ids is not None:
            return super().get_num_tokens_from_messages(messages, tools)
        request, _ = self._asked(messages, None, {"tools": chat_tools(tools or ())})
        return len(self._api.sync(self._api.token_ids(request)))

    @property
    def _llm_type(self) -> str:
        return "vllm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """All that an answer depends on: LangChain's cache tells calls apart by it."""
        fields = ("base_url", "model", "max_tokens", "temperature", "seed", "json_schema", "model_kwargs")
        return {name: getattr(self, name) for name in fields} | {"default_stop": self.stop}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return write_result(readable(self._api.sync(self._api.complete(*self._asked(messages, stop, kwargs)))))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return write_result(readable(await self._api.complete(*self._asked(messages, stop, kwargs))))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for piece in self._api.stream_sync(*self._asked(messages, stop, kwargs)):
            yield ChatGenerationChunk(message=write_chunk(piece))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for piece in self._api.stream(*self._asked(messages, stop, kwargs)):
            yield ChatGenerationChunk(message=write_chunk(piece))

    def _asked(
        self, messages: Sequence[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[ModelRequest, dict[str, Any]]:
        """A request, and the further keys of the body that a request has no field for."""
        given = {**self.model_kwargs, "stop": self.stop if stop is None else stop, **kwargs}
        tools = given.pop("tools", None) or ()
        left_out = (set() if tools else OF_TOOLS) | (set() if given["stop"] else {"stop"})
        own = {key: getattr(self, key) for key in REQUEST_KEYS - {"traceparent"}}
        own |= {key: given[key] for key in REQUEST_KEYS & given.keys()}
        try:
            request = ModelRequest(
                policy=given.pop("model", self.model),
                messages=tuple(map(read_message, messages)),
                tools=tuple(tool["function"] for tool in tools),
                **own,
            )
        except ValidationError as error:
            raise ConfigError(f"ChatVLLM: {first_mistake(error)}") from None
        return request, {key: value for key, value in given.items() if key not in REQUEST_KEYS | left_out}
