"""Each server speaks the chat API in its own way; what it means is the same to us.

The replies in tests/data/dialects were written after the servers' documentation and sources.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.runtime.models.vllm import ChatVLLM
from journeyman.traces.errors import PASSING, ModelError, ModelFailure
from journeyman.traces.messages import Message

DIALECTS = Path(__file__).parents[2] / "data" / "dialects"
TOOL = {"name": "weather", "description": "", "parameters": {"type": "object", "properties": {}}}
HI = (Message(role="user", content="hi"),)
REQUEST = ModelRequest(policy="m", messages=HI, tools=(TOOL,), parallel_calls=False, timeout_s=5.0)
WEATHER, TIME = ("weather", {"city": "Bern"}), ("time", {"zone": "CET"})


class Server:
    """Answers every request with the same file, or body."""

    def __init__(self) -> None:
        self.url = ""
        self.asked = 0
        self.status = 200
        self.file = DIALECTS
        self.body: bytes | None = None
        """In the file's stead."""
        self.unless: str | None = None
        """A key of the request's body without which it is answered with `instead`."""
        self.instead = DIALECTS

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        sent = json.loads(await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0])))
        self.asked += 1
        taken = self.unless is not None and self.unless not in sent
        file, status = (self.instead, 200) if taken else (self.file, self.status)
        body = file.read_bytes() if self.body is None else self.body
        kind = b"text/event-stream" if file.suffix == ".sse" else b"application/json"
        head_line = b"HTTP/1.1 %d X\r\nContent-Type: %b\r\n" % (status, kind)
        writer.write(head_line + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    there = Server()
    listener = await asyncio.start_server(there.handle, "127.0.0.1", 0)
    there.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield there


async def asked(server: Server, file: str, *, status: int = 200, streams: bool | None = None) -> ModelReply:
    server.file, server.status = DIALECTS / file, status
    model = ChatVLLM(base_url=server.url, model="m", extensions=False, retries=1, retry_wait_s=0.0)
    shown: list[str] = []
    try:
        if not (file.endswith(".sse") if streams is None else streams):
            return await model.complete(REQUEST)
        reply = await model.stream_reply(REQUEST, shown.append, shown.clear)
        assert "".join(shown) == reply.content
        return reply
    finally:
        await model.aclose()


class Says(NamedTuple):
    content: str = "Bern."
    calls: tuple[Any, ...] = ()
    end: str = "stop"
    tokens: int = 0


CALLS: dict[str, Any] = {"content": "", "calls": (WEATHER, TIME), "end": "tool_calls"}

REPLIES = {
    "openai/reply.json": Says(tokens=22),
    "openai/calls.json": Says(**CALLS, tokens=91),
    "openai/function_call.json": Says("", (WEATHER,), "tool_calls", 76),
    "openai/length.json": Says("Once upon", end="length", tokens=21),
    "openai/stream.sse": Says(tokens=22),
    "openai/stream_calls.sse": Says(**CALLS, tokens=91),
    "azure/reply.json": Says(tokens=22),
    "azure/calls.json": Says("", (WEATHER,), "tool_calls", 76),
    "azure/stream.sse": Says(tokens=22),
    "azure/stream_asynchronous_filter.sse": Says(tokens=22),
    "vllm/reply.json": Says("\n\nBern.", tokens=51),
    "vllm/calls.json": Says(**CALLS, tokens=224),
    "vllm/stream.sse": Says(tokens=33),
    "vllm/stream_calls.sse": Says(**CALLS, tokens=224),
    "sglang/reply.json": Says(tokens=23),
    "sglang/calls.json": Says(**CALLS, tokens=220),
    "sglang/stream.sse": Says(tokens=23),
    "sglang/stream_uncounted.sse": Says(),
    "llama.cpp/reply.json": Says(tokens=15),
    "llama.cpp/calls_as_objects.json": Says(**CALLS, tokens=220),
    "llama.cpp/stream.sse": Says(tokens=15),
    "llama.cpp/stream_calls.sse": Says(**CALLS, tokens=15),
    "llama.cpp/stream_uncounted.sse": Says(),
    "ollama/reply.json": Says(tokens=33),
    "ollama/calls.json": Says(**CALLS, tokens=190),
    "ollama/calls_without_ids.json": Says("", (WEATHER, ("weather", {"city": "Biel"}))),
    "ollama/stream_uncounted.sse": Says(),
    "ollama/stream_calls_of_one_index.sse": Says(**CALLS, tokens=190),
    "ollama/stream_calls_without_index_or_id.sse": Says("", (WEATHER, ("weather", {"city": "Biel"}))),
    "litellm/reply.json": Says(tokens=29),
    "litellm/content_parts.json": Says(tokens=29),
    "litellm/calls.json": Says("Let me look.", (WEATHER,), "tool_calls", 330),
    "litellm/stream.sse": Says(tokens=23),
    "litellm/stream_calls_from_one.sse": Says("Let me look.", (WEATHER,), "tool_calls", 330),
    "tgi/reply.json": Says(tokens=43),
    "tgi/reply_of_before.json": Says(tokens=43),
    "tgi/calls_as_objects.json": Says("", (WEATHER,), tokens=220),
    "tgi/stream.sse": Says(),
    "tgi/stream_call_by_itself.sse": Says("", (WEATHER,)),
    "openrouter/reply.json": Says(tokens=23),
    "openrouter/stream.sse": Says(tokens=23),
    "openrouter/stream_calls_ended_twice.sse": Says(**CALLS, tokens=23),
}


@pytest.mark.parametrize("file", REPLIES)
async def test_a_reply_of_any_dialect_is_read(server: Server, file: str) -> None:
    reply = await asked(server, file)
    calls = tuple((call.name, call.arguments) for call in reply.tool_calls)
    assert Says(reply.content, calls, reply.finish_reason, reply.usage.tokens) == REPLIES[file]
    assert reply.unreadable is None and server.asked == 1
    assert len({call.id for call in reply.tool_calls}) == len(calls) and all(call.id for call in reply.tool_calls)
    assert reply.model


FAILURES: dict[tuple[str, int], tuple[ModelFailure, str]] = {
    ("openai/refusal.json", 200): ("refused", "refused to answer: I can't help with that request."),
    ("openai/stream_refusal.sse", 200): ("refused", "refused to answer: I can't help with that request."),
    ("openai/error_429.json", 429): ("rate_limited", "answered 429: Rate limit reached for gpt-4.1-mini"),
    ("openai/error_400.json", 400): ("refused", "answered 400: This model's maximum context length"),
    ("azure/filtered.json", 200): ("refused", "gave its reply up: content_filter"),
    ("azure/stream_filtered.sse", 200): ("refused", "gave its reply up: content_filter after 'First, take'"),
    ("azure/error_400_filter.json", 400): ("refused", "answered 400: The response was filtered"),
    ("azure/error_401.json", 401): ("refused", "answered 401: it wants an API key"),
    ("azure/error_404.json", 404): ("refused", "The API deployment for this resource does not exist."),
    ("vllm/abort.json", 200): ("server_error", "gave its reply up: abort after 'Be'"),
    ("vllm/error_404.json", 404): ("refused", "policy 'm' is not loaded in"),
    ("vllm/error_400_flat.json", 400): ("refused", "answered 400: This model's maximum context length"),
    ("vllm/error_422.json", 422): ("refused", "answered 422: body.messages: Field required"),
    ("vllm/stream_error.sse", 200): ("server_error", "failed in the middle of its reply: EngineCore encountered"),
    ("sglang/abort.json", 200): ("server_error", "gave its reply up: abort"),
    ("sglang/error_400.json", 400): ("refused", "answered 400: The input (9000 tokens) is longer"),
    ("sglang/stream_error.sse", 200): ("server_error", "failed in the middle of its reply: Request is aborted"),
    ("llama.cpp/error_503.json", 503): ("server_error", "answered 503: Loading model"),
    ("llama.cpp/error_400.json", 400): ("refused", "answered 400: the request exceeds the available context"),
    ("llama.cpp/stream_error_field.sse", 200): ("server_error", "failed in the middle of its reply: context shift"),
    ("ollama/error_404.json", 404): ("refused", 'model "m" not found, try pulling it first'),
    ("ollama/error_400.json", 400): ("refused", "answered 400: registry.ollama.ai/library/gemma2 does not support"),
    ("litellm/error_429.json", 429): ("rate_limited", "answered 429: litellm.RateLimitError: AnthropicException"),
    ("litellm/error_400_policy.json", 400): ("refused", "litellm.ContentPolicyViolationError"),
    ("litellm/error_401.json", 401): ("refused", "answered 401: it wants an API key"),
    ("litellm/stream_error.sse", 200): ("server_error", "reply: litellm.ServiceUnavailableError: VertexAIException"),
    ("tgi/error_422.json", 422): ("refused", "answered 422: Input validation error: `inputs` tokens"),
    ("tgi/error_429.json", 429): ("rate_limited", "answered 429: Model is overloaded"),
    ("tgi/stream_error.sse", 200): ("server_error", "middle of its reply: Request failed during generation"),
    ("openrouter/error_within_200.json", 200): ("server_error", "Provider returned error: upstream connect error"),
    ("openrouter/error_429_within_200.json", 200): ("rate_limited", "Rate limit exceeded: free-models-per-min."),
    ("openrouter/error_of_the_choice.json", 200): ("server_error", "Upstream error from Novita: stream closed"),
    ("openrouter/error_403_moderation.json", 403): ("refused", "answered 403: Your input was flagged."),
    ("openrouter/error_402.json", 402): ("refused", "answered 402: This request requires more credits"),
    ("openrouter/stream_error.sse", 200): ("server_error", "reply: Provider disconnected unexpectedly"),
}


@pytest.mark.parametrize(("file", "status"), FAILURES)
async def test_a_failure_of_any_dialect_has_its_kind_and_the_server_s_words(
    server: Server, file: str, status: int
) -> None:
    kind, said = FAILURES[file, status]
    for number, streams in enumerate((False, True) if file.endswith(".json") and status != 200 else (None,), start=1):
        with pytest.raises(ModelError) as raised:
            await asked(server, file, status=status, streams=streams)
        assert (raised.value.kind, raised.value.status) == (kind, status)
        assert server.url in str(raised.value) and said in str(raised.value) and "\n" not in str(raised.value)
        # A refusal is one whenever it is asked; what may pass is asked for a second time.
        assert server.asked == number * (2 if kind in PASSING else 1)


WHOLE = tuple(file for file in REPLIES if file.endswith("/reply.json"))
STREAMS = tuple(
    f"{name}/stream{'_uncounted' * (name == 'ollama')}.sse" for name, _ in (file.split("/") for file in WHOLE)
)
"""One of each server."""


def choice(file: str, **changes: Any) -> dict[str, Any]:
    """A server's whole reply with changes of its choice; what is changed to `...` is missing."""
    whole: dict[str, Any] = json.loads((DIALECTS / file).read_bytes())
    changed = {**whole["choices"][0], **changes}
    return {**whole, "choices": [{key: value for key, value in changed.items() if value is not ...}]}


def events(file: str) -> list[dict[str, Any]]:
    lines = (line.removeprefix("data:").strip() for line in (DIALECTS / file).read_text().splitlines())
    return [json.loads(line) for line in lines if line.startswith("{")]


def ended(event: dict[str, Any]) -> bool:
    return any(choice.get("finish_reason") for choice in event.get("choices", ()))


def written(chunks: list[dict[str, Any]]) -> bytes:
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode()


@pytest.mark.parametrize("file", WHOLE)
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"message": None}, "'choices.0.message'"),
        ({"message": ...}, "'choices.0.message' is missing"),
        ({"message": {"content": 3}}, "'choices.0.message.content'"),
        ({"finish_reason": None}, "'choices.0.finish_reason'"),
        ({"finish_reason": ...}, "'choices.0.finish_reason' is missing"),
        (None, "'choices' is missing or empty"),
    ],
)
async def test_a_null_or_missing_field_of_any_dialect_is_told_by_name_with_the_server_and_what_came(
    server: Server, file: str, changes: dict[str, Any] | None, named: str
) -> None:
    whole = choice(file, **(changes or {}))
    server.body = json.dumps(whole if changes is not None else {**whole, "choices": []}).encode()
    with pytest.raises(ModelError) as raised:
        await asked(server, file)
    told = str(raised.value)
    assert told.startswith(f"{server.url} answered something that is not a chat completion: ") and named in told
    assert f"it sent '{server.body.decode()[:40]}" in told and "\n" not in told and len(told) < 400
    assert (raised.value.kind, server.asked) == ("unusable", 1)


@pytest.mark.parametrize("file", WHOLE)
async def test_fields_that_nothing_hangs_on_may_be_null_or_missing_in_any_dialect(server: Server, file: str) -> None:
    for whole in (choice(file, logprobs=None, index=...), choice(file) | {"usage": None, "id": None, "model": None}):
        server.body = json.dumps(whole).encode()
        assert (await asked(server, file)).content == REPLIES[file].content


@pytest.mark.parametrize("file", WHOLE)
async def test_a_refusal_is_refused_with_its_text_and_asked_for_once_in_any_dialect(server: Server, file: str) -> None:
    said = {"role": "assistant", "content": None, "refusal": "I can't help\nwith that."}
    server.body = json.dumps(choice(file, message=said)).encode()
    with pytest.raises(ModelError) as raised:
        await asked(server, file)
    assert str(raised.value) == f"{server.url} refused to answer: I can't help with that."
    assert (raised.value.kind, server.asked) == ("refused", 1)


@pytest.mark.parametrize("file", STREAMS)
async def test_a_refusal_in_a_stream_of_any_dialect_is_one_too(server: Server, file: str) -> None:
    first, *_ = (chunk for chunk in events(file) if chunk.get("choices"))
    (last,) = (chunk for chunk in events(file) if ended(chunk))
    parts = ({"delta": {"refusal": text}, "finish_reason": None} for text in ("I can't help\n", "with that."))
    server.body = written([*({**first, "choices": [part]} for part in parts), last])
    with pytest.raises(ModelError) as raised:
        await asked(server, file)
    assert str(raised.value) == f"{server.url} refused to answer: I can't help with that."
    assert (raised.value.kind, server.asked) == ("refused", 1)


@pytest.mark.parametrize("file", STREAMS)
async def test_a_stream_of_any_dialect_that_breaks_off_is_asked_for_again(server: Server, file: str) -> None:
    server.body = written([chunk for chunk in events(file) if chunk.get("choices") and not ended(chunk)])
    with pytest.raises(ModelError) as raised:
        await asked(server, file)
    assert str(raised.value) == f"{server.url} broke its reply off"
    assert (raised.value.kind, server.asked) == ("unreachable", 2)


REFUSED_PARAMETERS = {
    "openai/error_400_max_tokens.json": "max_tokens",
    "openai/error_400_temperature.json": "temperature",
    "azure/error_400_max_tokens.json": "max_tokens",
    "azure/error_400_parallel_calls.json": "parallel_tool_calls",
    "litellm/error_400_temperature.json": "temperature",
    "openrouter/error_400_max_tokens.json": "max_tokens",
}


@pytest.mark.parametrize(("file", "parameter"), REFUSED_PARAMETERS.items())
async def test_a_parameter_that_a_model_refuses_is_left_out(server: Server, file: str, parameter: str) -> None:
    server.unless = parameter
    for number, kind in enumerate(("reply.json", "stream.sse"), start=1):
        server.instead = DIALECTS / file.split("/")[0] / kind
        assert (await asked(server, file, status=400, streams=kind == "stream.sse")).content == "Bern."
        assert server.asked == 2 * number  # Each time by a client that does not know it yet.


def test_each_file_is_tried_and_each_server_s_reply_and_stream() -> None:
    files = {str(file.relative_to(DIALECTS)) for file in DIALECTS.rglob("*") if file.is_file()}
    assert files == REPLIES.keys() | {file for file, _ in FAILURES} | REFUSED_PARAMETERS.keys()
    assert {file.split("/")[0] for file in WHOLE} == {file.split("/")[0] for file in files} and set(STREAMS) <= files
