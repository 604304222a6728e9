"""Any server of the chat API is a policy, in the forms that people met.

People reported parallel calls that share an index or have none, streams whose tokens nobody counts, refusals taken for
empty answers and asked for again, and errors that name neither the server nor what was wrong with its reply.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.runtime.models.vllm import ChatVLLM
from journeyman.traces.errors import ModelError, ModelFailure
from journeyman.traces.messages import Message

REQUEST = ModelRequest(policy="m", messages=(Message(role="user", content="hi"),), timeout_s=5.0)
USAGE = {"prompt_tokens": 5, "completion_tokens": 2}
STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


class Server:
    def __init__(self) -> None:
        self.url = ""
        self.body = b""
        self.paths: list[str] = []
        self.heads: list[str] = []
        self.holds = False
        """Whether it neither ends its stream nor hangs up."""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        await reader.readexactly(int(head.lower().split("content-length: ")[1].split("\r\n")[0]))
        self.paths.append(head.split(" ")[1])
        self.heads.append(head)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + self.body)
        await writer.drain()
        if self.holds:
            await reader.read()
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    there = Server()
    listener = await asyncio.start_server(there.handle, "127.0.0.1", 0)
    there.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield there


def model(server: Server, path: str = "", **fields: Any) -> ChatVLLM:
    return ChatVLLM(base_url=server.url + path, model="m", extensions=False, retries=1, retry_wait_s=0.0, **fields)


async def streamed(server: Server, *events: dict[str, Any] | str) -> ModelReply:
    written = (event if isinstance(event, str) else f"data: {json.dumps(event)}" for event in events)
    server.body = "".join(f"{event}\n\n" for event in written).encode()
    chat = model(server)
    try:
        return await chat.stream_reply(REQUEST, lambda _: None, lambda: None)
    finally:
        await chat.aclose()


async def replied(server: Server, body: Any) -> ModelReply:
    server.body = body if isinstance(body, bytes) else json.dumps(body).encode()
    chat = model(server)
    try:
        return await chat.complete(REQUEST)
    finally:
        await chat.aclose()


def parts(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "1", "model": "m", "choices": [{"delta": {"tool_calls": list(calls)}, "finish_reason": None}], **more}


def part(arguments: str | None = None, name: str | None = None, **call: Any) -> dict[str, Any]:
    return {**call, "function": {"name": name, "arguments": arguments}}


TWO = [("a", {"n": 1}), ("b", {"n": 2})]
TWICE = [("a", {"n": 1}), ("a", {"n": 2})]


@pytest.mark.parametrize(
    ("chunks", "calls"),
    [
        # ollama/ollama#15457, huggingface/smolagents#1958: one index for all, another id.
        ([parts(part('{"n": 1}', "a", index=0, id="x")), parts(part('{"n": 2}', "b", index=0, id="y"))], TWO),
        # The same in fragments that follow their beginnings.
        (
            [
                parts(part("", "a", index=0, id="x")),
                parts(part('{"n": 1}', index=0)),
                parts(part("", "b", index=0, id="y")),
                parts(part('{"n"', index=0)),
                parts(part(": 2}", index=0)),
            ],
            TWO,
        ),
        # The same, interleaved, with the id in each part.
        (
            [
                parts(part('{"n"', "a", index=0, id="x"), part('{"n"', "a", index=0, id="y")),
                parts(part(": 2}", index=0, id="y"), part(": 1}", index=0, id="x")),
            ],
            TWICE,
        ),
        # ollama/ollama#7881: no index.
        ([parts(part('{"n": 1}', "a", id="x")), parts(part('{"n": 2}', "b", id="y"))], TWO),
        ([parts(part('{"n": 1}', "a", id="x"), part('{"n": 2}', "b", id="y"))], TWO),
        # Neither index nor id.
        ([parts(part('{"n": 1}', "a")), parts(part('{"n": 2}', "a"))], TWICE),
        # One index and one id for all, as a router's provider sends them.
        ([parts(part('{"n": 1}', "a", index=0, id="x")), parts(part('{"n": 2}', "b", index=0, id="x"))], TWO),
        # QwenLM/Qwen-Agent#943, oracle/langchain-oracle#254: interleaved by index, ids at the beginnings only.
        (
            [
                parts(part("", "a", index=0, id="x"), part("", "b", index=1, id="y")),
                parts(part('{"n": 2}', index=1), part('{"n": 1}', index=0)),
            ],
            TWO,
        ),
        # Id and name in every part, or the id in a later one.
        ([parts(part('{"n"', "a", index=0, id="x")), parts(part(": 1}", "a", index=0, id="x"))], TWO[:1]),
        ([parts(part('{"n"', "a", index=0)), parts(part(": 1}", index=0, id="x"))], TWO[:1]),
        # huggingface/text-generation-inference#2794: the part by itself, not in a list.
        (
            [
                {"choices": [{"delta": {"tool_calls": part("", "a", index=0, id="")}}]},
                {"choices": [{"delta": {"tool_calls": part('{"n": 1}', index=0, id="")}}]},
            ],
            TWO[:1],
        ),
    ],
)
async def test_parts_of_calls_come_together_as_they_belong(
    server: Server, chunks: list[dict[str, Any]], calls: list[Any]
) -> None:
    reply = await streamed(server, *chunks, STOP)
    assert [(call.name, call.arguments) for call in reply.tool_calls] == calls
    chat = model(server)
    whole = None
    async for chunk in chat.astream("hi"):
        whole = chunk if whole is None else whole + chunk
    await chat.aclose()
    assert [(call["name"], call["args"]) for call in getattr(whole, "tool_calls", [])] == calls


@pytest.mark.parametrize("arguments", [{"n": 1}, '{"n": 1}'])
async def test_arguments_may_be_an_object(server: Server, arguments: Any) -> None:
    """huggingface/text-generation-inference#2136, ggml-org/llama.cpp#20198."""
    said = {"content": None, "tool_calls": [{"function": {"name": "a", "arguments": arguments}}]}
    reply = await replied(server, {"choices": [{"message": said, "finish_reason": "tool_calls"}]})
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("a", {"n": 1})]


def text(content: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": "1", "model": "m", "choices": [{"delta": {"content": content}, "finish_reason": finish}], **more}


@pytest.mark.parametrize(
    ("events", "tokens"),
    [
        ([text("hel"), text("lo", "stop"), "data: [DONE]"], 0),
        ([text("hel"), text("lo", "stop")], 0),
        # sgl-project/sglang#954: a null in every chunk, though a count was asked for.
        ([text("hel", usage=None), text("lo", "stop", usage=None), "data: [DONE]"], 0),
        # theopenco/llmgateway#2861: details ahead of the count.
        ([text("hel", usage={"prompt_tokens_details": {}}), text("lo", "stop"), {"choices": [], "usage": USAGE}], 7),
        # sgl-project/sglang#3912: a reason that is empty until there is one.
        ([text("hel", ""), text("lo", "stop"), {"choices": [], "usage": USAGE}], 7),
        # anomalyco/opencode#42918: chunks with nothing in them, without id and model, and more behind the end.
        (
            [
                {"id": "", "model": "", "choices": []},
                text("hello", "stop"),
                {"id": "", "model": "", "choices": [], "usage": USAGE},
                {"choices": [], "cost": "0"},
            ],
            7,
        ),
        ([{"choices": None, "usage": {"prompt_tokens": 5}}, text("hello", "stop", usage=USAGE)], 7),
        ([": waiting", "event: chunk", "", text("hello", "stop"), {"choices": [], "usage": USAGE}], 7),
    ],
)
async def test_a_stream_is_read_whatever_it_counts(
    server: Server, events: list[dict[str, Any] | str], tokens: int
) -> None:
    reply = await streamed(server, *events)
    assert (reply.content, reply.finish_reason, reply.usage.tokens) == ("hello", "stop", tokens)
    assert (reply.id, reply.model, len(server.paths)) == ("1", "m", 1)


async def test_a_whole_reply_is_taken_though_its_count_never_comes(server: Server) -> None:
    server.holds = True
    assert (await streamed(server, text("hello", "stop"))).content == "hello"


@pytest.mark.parametrize(
    ("message", "finish", "said"),
    [
        ({"content": None, "refusal": "I can't help with that."}, "stop", "refused to answer: I can't help with that."),
        ({"content": "", "refusal": "No.\nNever."}, "refusal", "refused to answer: No. Never."),
        ({"content": None}, "content_filter", "gave its reply up: content_filter"),
        ({"content": "First, take"}, "SAFETY", "gave its reply up: content_filter after 'First, take'"),
    ],
)
async def test_a_refusal_is_told_with_its_text_and_asked_for_once(
    server: Server, message: dict[str, Any], finish: str, said: str
) -> None:
    with pytest.raises(ModelError) as whole:
        await replied(server, {"choices": [{"message": message, "finish_reason": finish}], "usage": USAGE})
    assert (str(whole.value), whole.value.kind) == (f"{server.url} {said}", "refused")
    with pytest.raises(ModelError) as in_parts:
        await streamed(
            server,
            {"choices": [{"delta": message, "finish_reason": None}]},
            {"choices": [{"delta": {}, "finish_reason": finish}]},
        )
    assert (str(in_parts.value), len(server.paths)) == (f"{server.url} {said}", 2)


GOOD = {"message": {"content": "hello"}, "finish_reason": "stop"}


@pytest.mark.parametrize(
    ("body", "named", "came"),
    [
        ({"id": "1", "usage": USAGE}, "'choices' is missing or empty", '{"id": "1"'),
        ({"id": "1", "choices": []}, "'choices' is missing or empty", '"choices": []'),
        ({"choices": None}, "'choices'", '"choices": null'),
        ({"choices": [{**GOOD, "message": None}]}, "'choices.0.message'", '"message": null'),
        ({"choices": [{"finish_reason": "stop"}]}, "'choices.0.message' is missing", '"finish_reason"'),
        ({"choices": [{"message": {"content": "hello"}}]}, "'choices.0.finish_reason' is missing", "hello"),
        # openai/openai-openapi#20: nobody knows whether such a reply was cut off.
        ({"choices": [{**GOOD, "finish_reason": None}]}, "'choices.0.finish_reason'", "hello"),
        ({"choices": [{**GOOD, "finish_reason": "null"}]}, "'choices.0.finish_reason'", "hello"),
        ({"choices": [{**GOOD, "message": {"content": 3}}]}, "'choices.0.message.content'", '"content": 3'),
        (b"<html>\n<b>welcome</b>", "Invalid JSON", "'<html> <b>welcome</b>'"),
        (b"", "Invalid JSON", "it sent nothing"),
    ],
)
async def test_what_is_amiss_is_told_by_its_name_with_the_server_and_what_came(
    server: Server, body: Any, named: str, came: str
) -> None:
    with pytest.raises(ModelError) as raised:
        await replied(server, body)
    told = str(raised.value)
    assert told.startswith(f"{server.url} answered something that is not a chat completion: ")
    assert named in told and came in told and len(told) < 400 and "\n" not in told
    assert (raised.value.kind, len(server.paths)) == ("unusable", 1)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": {"message": "busy", "code": 429}}, "rate_limited"),
        ({"error": {"message": "busy", "code": "429"}}, "rate_limited"),
        ({"error": {"message": "busy", "type": "rate_limit_error"}}, "rate_limited"),
        ({"error": {"message": "too long", "code": "context_length_exceeded"}}, "refused"),
        ({"error": {"message": "no", "code": 400}, "choices": []}, "refused"),
        ({"error": "broke"}, "server_error"),
        ({"choices": [{**GOOD, "error": {"message": "broke", "code": 502}}]}, "server_error"),
    ],
)
async def test_an_error_within_a_success_has_its_own_kind(server: Server, body: Any, kind: ModelFailure) -> None:
    with pytest.raises(ModelError, match="failed in the middle of its reply: ") as raised:
        await replied(server, body)
    assert raised.value.kind == kind
    with pytest.raises(ModelError) as raised:
        await streamed(server, text("hel"), body)
    assert raised.value.kind == kind


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (
            "/openai/deployments/mini?api-version=2024-10-21",
            "/openai/deployments/mini/chat/completions?api-version=2024-10-21",
        ),
        ("/openai/v1?api-version=preview", "/openai/v1/chat/completions?api-version=preview"),
        ("/v1/chat/completions", "/v1/chat/completions"),
    ],
)
async def test_an_address_keeps_what_a_server_wants_in_it(server: Server, path: str, asked: str) -> None:
    server.body = json.dumps({"choices": [GOOD]}).encode()
    chat = model(server, path, api_key="sk-key")
    await chat.complete(REQUEST)
    await chat.aclose()
    assert server.paths == [asked]
    assert ("api-key: sk-key" in server.heads[0]) == ("api-version" in path)
