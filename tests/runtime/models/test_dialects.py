"""Each server speaks the chat API in its own way; what it means is the same to us.

The replies in tests/data/dialects were written after the servers' documentation and sources.
"""

import asyncio
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
REQUEST = ModelRequest(policy="m", messages=(Message(role="user", content="hi"),), tools=(TOOL,), timeout_s=5.0)
WEATHER, TIME = ("weather", {"city": "Bern"}), ("time", {"zone": "CET"})


class Server:
    """Answers every request with the same file."""

    def __init__(self) -> None:
        self.url = ""
        self.asked = 0
        self.status = 200
        self.file = DIALECTS

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
        self.asked += 1
        body = self.file.read_bytes()
        kind = b"text/event-stream" if self.file.suffix == ".sse" else b"application/json"
        head_line = b"HTTP/1.1 %d X\r\nContent-Type: %b\r\n" % (self.status, kind)
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


def test_each_file_is_tried() -> None:
    files = {str(file.relative_to(DIALECTS)) for file in DIALECTS.rglob("*") if file.is_file()}
    assert files == REPLIES.keys() | {file for file, _ in FAILURES}
