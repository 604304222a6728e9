"""vLLM's chat API over HTTP: a `ModelRequest` in, a `ModelReply` out, every failure a `ModelError`.

Retries live here and nowhere else.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import httpx
from pydantic import BaseModel, Field, ValidationError
from tenacity import AsyncRetrying, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.traces.errors import ConfigError, ModelError
from journeyman.traces.messages import Message, Usage
from journeyman.traces.record import Record

PATH = "/v1/chat/completions"

LONGEST_WAIT_S = 8.0

# vLLM's HTTP server drops idle connections after 5 s; one that is dropped while it is picked up fails for nothing.
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=3.0)


class Piece(Record):
    """A part of a reply that is streamed; adding the pieces up gives the `ModelReply`."""

    content: str = ""
    id: str
    model: str
    finish_reason: str | None = None
    usage: Usage | None = None
    """In the last piece only."""
    prompt_token_ids: tuple[int, ...] | None = None
    """In the first piece only."""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()


class ChatAPI:
    """A server's chat endpoint. One client for each event loop, and one for code without any."""

    def __init__(self, base_url: str, *, api_key: str | None = None, retries: int = 3, wait_s: float = 0.5) -> None:
        """`base_url` with or without `/v1`; `wait_s` is the mean of the first wait between two attempts."""
        try:
            url = httpx.URL(base_url.rstrip("/").removesuffix("/v1"))
        except httpx.InvalidURL as error:
            raise ConfigError(f"{base_url!r} is no URL: {error}") from None
        if url.scheme not in {"http", "https"} or not url.host:
            raise ConfigError(f"{base_url!r} is no server's URL: write it as http://host:port")
        self.shown = f"{url.scheme}://{url.netloc.decode()}"
        """The address without user, password or path: for messages."""
        self._url = f"{str(url).rstrip('/')}{PATH}"
        self._key = api_key
        self._policy: dict[str, Any] = {
            "stop": stop_after_attempt(retries + 1),
            "wait": wait_random_exponential(multiplier=2 * wait_s, max=LONGEST_WAIT_S),
            "retry": retry_if_exception(lambda error: isinstance(error, ModelError) and error.retryable),
            "reraise": True,
        }
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()
        self._client: httpx.Client | None = None

    async def complete(self, request: ModelRequest, extra: Mapping[str, Any] | None = None) -> ModelReply:
        """The reply to `request`; `extra` are further keys of the request's body."""
        return await AsyncRetrying(**self._policy)(self._complete, request, extra or {})

    def complete_sync(self, request: ModelRequest, extra: Mapping[str, Any] | None = None) -> ModelReply:
        return Retrying(**self._policy)(self._complete_sync, request, extra or {})

    async def stream(self, request: ModelRequest, extra: Mapping[str, Any] | None = None) -> AsyncIterator[Piece]:
        """The reply as it is written. A failure before the first piece is retried, a later one is not."""
        streaming = {**(extra or {}), "stream": True, "stream_options": {"include_usage": True}}
        reply: httpx.Response = await AsyncRetrying(**self._policy)(self._open, request, streaming)
        try:
            async for line in reply.aiter_lines():
                event = line.removeprefix("data:").strip()
                if line.startswith("data:") and event != "[DONE]":
                    yield self._piece(event)
        except httpx.HTTPError as error:
            raise self._unreachable(error, request) from None
        finally:
            await reply.aclose()

    async def aclose(self) -> None:
        """Closes the connections of the running event loop."""
        if client := self._clients.pop(asyncio.get_running_loop(), None):
            await client.aclose()

    def close(self) -> None:
        """Closes the connections of code without an event loop."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def _complete(self, request: ModelRequest, extra: Mapping[str, Any]) -> ModelReply:
        try:
            async with asyncio.timeout(request.timeout_s):  # httpx times each read, not a reply that drips in.
                client = self._async_client()
                reply = await client.send(self._request(client, request, extra))
        except (httpx.HTTPError, TimeoutError) as error:
            raise self._unreachable(error, request) from None
        return self._reply(reply, request)

    def _complete_sync(self, request: ModelRequest, extra: Mapping[str, Any]) -> ModelReply:
        if self._client is None:
            self._client = httpx.Client(limits=LIMITS, trust_env=False)
        try:
            reply = self._client.send(self._request(self._client, request, extra))
        except httpx.HTTPError as error:
            raise self._unreachable(error, request) from None
        return self._reply(reply, request)

    async def _open(self, request: ModelRequest, extra: Mapping[str, Any]) -> httpx.Response:
        client = self._async_client()
        try:
            reply = await client.send(self._request(client, request, extra), stream=True)
            if reply.is_success:
                return reply
            await reply.aread()
        except httpx.HTTPError as error:
            raise self._unreachable(error, request) from None
        raise self._refusal(reply, request)

    def _async_client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = httpx.AsyncClient(limits=LIMITS, trust_env=False)
        return self._clients[loop]

    def _request(
        self, client: httpx.Client | httpx.AsyncClient, request: ModelRequest, extra: Mapping[str, Any]
    ) -> httpx.Request:
        # A new id for each attempt: the server may still be at work on the one before.
        headers = {"X-Request-Id": uuid4().hex}
        if request.traceparent is not None:
            headers["traceparent"] = request.traceparent
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        body = {**request_body(request), **extra}
        return client.build_request("POST", self._url, json=body, headers=headers, timeout=request.timeout_s)

    def _reply(self, reply: httpx.Response, request: ModelRequest) -> ModelReply:
        if not reply.is_success:
            raise self._refusal(reply, request)
        try:
            completion = _Completion.model_validate_json(reply.content)
        except ValidationError:
            raise self._nonsense(reply.status_code) from None
        choice = completion.choices[0]
        return ModelReply(
            id=completion.id,
            model=completion.model,
            content=choice.message.content or "",
            finish_reason=choice.finish_reason,
            usage=completion.usage.usage,
            prompt_token_ids=completion.prompt_token_ids,
            token_ids=choice.token_ids,
            logprobs=None if choice.logprobs is None else choice.logprobs.values,
        )

    def _piece(self, event: str) -> Piece:
        try:
            chunk = _Chunk.model_validate_json(event)
        except ValidationError:
            raise self._nonsense(200) from None
        choice = chunk.choices[0] if chunk.choices else _ChunkChoice()
        return Piece(
            content=choice.delta.content or "",
            id=chunk.id,
            model=chunk.model,
            finish_reason=choice.finish_reason,
            usage=None if chunk.usage is None else chunk.usage.usage,
            prompt_token_ids=chunk.prompt_token_ids,
            token_ids=choice.token_ids or (),
            logprobs=() if choice.logprobs is None else choice.logprobs.values,
        )

    def _nonsense(self, status: int) -> ModelError:
        return ModelError(
            f"{self.shown} answered something that is not a chat completion: is a vLLM server there?", status=status
        )

    def _refusal(self, reply: httpx.Response, request: ModelRequest) -> ModelError:
        status = reply.status_code
        said = _complaint(reply)
        if status == 404 and said:
            text = f"policy {request.policy!r} is not loaded in {self.shown}: {said}"
        elif status in {401, 403}:
            text = f"{self.shown} answered {status}: it wants an API key" + (
                " other than the one given" * bool(self._key)
            )
        else:
            text = f"{self.shown} answered {status}: {said or 'is a vLLM server there?'}"
        return ModelError(self._without_key(text), status=status, retryable=status == 429 or status >= 500)

    def _unreachable(self, error: Exception, request: ModelRequest) -> ModelError:
        if isinstance(error, httpx.TimeoutException | TimeoutError):
            return ModelError(f"{self.shown} did not answer within {request.timeout_s:g} s", retryable=True)
        reason = self._without_key(" ".join(str(error).split())) or type(error).__name__
        return ModelError(
            f"{self.shown} cannot be reached: {reason}", retryable=isinstance(error, httpx.TransportError)
        )

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def request_body(request: ModelRequest) -> dict[str, Any]:
    """`request` as the JSON body of the API, asking for token ids and logprobs."""
    body: dict[str, Any] = {
        "model": request.policy,
        "messages": [_wire(message) for message in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "logprobs": True,
        "return_token_ids": True,
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.json_schema is not None:
        schema = {"name": "reply", "schema": request.json_schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _wire(message: Message) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        wire["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    return wire


class _Error(BaseModel):
    message: str


class _Refusal(BaseModel):
    error: _Error


def _complaint(reply: httpx.Response) -> str:
    """What the server says is wrong, in one line; empty where it says nothing we can read."""
    try:
        said = _Refusal.model_validate_json(reply.content).error.message
    except ValidationError:
        return ""
    return " ".join(said.split())[:300]


class _Cached(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _Cached | None = None

    @property
    def usage(self) -> Usage:
        details = self.prompt_tokens_details or _Cached()
        return Usage(
            input_tokens=self.prompt_tokens,
            output_tokens=self.completion_tokens,
            cached_tokens=details.cached_tokens or 0,
        )


class _Token(BaseModel):
    logprob: float


class _Logprobs(BaseModel):
    content: list[_Token] | None = None

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(token.logprob for token in self.content or ())


class _Text(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Text
    finish_reason: str
    logprobs: _Logprobs | None = None
    token_ids: tuple[int, ...] | None = None


class _Completion(BaseModel):
    id: str
    model: str
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage
    prompt_token_ids: tuple[int, ...] | None = None


class _ChunkChoice(BaseModel):
    delta: _Text = _Text()
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    token_ids: tuple[int, ...] | None = None


class _Chunk(BaseModel):
    id: str
    model: str
    choices: list[_ChunkChoice]
    usage: _Usage | None = None
    prompt_token_ids: tuple[int, ...] | None = None
