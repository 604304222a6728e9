"""The chat API over HTTP: a `ModelRequest` in, a `ModelReply` out, every failure a `ModelError`.

Retries live here and nowhere else.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import httpx
from pydantic import ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.runtime.loops import run_in_own_loop
from journeyman.runtime.models.chat_failures import NoReplyError, read_complaint, status_kind
from journeyman.runtime.models.chat_stream import SHOWN_CHARS, StreamedReply, lines_of, read_out
from journeyman.runtime.models.chat_wire import Piece, check_calls, join_pieces, read_piece, read_reply, request_body
from journeyman.runtime.models.chat_withheld import UNSENT, Withheld, without
from journeyman.tools.secret import header_text
from journeyman.traces.base import first_mistake
from journeyman.traces.errors import ConfigError, ModelError

PATH = "/chat/completions"

WHO_S = 5.0
"""What a server has to say who it is."""

VERSION = re.compile(r"/v\d\w*(?=/|$)")
"""In a server's address; other servers than vLLM have it elsewhere than at the end, or another one than the first."""

LONGEST_WAIT_S = 8.0
"""Of our own between two attempts, and of what a server asks for on top of that."""

# vLLM's HTTP server drops idle connections after 5 s; one that is dropped while it is picked up fails for nothing.
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=3.0)


class ChatAPI:
    """A server's chat endpoint, with one client for each event loop."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        retries: int = 3,
        wait_s: float = 0.5,
        extensions: bool = True,
    ) -> None:
        """`base_url` has the API's version in it, or gets `/v1`; `wait_s` is the mean of the first wait for an attempt.

        `extensions` asks for what only vLLM has: token ids, logprobs, and tool calls that obey any schema.
        """
        try:
            url = httpx.URL(base_url)
        except httpx.InvalidURL as error:
            raise ConfigError(f"{base_url!r} is no URL: {error}") from None
        if url.scheme not in {"http", "https"} or not url.host:
            raise ConfigError(f"{base_url!r} isn't a server's URL: write it as http://host:port")
        self.shown = f"{url.scheme}://{url.netloc.decode()}"
        """The address without user, password or path: for messages."""
        self._url = _endpoint(url)
        self._key = None if api_key is None else header_text(api_key, f"the API key for {self.shown}")
        self._extensions = extensions
        self._withheld = Withheld(self.shown)
        self._policy: dict[str, Any] = {
            "stop": stop_after_attempt(retries + 1),
            "wait": _Wait(wait_s),
            "retry": retry_if_exception(_may_pass),
            "reraise": True,
        }
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()

    async def complete(self, request: ModelRequest, extra: Mapping[str, Any] | None = None) -> ModelReply:
        """The reply to `request`; `extra` are further keys of the request's body."""
        return await AsyncRetrying(**self._policy)(self._complete, request, extra or {})

    def complete_sync(self, request: ModelRequest, extra: Mapping[str, Any] | None = None) -> ModelReply:
        """`complete` for code that does not wait; its connection is closed with it."""
        return run_in_own_loop(self._complete_and_close(request, extra))

    async def stream_reply(
        self, request: ModelRequest, on_text: Callable[[str], None], on_restart: Callable[[], None]
    ) -> ModelReply:
        """Like `complete`, and shows the text as it is written.

        `on_restart` says that the reply failed and is asked for again: what was shown of it counts no longer.
        """
        policy = {**self._policy, "before_sleep": lambda _: on_restart()}
        return await AsyncRetrying(**policy)(self._stream_reply, request, on_text)

    async def stream(self, request: ModelRequest, extra: Mapping[str, Any] | None = None) -> AsyncIterator[Piece]:
        """The reply as it is written. A failure before the first piece is retried, a later one is not.

        What was shown cannot be taken back here. `stream_reply` can.
        """
        opened: tuple[httpx.Response, Any] = await AsyncRetrying(**self._policy)(self._open, request, extra or {})
        async with aclosing(self._pieces(opened[0], request)) as pieces:
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        """Closes the connections of the running event loop."""
        if client := self._clients.pop(asyncio.get_running_loop(), None):
            await client.aclose()

    async def _complete(self, request: ModelRequest, extra: Mapping[str, Any]) -> ModelReply:
        body, unsent = await self._body(request, extra)
        try:
            async with asyncio.timeout(request.timeout_s):  # httpx times each read, not a reply that drips in.
                client = self._async_client()
                reply = await client.send(self._request(client, request, body))
        except (httpx.HTTPError, TimeoutError) as error:
            raise self._broken(error, request) from None
        if self._withheld.learn_refusal(request.policy, body, reply.status_code, reply.content):
            return await self._complete(request, extra)
        return self._reply(reply, request).model_copy(update={"unsent": unsent})

    async def _complete_and_close(self, request: ModelRequest, extra: Mapping[str, Any] | None) -> ModelReply:
        try:
            return await self.complete(request, extra)
        finally:
            await self.aclose()

    async def _stream_reply(self, request: ModelRequest, show: Callable[[str], None]) -> ModelReply:
        pieces: list[Piece] = []
        try:
            async with asyncio.timeout(request.timeout_s):
                opened, unsent = await self._open(request, {})
                async with aclosing(self._pieces(opened, request)) as arriving:
                    async for piece in arriving:
                        pieces.append(piece)
                        if piece.content:
                            show(piece.content)
        except TimeoutError as error:
            raise self._broken(error, request) from None
        if (reply := join_pieces(pieces)) is None:
            raise self._broken_off()
        return check_calls(reply, request).model_copy(update={"unsent": unsent})

    async def _open(self, request: ModelRequest, extra: Mapping[str, Any]) -> tuple[httpx.Response, Mapping[str, str]]:
        """The reply as it begins, and what of the request was not sent."""
        client = self._async_client()
        streaming = {**extra, "stream": True, "stream_options": {"include_usage": True}}
        body, unsent = await self._body(request, streaming)
        try:
            reply = await client.send(self._request(client, request, body), stream=True)
            if reply.is_success:
                return reply, unsent
            await reply.aread()
        except httpx.HTTPError as error:
            raise self._broken(error, request) from None
        if self._withheld.learn_refusal(request.policy, body, reply.status_code, reply.content):
            return await self._open(request, extra)
        raise self._refusal(reply, request)

    async def _beside(self, path: str) -> str | None:
        """What the server has at `path`, beside its API, empty for nothing; None where it doesn't say in time."""
        url = self._url.copy_with(path=VERSION.split(self._url.path)[0].removesuffix(PATH) + path, query=None)
        try:
            async with asyncio.timeout(WHO_S):
                reply = await self._async_client().get(url, headers=self._authorization)
        except (httpx.HTTPError, TimeoutError):
            return None
        return reply.text if reply.is_success else ""

    async def _pieces(self, reply: httpx.Response, request: ModelRequest) -> AsyncGenerator[Piece]:
        """All of them; raises `ModelError` where the stream ends before the reply does.

        The reply ends where the server says so, also where it does not hang up.
        """
        stream = StreamedReply()
        try:
            async with aclosing(lines_of(reply)) as lines:
                async for event in stream.events(lines):
                    yield self._piece(event, stream)
                    if stream.is_counted:
                        break
                await read_out(lines)
        except httpx.HTTPError as error:
            if not stream.is_whole:
                raise self._broken(error, request) from None
        finally:
            await reply.aclose()
        if not stream.is_whole:
            raise self._broken_off() if stream.begun else self._no_completion(reply.status_code, stream.other)

    def _async_client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = httpx.AsyncClient(limits=LIMITS, trust_env=False)
        return self._clients[loop]

    @property
    def _authorization(self) -> dict[str, str]:
        if self._key is None:
            return {}
        older = {"api-key": self._key} if self._url.params.get("api-version") else {}  # Azure's.
        return {"Authorization": f"Bearer {self._key}", **older}

    async def _body(self, request: ModelRequest, extra: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """What is sent, and what the record must not claim to have asked for."""
        withheld = await self._withheld.of(request, self._beside)
        body = {**request_body(request, extensions=self._extensions), **extra}
        return without(body, withheld), {key: why for key, why in withheld.items() if key in UNSENT and key in body}

    def _request(self, client: httpx.AsyncClient, request: ModelRequest, body: Mapping[str, Any]) -> httpx.Request:
        # A new id for each attempt: the server may still be at work on the one before.
        headers = {"X-Request-Id": uuid4().hex, **self._authorization}
        if request.traceparent is not None:
            headers["traceparent"] = request.traceparent
        try:
            return client.build_request("POST", self._url, json=body, headers=headers, timeout=request.timeout_s)
        except ValueError as error:  # Half a surrogate pair, or a number that is none.
            raise ModelError(f"the request cannot be written as JSON: {error}", kind="refused") from None

    def _reply(self, reply: httpx.Response, request: ModelRequest) -> ModelReply:
        if not reply.is_success:
            raise self._refusal(reply, request)
        try:
            return check_calls(read_reply(reply.content), request)
        except ValidationError as error:
            raise self._no_completion(reply.status_code, reply.content, error) from None
        except NoReplyError as failure:
            raise self._failed(failure) from None

    def _piece(self, event: bytes, stream: StreamedReply) -> Piece:
        try:
            return stream.take(read_piece(event))
        except ValidationError as error:
            raise self._no_completion(200, event, error) from None
        except NoReplyError as failure:
            raise self._failed(failure) from None

    def _failed(self, failure: NoReplyError) -> ModelError:
        return ModelError(self._without_key(f"{self.shown} {failure}"), kind=failure.kind, status=200)

    def _no_completion(self, status: int, body: bytes, error: ValidationError | None = None) -> ModelError:
        """Where `status` is a success; some servers say in the body that they failed after all."""
        if said := read_complaint(body):
            text = f"{self.shown} failed in the middle of its reply: {said}"
            return ModelError(self._without_key(text), kind="server_error", status=status)
        came = " ".join(body.decode(errors="replace").split())
        why = "" if error is None else f": {first_mistake(error)}"
        text = f"{self.shown} answered something that is not a chat completion{why}; it sent "
        text += f"{came[:SHOWN_CHARS]!r}{'…' * (len(came) > SHOWN_CHARS)}" if came else "nothing"
        return ModelError(self._without_key(text), kind="unusable", status=status)

    def _broken_off(self) -> ModelError:
        return ModelError(f"{self.shown} broke its reply off", kind="unreachable")

    def _refusal(self, reply: httpx.Response, request: ModelRequest) -> ModelError:
        status = reply.status_code
        said = read_complaint(reply.content)
        if status == 404 and said:
            text = f"policy {request.policy!r} is not loaded in {self.shown}: {said}"
        elif status == 401 or (status == 403 and not said):
            text = f"{self.shown} answered {status}: it wants an API key" + (
                " other than the one given" * bool(self._key)
            )
        else:
            text = f"{self.shown} answered {status}: {said or 'it gives no reason'}"
        return ModelError(self._without_key(text), kind=status_kind(status), status=status, wait_s=_asked_wait(reply))

    def _broken(self, error: Exception, request: ModelRequest) -> ModelError:
        if isinstance(error, httpx.TimeoutException | TimeoutError):
            return ModelError(f"{self.shown} did not answer within {request.timeout_s:g} s", kind="timeout")
        reason = self._without_key(" ".join(str(error).split())) or type(error).__name__
        if isinstance(error, httpx.TransportError):
            return ModelError(f"{self.shown} cannot be reached: {reason}", kind="unreachable")
        return ModelError(f"{self.shown} answered something that cannot be read: {reason}", kind="unusable")

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


class _Wait:
    """Random and growing from one attempt to the next; longer where the server asks for it."""

    def __init__(self, wait_s: float) -> None:
        self._own = wait_random_exponential(multiplier=2 * wait_s, max=LONGEST_WAIT_S)

    def __call__(self, state: RetryCallState) -> float:
        error = None if state.outcome is None else state.outcome.exception()
        asked = error.wait_s if isinstance(error, ModelError) else None
        # On top of what it asks for, so that those whom it sent away together don't come back together.
        return self._own(state) + min(asked or 0.0, LONGEST_WAIT_S)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, ModelError) and error.retryable


def _asked_wait(reply: httpx.Response) -> float | None:
    """Seconds that the header `Retry-After` asks for: a number, or a date, which counts from the reply's own."""
    asked = reply.headers.get("retry-after", "")
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        wait = parsedate_to_datetime(asked) - parsedate_to_datetime(reply.headers.get("date", ""))
    except (ValueError, TypeError, OverflowError):  # No date, one without a zone beside one with it, or none there is.
        return None
    return max(0.0, wait.total_seconds())


def _endpoint(url: httpx.URL) -> httpx.URL:
    """Where a server of that address is asked; it may hold the path already, and a version beside it, as Azure's."""
    path = url.path.rstrip("/").removesuffix(PATH)
    versioned = VERSION.search(path) or "api-version" in url.params
    return url.copy_with(path=f"{path}{'' if versioned else '/v1'}{PATH}")
