"""The chat API: its address, and its JSON both ways, a `ModelRequest` as a body and what comes as a `ModelReply`."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Self

import httpx
from pydantic import BaseModel, BeforeValidator, field_validator, model_validator

from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.runtime.models.chat_calls import CallPart, WireCall, WireFunction, join_parts, read_calls
from journeyman.runtime.models.chat_failures import check_end, check_failure, read_end
from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError, ModelError
from journeyman.traces.messages import Usage, chat_message, chat_tool

CALL_MARKS = ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<function=")
"""What calls begin with in the templates of Hermes and Qwen, Mistral, and Llama. vLLM leaves a call that it cannot read
in the text."""


PATH = "/chat/completions"

VERSION = re.compile(r"/v\d\w*(?=/|$)")
"""In a server's address; other servers than vLLM have it elsewhere than at the end, or another one than the first."""


class Address:
    """Of a server. It may hold the chat API's path already, and a version beside it, as Azure's; else it gets `/v1`."""

    def __init__(self, base_url: str) -> None:
        """Raises `ConfigError` where `base_url` is no address of a server."""
        try:
            url = httpx.URL(base_url)
        except httpx.InvalidURL as error:
            raise ConfigError(f"{base_url!r} is no URL: {error}") from None
        if url.scheme not in {"http", "https"} or not url.host:
            raise ConfigError(f"{base_url!r} isn't a server's URL: write it as http://host:port")
        path = url.path.rstrip("/").removesuffix(PATH)
        versioned = VERSION.search(path) or "api-version" in url.params
        self.shown = f"{url.scheme}://{url.netloc.decode()}"
        """Without user, password or path: for messages."""
        self.chat = url.copy_with(path=f"{path}{'' if versioned else '/v1'}{PATH}")

    def beside(self, path: str) -> httpx.URL:
        """Of an endpoint beside the API, in no version of it, as vLLM has them."""
        return self.chat.copy_with(path=VERSION.split(self.chat.path)[0].removesuffix(PATH) + path, query=None)


class Piece(Record):
    """A part of a reply that is streamed; `join_pieces` makes the `ModelReply` of them."""

    content: str = ""
    refusal: str = ""
    """A part of the model's reason for giving no answer."""
    call_parts: tuple[CallPart, ...] = ()
    id: str
    model: str
    finish_reason: str | None = None
    usage: Usage | None = None
    """In the last piece only, and from some servers never."""
    prompt_token_ids: tuple[int, ...] | None = None
    """In the first piece only."""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()


def request_body(request: ModelRequest, *, extensions: bool = True) -> dict[str, Any]:
    """`request` as the JSON body of the API; `extensions` are vLLM's: token ids, and calls that obey any schema."""
    body: dict[str, Any] = {
        "model": request.policy,
        "messages": [chat_message(message) for message in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
    }
    if extensions:
        body |= {"logprobs": True, "return_token_ids": True}
    if request.seed is not None:
        body["seed"] = request.seed
    if request.json_schema is not None:
        schema = {"name": "reply", "schema": request.json_schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.tools:
        body["tools"] = [chat_tool(tool, strict=extensions) for tool in request.tools]
        body["tool_choice"] = request.tool_choice
        if not request.parallel_calls:
            body["parallel_tool_calls"] = False
    return body


def prompt_body(request: ModelRequest, text: str | None = None, *, extensions: bool = True) -> dict[str, Any]:
    """What vLLM is asked for the tokens of: the prompt of `request`, or `text` alone."""
    if text is not None:
        return {"model": request.policy, "prompt": text, "add_special_tokens": False}
    body = request_body(request, extensions=extensions)
    return {key: body[key] for key in ("model", "messages", "tools") if key in body}


def read_tokens(body: bytes) -> tuple[int, ...]:
    """Raises `ValidationError` where `body` holds none."""
    return _Tokens.model_validate_json(body).tokens


def read_reply(body: bytes) -> ModelReply:
    """Raises `ValidationError` where `body` is no chat completion, `NoReplyError` where it holds no answer."""
    completion = _Completion.model_validate_json(body)
    check_failure(completion.failure)
    choice = completion.choices[0]
    said = choice.message
    check_end(choice.finish_reason, said.content or "", said.refusal or "")
    calls, unreadable = read_calls([call.part for call in said.calls])
    return ModelReply(
        id=completion.id or "",
        model=completion.model or "",
        content=said.content or "",
        tool_calls=calls,
        unreadable=unreadable,
        finish_reason=choice.finish_reason,
        usage=(completion.usage and completion.usage.usage) or Usage(),
        prompt_token_ids=completion.prompt_token_ids,
        token_ids=choice.token_ids,
        logprobs=None if choice.logprobs is None else choice.logprobs.values,
    )


def read_piece(event: bytes) -> Piece:
    """Raises `ValidationError` where `event` is no part of a chat completion, `NoReplyError` where it tells of one."""
    chunk = _Chunk.model_validate_json(event)
    check_failure(chunk.failure)
    choice = chunk.choices[0] if chunk.choices else _ChunkChoice()
    delta = choice.delta or _Said()
    return Piece(
        content=delta.content or "",
        refusal=delta.refusal or "",
        call_parts=tuple(call.part for call in delta.calls),
        id=chunk.id or "",
        model=chunk.model or "",
        finish_reason=read_end(choice.finish_reason),
        usage=None if chunk.usage is None else chunk.usage.usage,
        prompt_token_ids=chunk.prompt_token_ids,
        token_ids=choice.token_ids or (),
        logprobs=() if choice.logprobs is None else choice.logprobs.values,
    )


def join_pieces(pieces: Sequence[Piece]) -> ModelReply | None:
    """The reply that was streamed; None where its end is missing."""
    reasons = [piece.finish_reason for piece in pieces if piece.finish_reason is not None]
    if not reasons:
        return None
    calls, unreadable = read_calls(join_parts(part for piece in pieces for part in piece.call_parts))
    return ModelReply(
        id=next((piece.id for piece in pieces if piece.id), ""),
        model=next((piece.model for piece in pieces if piece.model), ""),
        content="".join(piece.content for piece in pieces),
        tool_calls=calls,
        unreadable=unreadable,
        finish_reason=reasons[-1],
        usage=next((piece.usage for piece in reversed(pieces) if piece.usage is not None), Usage()),
        prompt_token_ids=next((piece.prompt_token_ids for piece in pieces if piece.prompt_token_ids is not None), None),
        token_ids=tuple(token for piece in pieces for token in piece.token_ids) or None,
        logprobs=tuple(value for piece in pieces for value in piece.logprobs) or None,
    )


def late_ids(pieces: Sequence[Piece], reply: ModelReply) -> Piece | None:
    """A last piece with the ids of calls that came without; raises `ModelError` like `readable`."""
    came = {part.index for piece in pieces for part in piece.call_parts if part.id}
    calls = enumerate(readable(reply).tool_calls)
    missing = tuple(CallPart(index=number, id=call.id) for number, call in calls if number not in came)
    return Piece(id=reply.id, model=reply.model, call_parts=missing) if missing else None


def check_calls(reply: ModelReply, request: ModelRequest) -> ModelReply:
    """`reply`, unreadable where it holds a call that the server could not read: such text is no answer."""
    if request.tools and not reply.tool_calls and any(mark in reply.content for mark in CALL_MARKS):
        return reply.model_copy(update={"unreadable": "it holds a tool call that is not complete, valid JSON"})
    return reply


def readable(reply: ModelReply) -> ModelReply:
    """Raises `ModelError` where a call in it can't be read."""
    if reply.unreadable is None:
        return reply
    cut = "; it was cut off, so ask for it with more max_tokens" * (reply.finish_reason == "length")
    raise ModelError(f"a reply of {reply.model} is unusable: {reply.unreadable}{cut}", kind="unusable")


class _Tokens(BaseModel):
    tokens: tuple[int, ...]


class _Cached(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None

    @property
    def usage(self) -> Usage | None:
        """None where it counts nothing: some servers send a part of it ahead."""
        if self.prompt_tokens is None and self.completion_tokens is None:
            return None
        details = self.prompt_tokens_details or _Cached()
        return Usage(
            input_tokens=self.prompt_tokens or 0,
            output_tokens=self.completion_tokens or 0,
            cached_tokens=details.cached_tokens or 0,
        )


class _Token(BaseModel):
    logprob: float


class _Logprobs(BaseModel):
    content: list[_Token] | None = None

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(token.logprob for token in self.content or ())


class _Said(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[WireCall] | None = None
    function_call: WireFunction | None = None
    """The API's older form, of a single call."""

    @field_validator("content", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """Some servers give parts; those that are no text, such as reasoning, are no part of the answer."""
        if not isinstance(value, list):
            return value
        return "".join(part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str))

    @field_validator("tool_calls", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        """Some servers give the only one by itself."""
        return [value] if isinstance(value, dict) else value

    @property
    def calls(self) -> list[WireCall]:
        return self.tool_calls or ([] if self.function_call is None else [WireCall(function=self.function_call)])


class _Choice(BaseModel):
    message: _Said
    finish_reason: Annotated[str, BeforeValidator(read_end)]
    logprobs: _Logprobs | None = None
    token_ids: tuple[int, ...] | None = None
    error: Any = None


class _ChunkChoice(BaseModel):
    delta: _Said | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    token_ids: tuple[int, ...] | None = None
    error: Any = None


class _Body(BaseModel):
    id: str | None = None
    model: str | None = None
    choices: Sequence[_Choice | _ChunkChoice] | None = None
    error: Any = None
    """Some servers send it with a success: of the whole, or of the only choice."""
    usage: _Usage | None = None
    prompt_token_ids: tuple[int, ...] | None = None

    @property
    def failure(self) -> Any:
        return self.error or (self.choices[0].error if self.choices else None)


class _Completion(_Body):
    choices: list[_Choice] = []

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if not self.choices and not self.error:
            raise ValueError("'choices' is missing or empty")
        return self


class _Chunk(_Body):
    choices: list[_ChunkChoice] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.choices is None and self.usage is None and not self.error:
            raise ValueError("'choices' is missing")
        return self
