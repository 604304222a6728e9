"""The chat client against a real HTTP server that misbehaves."""

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from pydantic import SecretStr

from journeyman.agents.model import Model, ModelReply, ModelRequest, StreamingModel
from journeyman.runtime.models.vllm import ChatVLLM
from journeyman.traces.errors import PASSING, ConfigError, ModelError, ModelFailure
from journeyman.traces.messages import Message, ToolCall

REQUEST = ModelRequest(policy="worker@1", messages=(Message(role="user", content="hi"),), seed=3)
KEY = "sk-very-secret"


def completion(**changes: Any) -> bytes:
    body = {
        "id": "chatcmpl-1",
        "model": "worker@1",
        "choices": [
            {
                "message": {"role": "assistant", "content": "hello"},
                "finish_reason": "stop",
                "token_ids": [7, 8],
                "logprobs": {"content": [{"token": "hel", "logprob": -0.5}, {"token": "lo", "logprob": -0.25}]},
            }
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
        "prompt_token_ids": [1, 2, 3, 4, 5],
    }
    return json.dumps(body | changes).encode()


def answer(status: int, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


OK = answer(200, completion())


def ended(finish_reason: str) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": "hel"}, "finish_reason": finish_reason}]}


def refusal(status: int, message: str) -> bytes:
    return answer(status, json.dumps({"error": {"message": message, "type": "E", "code": status}}).encode())


class Seen:
    """A request as the server saw it."""

    def __init__(self, head: str, body: bytes) -> None:
        self.path = head.split(" ")[1]
        self.headers = dict(line.split(": ", 1) for line in head.lower().split("\r\n")[1:] if line)
        self.body: dict[str, Any] = json.loads(body)


class Server:
    """A server on a socket that gives the next of its replies to each request, the last one for ever."""

    def __init__(self) -> None:
        self.replies: list[bytes | float | list[bytes]] = [OK]
        """Bytes to send; b"" drops the connection, a number waits as many seconds and then drops it, and a list is sent
        bit by bit, a tenth of a second apart."""
        self.holds = False
        """Whether it keeps a connection when everything is sent, until the client closes it."""
        self.requests: list[Seen] = []
        self.asked = asyncio.Event()
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
            self.requests.append(Seen(head.strip(), await reader.readexactly(length)))
            self.asked.set()
            reply = self.replies[0] if len(self.replies) == 1 else self.replies.pop(0)
            if isinstance(reply, float):
                await asyncio.sleep(reply)
                return
            pause_s = 0.1 if isinstance(reply, list) else 0.0
            for part in reply if isinstance(reply, list) else [reply]:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
            if self.holds:
                await reader.read()
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    there = Server()
    listener = await asyncio.start_server(there.handle, "127.0.0.1", 0)
    there.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield there


Connect = Callable[..., ChatVLLM]


@pytest.fixture
async def connect(server: Server) -> AsyncIterator[Connect]:
    opened: list[ChatVLLM] = []

    def make(**fields: Any) -> ChatVLLM:
        opened.append(ChatVLLM(**{"base_url": server.url, "retry_wait_s": 0.0, **fields}))
        return opened[-1]

    yield make
    for model in opened:
        await model.aclose()


async def refused(asked: Awaitable[Any]) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await asked
    assert "\n" not in str(caught.value)
    return caught.value


async def test_a_reply_keeps_tokens_logprobs_usage_and_who_answered(connect: Connect) -> None:
    model: Model = connect()
    reply = await model.complete(REQUEST)
    assert (reply.content, reply.model, reply.finish_reason, reply.id) == ("hello", "worker@1", "stop", "chatcmpl-1")
    assert (reply.prompt_token_ids, reply.token_ids, reply.logprobs) == ((1, 2, 3, 4, 5), (7, 8), (-0.5, -0.25))
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.cached_tokens) == (5, 2, 4)
    assert (model.provider, model.demonstrates) == ("vllm", False)


async def test_a_request_carries_policy_schema_seed_trace_and_key(server: Server, connect: Connect) -> None:
    schema = {"type": "object"}
    traced = REQUEST.model_copy(update={"json_schema": schema, "traceparent": "00-aa-bb-01", "max_tokens": 9})
    await connect(api_key=SecretStr(KEY)).complete(traced)
    (seen,) = server.requests
    assert seen.path == "/v1/chat/completions"
    assert {key: seen.body[key] for key in ("model", "seed", "max_tokens", "temperature")} == {
        "model": "worker@1",
        "seed": 3,
        "max_tokens": 9,
        "temperature": 0.0,
    }
    assert seen.body["logprobs"] is True and seen.body["return_token_ids"] is True
    assert seen.body["response_format"]["json_schema"]["schema"] == schema
    assert seen.headers["traceparent"] == "00-aa-bb-01"
    assert len(seen.headers["x-request-id"]) == 32
    assert seen.headers["authorization"] == f"bearer {KEY}"


async def test_a_tool_call_in_the_history_is_sent_as_valid_json(server: Server, connect: Connect) -> None:
    call = ToolCall(id="c1", name="look_up", arguments={"query": "høst"})
    said = Message(role="assistant", content="", tool_calls=(call,))
    found = Message(role="tool", content="autumn", tool_call_id="c1")
    await connect().complete(REQUEST.model_copy(update={"messages": (said, found)}))
    sent = server.requests[0].body["messages"]
    assert json.loads(sent[0]["tool_calls"][0]["function"]["arguments"]) == {"query": "høst"}
    assert sent[1] == {"role": "tool", "content": "autumn", "tool_call_id": "c1"}


@pytest.mark.parametrize("trouble", [refusal(429, "busy"), refusal(500, "broke"), answer(503, b"oops"), b"", 5.0])
async def test_trouble_that_may_pass_is_tried_again(server: Server, connect: Connect, trouble: bytes | float) -> None:
    server.replies = [trouble, trouble, OK]
    reply = await connect().complete(REQUEST.model_copy(update={"timeout_s": 0.2}))
    assert reply.content == "hello"
    assert len({seen.headers["x-request-id"] for seen in server.requests}) == 3


async def test_retries_are_bounded(server: Server, connect: Connect) -> None:
    server.replies = [refusal(500, "engine is dead")]
    error = await refused(connect(retries=2).complete(REQUEST))
    assert (error.status, error.retryable, len(server.requests)) == (500, True, 3)
    assert "engine is dead" in str(error)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (refusal(400, "too long"), "refused"),
        (refusal(401, "who are you"), "refused"),
        (refusal(404, "no such model"), "refused"),
        (refusal(408, "slow client"), "timeout"),
        (refusal(429, "busy"), "rate_limited"),
        (refusal(500, "broke"), "server_error"),
        (refusal(504, "gave up"), "timeout"),
        (answer(302, b""), "refused"),
        (answer(200, b"<html>"), "unusable"),
        (refusal(200, "the model behind it broke"), "server_error"),
        (answer(200, completion(**ended("abort"))), "server_error"),
        (answer(200, completion(**ended("error"))), "server_error"),
        (answer(200, completion(**ended("content_filter"))), "refused"),
        (b"", "unreachable"),
        (5.0, "timeout"),
        (OK[:-20], "unreachable"),
        (OK.replace(b"Connection: close", b"Content-Encoding: gzip"), "unusable"),
    ],
)
async def test_every_failure_has_its_kind(
    server: Server, connect: Connect, reply: bytes | float, kind: ModelFailure
) -> None:
    server.replies = [reply]
    error = await refused(connect(retries=0).complete(REQUEST.model_copy(update={"timeout_s": 0.3})))
    assert (error.kind, error.retryable) == (kind, kind in PASSING)


DAY = b"Wed, 21 Oct 2026 07:28:"


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        (b"0.4", True),
        (DAY + b"01 GMT\r\nDate: " + DAY + b"00 GMT", True),
        (DAY + b"00 GMT\r\nDate: " + DAY + b"01 GMT", False),
        (DAY + b"01 GMT", False),
        (b"soon", False),
        (b"nan", False),
        (b"Wed, 21 Oct 99999999999999999999 07:28:01 GMT\r\nDate: " + DAY + b"00 GMT", False),
    ],
)
async def test_a_server_that_says_how_long_to_wait_is_left_alone(
    server: Server, connect: Connect, asked: bytes, waits: bool
) -> None:
    server.replies = [refusal(429, "busy").replace(b"Connection: close", b"Retry-After: " + asked), OK]
    began = time.monotonic()
    await connect(retries=1).complete(REQUEST)
    assert (time.monotonic() - began >= 0.4) is waits


async def test_those_that_a_server_sent_away_together_do_not_all_come_back_at_once(
    server: Server, connect: Connect
) -> None:
    server.replies = [refusal(429, "busy").replace(b"Connection: close", b"Retry-After: 0.4"), OK]
    random.seed(0)  # Which makes the wait of its own 0.34 s.
    began = time.monotonic()
    await connect(retries=1, retry_wait_s=0.2).complete(REQUEST)
    assert time.monotonic() - began >= 0.7


async def test_a_text_that_no_server_could_read_is_refused(server: Server, connect: Connect) -> None:
    broken = (Message(role="user", content="half a pair: \ud800"),)
    error = await refused(connect().complete(REQUEST.model_copy(update={"messages": broken})))
    assert (error.kind, server.requests) == ("refused", [])


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_refusal_is_not_tried_again(server: Server, connect: Connect, status: int) -> None:
    server.replies = [refusal(status, "no\nand\nno")]
    error = await refused(connect().complete(REQUEST))
    assert (error.status, error.retryable, len(server.requests)) == (status, False, 1)


async def test_an_unknown_policy_is_named(server: Server, connect: Connect) -> None:
    server.replies = [refusal(404, "The model `worker@1` does not exist.")]
    assert "policy 'worker@1' is not loaded" in str(await refused(connect().complete(REQUEST)))


@pytest.mark.parametrize(
    "nonsense",
    [
        answer(200, b"<html>welcome to nginx</html>", "text/html"),
        answer(200, b'{"id": "chatcmpl-1", "choi'),
        answer(200, b"[]"),
        answer(200, completion(choices=[])),
        answer(200, completion(choices=None)),
        answer(200, completion(choices=[{"message": None, "finish_reason": "stop"}])),
        answer(200, completion(choices=[{"message": {"content": "hello"}}])),
    ],
)
async def test_nonsense_is_said_to_be_no_chat_completion(server: Server, connect: Connect, nonsense: bytes) -> None:
    server.replies = [nonsense]
    error = await refused(connect().complete(REQUEST))
    assert "answered something that is not a chat completion" in str(error)
    assert (error.retryable, len(server.requests)) == (False, 1)


def drips(reply: bytes) -> list[bytes]:
    return [reply[start : start + 40] for start in range(0, len(reply), 40)]


async def test_a_reply_that_drips_in_is_given_up_in_time(server: Server, connect: Connect) -> None:
    server.replies = [drips(OK)]
    error = await refused(connect(retries=0).complete(REQUEST.model_copy(update={"timeout_s": 0.3})))
    assert error.kind == "timeout"


async def test_a_slow_server_is_given_up_in_time(server: Server, connect: Connect) -> None:
    server.replies = [5.0]
    began = time.monotonic()
    error = await refused(connect(retries=1).complete(REQUEST.model_copy(update={"timeout_s": 0.2})))
    assert "did not answer within 0.2 s" in str(error)
    assert time.monotonic() - began < 2


async def test_a_server_that_is_down_is_said_to_be_unreachable(connect: Connect) -> None:
    error = await refused(connect(base_url="http://127.0.0.1:9", retries=1).complete(REQUEST))
    assert "http://127.0.0.1:9 cannot be reached" in str(error)


async def test_a_cancelled_call_is_cancelled(server: Server, connect: Connect) -> None:
    server.replies = [5.0]
    call = asyncio.create_task(connect().complete(REQUEST))
    await server.asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_the_key_is_in_no_error_and_no_repr(server: Server, connect: Connect) -> None:
    server.replies = [refusal(400, f"bad key {KEY}")]
    model = connect(api_key=SecretStr(KEY))
    error = await refused(model.complete(REQUEST))
    assert KEY not in str(error) + repr(error) + repr(model)


@pytest.mark.parametrize("key", [f"{KEY}\nX-Other: 1", f"{KEY}\r{KEY}", f"{KEY}é"])
def test_a_key_that_no_header_can_hold_is_a_config_error_that_does_not_quote_it(key: str) -> None:
    with pytest.raises(ConfigError, match=r"the API key for http://models\.example holds a character") as caught:
        ChatVLLM(base_url="http://models.example", api_key=SecretStr(key))
    assert KEY not in str(caught.value)


async def test_the_end_of_a_line_behind_a_key_is_none_of_it(server: Server, connect: Connect) -> None:
    await connect(api_key=SecretStr(f"{KEY}\n")).complete(REQUEST)
    assert server.requests[0].headers["authorization"] == f"bearer {KEY}"


@pytest.mark.parametrize("address", ["localhost:8000", "", "ftp://host", "http://"])
def test_an_address_that_is_no_url_is_a_config_error(address: str) -> None:
    with pytest.raises(ConfigError, match="http://host:port"):
        ChatVLLM(base_url=address)


async def test_langchain_messages_go_out_and_come_back(server: Server, connect: Connect) -> None:
    call = {"name": "look_up", "args": {"query": "x"}, "id": "c1"}
    messages = [
        SystemMessage("be brief"),
        HumanMessage([{"type": "text", "text": "hi"}]),
        AIMessage("", tool_calls=[call]),
        ToolMessage("found", tool_call_id="c1"),
    ]
    reply = await connect(model="worker@1").ainvoke(messages, stop=["\n"], temperature=0.5, top_p=1.0)
    assert reply.content == "hello"
    assert reply.response_metadata["model_name"] == "worker@1"
    assert reply.response_metadata["finish_reason"] == "stop"
    assert reply.usage_metadata is not None and reply.usage_metadata["total_tokens"] == 7
    assert reply.usage_metadata["input_token_details"]["cache_read"] == 4
    assert reply.additional_kwargs["token_ids"] == [7, 8]
    assert reply.additional_kwargs["logprobs"] == [-0.5, -0.25]
    assert len(reply.additional_kwargs["prompt_token_ids"]) == 5
    body = server.requests[0].body
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "tool"]
    assert (body["model"], body["stop"], body["temperature"], body["top_p"]) == ("worker@1", ["\n"], 0.5, 1.0)


async def test_a_picture_is_refused(connect: Connect) -> None:
    picture = HumanMessage([{"type": "image_url", "image_url": {"url": "http://x/y.png"}}])
    with pytest.raises(ConfigError, match="text only"):
        await connect().ainvoke([picture])


async def test_invoke_works_without_an_event_loop(server: Server, connect: Connect) -> None:
    server.replies = [refusal(500, "once"), OK]
    reply = await asyncio.to_thread(connect().invoke, "hi")
    assert (reply.content, reply.additional_kwargs["token_ids"]) == ("hello", [7, 8])


async def test_invoke_gives_up_a_reply_that_drips_in(server: Server, connect: Connect) -> None:
    server.replies = [drips(OK)]
    error = await refused(asyncio.to_thread(connect(retries=0, timeout_s=0.3).invoke, "hi"))
    assert error.kind == "timeout"


def events(*chunks: dict[str, Any]) -> bytes:
    lines = "".join(f"data: {json.dumps({'id': 'chatcmpl-1', 'model': 'base'} | chunk)}\n\n" for chunk in chunks)
    return answer(200, (lines + "data: [DONE]\n\n").encode(), "text/event-stream")


def token(text: str, number: int, finish_reason: str | None = None) -> dict[str, Any]:
    logprobs = {"content": [{"token": text, "logprob": -0.5}]}
    choice = {"delta": {"content": text}, "token_ids": [number], "logprobs": logprobs, "finish_reason": finish_reason}
    return {"choices": [choice]}


async def test_streamed_pieces_add_up_to_the_reply(server: Server, connect: Connect) -> None:
    first = {"choices": [{"delta": {"role": "assistant", "content": ""}}], "prompt_token_ids": [1, 2]}
    last = {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 2}}
    server.replies = [refusal(503, "not yet"), events(first, token("hel", 7), token("lo", 8, "stop"), last)]
    whole: AIMessageChunk | None = None
    async for chunk in connect().astream("hi"):
        assert isinstance(chunk, AIMessageChunk)
        whole = chunk if whole is None else whole + chunk
    assert whole is not None and whole.content == "hello"
    assert whole.additional_kwargs == {"prompt_token_ids": [1, 2], "token_ids": [7, 8], "logprobs": [-0.5, -0.5]}
    assert whole.response_metadata["model_name"] == "base"
    assert whole.usage_metadata is not None and whole.usage_metadata["total_tokens"] == 4


async def test_a_stream_that_turns_to_nonsense_is_a_model_error(server: Server, connect: Connect) -> None:
    server.replies = [answer(200, b"data: {oops\n\n", "text/event-stream")]

    async def read() -> None:
        async for _ in connect().astream("hi"):
            pass

    assert "not a chat completion" in str(await refused(read()))


TOOL = {"name": "add", "description": "adds", "parameters": {"type": "object", "properties": {}}}
WITH_TOOLS = REQUEST.model_copy(update={"tools": (TOOL,)})


def called(*arguments: str, content: str | None = None) -> bytes:
    calls = [
        {"id": f"c{number}", "type": "function", "function": {"name": "add", "arguments": text}}
        for number, text in enumerate(arguments)
    ]
    message = {"role": "assistant", "content": content, "tool_calls": calls}
    return answer(200, completion(choices=[{"message": message, "finish_reason": "tool_calls"}]))


async def test_tools_go_out_and_calls_come_back(server: Server, connect: Connect) -> None:
    server.replies = [called('{"a": 1}')]
    reply = await connect().complete(WITH_TOOLS)
    assert [(call.id, call.name, call.arguments) for call in reply.tool_calls] == [("c0", "add", {"a": 1})]
    assert server.requests[0].body["tools"] == [{"type": "function", "function": {**TOOL, "strict": True}}]


async def test_a_call_that_the_server_left_in_the_text_is_no_answer(server: Server, connect: Connect) -> None:
    left = completion(choices=[{"message": {"content": '<tool_call>{"name": "add", '}, "finish_reason": "stop"}])
    server.replies = [answer(200, left)]
    assert (await connect().complete(WITH_TOOLS)).unreadable is not None
    assert (await connect().complete(REQUEST)).unreadable is None


LAST = {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 2}}


async def streamed(model: StreamingModel, request: ModelRequest = REQUEST) -> tuple[ModelReply, list[str]]:
    """The reply, and the pieces of it that were shown and not taken back."""
    shown: list[str] = []
    return await model.stream_reply(request, shown.append, shown.clear), shown


async def test_a_streamed_reply_is_shown_as_it_is_written_and_comes_whole(server: Server, connect: Connect) -> None:
    first = {"choices": [{"delta": {"role": "assistant", "content": ""}}], "prompt_token_ids": [1, 2]}
    # A line separator is a character of the text, and no end of an event.
    server.replies = [refusal(503, "not yet"), events(first, token("hel\u2028", 7), token("lo", 8, "stop"), LAST)]
    reply, shown = await streamed(connect())
    assert (reply.content, shown, reply.finish_reason) == ("hel\u2028lo", ["hel\u2028", "lo"], "stop")
    assert (reply.prompt_token_ids, reply.token_ids, reply.logprobs) == ((1, 2), (7, 8), (-0.5, -0.5))
    assert reply.usage.tokens == 4
    assert server.requests[-1].body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (events(token("hel", 7)), "unreachable"),
        (events(token("hel", 7), {"error": {"message": "the engine died", "code": 500}}), "server_error"),
        (events(token("hel", 7))[:-9], "unreachable"),
        (events(token("hel", 7, "abort"), LAST), "server_error"),
    ],
)
async def test_a_stream_that_breaks_is_begun_again_and_what_it_showed_is_taken_back(
    server: Server, connect: Connect, end: bytes, kind: ModelFailure
) -> None:
    server.replies = [end, events(token("lo", 8, "stop"), LAST)]
    reply, shown = await streamed(connect())
    assert (reply.content, shown, len(server.requests)) == ("lo", ["lo"], 2)
    server.replies = [end]
    assert (await refused(streamed(connect(retries=1)))).kind == kind


@pytest.mark.parametrize(
    "nonsense", [events(token("hel", 7), {"oops": 1}), answer(200, b"<html>no</html>", "text/html")]
)
async def test_a_stream_of_nonsense_is_not_begun_again(server: Server, connect: Connect, nonsense: bytes) -> None:
    server.replies = [nonsense]
    assert (await refused(streamed(connect()))).kind == "unusable"
    assert len(server.requests) == 1


async def test_langchain_is_not_given_a_part_of_a_reply_as_the_whole(server: Server, connect: Connect) -> None:
    server.replies = [events(token("hel", 7))]

    async def read() -> None:
        async for _ in connect().astream("hi"):
            pass

    assert (await refused(read())).kind == "unreachable"


async def test_a_stream_that_drips_is_given_up_in_time(server: Server, connect: Connect) -> None:
    server.replies = [drips(events(token("hel", 7), token("lo", 8, "stop"), LAST))]
    error = await refused(streamed(connect(retries=0), REQUEST.model_copy(update={"timeout_s": 0.3})))
    assert error.kind == "timeout"


WHOLE = events(token("hel", 7), token("lo", 8, "stop"), LAST)
"""A stream whose server says its length and ends it with `[DONE]`."""


def endless(stream: bytes) -> bytes:
    """The same stream from a server that promises more."""
    return re.sub(rb"Content-Length: \d+", b"Content-Length: 9999", stream)


@pytest.mark.parametrize("stream", [WHOLE, WHOLE.removesuffix(b"data: [DONE]\n\n")])
@pytest.mark.parametrize("holds", [False, True])
async def test_a_reply_that_is_whole_is_taken_though_the_server_does_not_end_the_stream(
    server: Server, connect: Connect, stream: bytes, holds: bool
) -> None:
    server.replies, server.holds = [endless(stream)], holds
    model = connect(retries=0, timeout_s=3.0)
    reply, _ = await streamed(model, REQUEST.model_copy(update={"timeout_s": 3.0}))
    assert (reply.content, reply.usage.tokens) == ("hello", 4)
    assert "".join([str(chunk.content) async for chunk in model.astream("hi")]) == "hello"


async def test_a_count_of_tokens_before_the_end_does_not_end_a_stream(server: Server, connect: Connect) -> None:
    """Some servers say how many there are so far, some say the prompt's at once."""
    early = {"usage": {"prompt_tokens": 2, "completion_tokens": 0}}
    server.replies = [events(token("hel", 7) | early, token("lo", 8, "stop"), LAST)]
    reply, _ = await streamed(connect())
    assert (reply.content, reply.usage.output_tokens) == ("hello", 2)


async def test_a_part_of_a_reply_that_is_said_to_be_done_is_given_up_at_once(server: Server, connect: Connect) -> None:
    server.replies, server.holds = [endless(events(token("hel", 7)))], True
    error = await refused(streamed(connect(retries=0), REQUEST.model_copy(update={"timeout_s": 3.0})))
    assert error.kind == "unreachable"


async def test_a_connection_serves_one_streamed_reply_after_the_other() -> None:
    body = WHOLE.split(b"\r\n\r\n", 1)[1]
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:-14], body[-14:])]
    connections: list[asyncio.StreamReader] = []
    left = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(reader)
        with suppress(asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for part in (*chunks, b"0\r\n\r\n"):
                    writer.write(part)
                    await asyncio.sleep(0.01)  # Each arrives by itself.
        writer.close()
        await writer.wait_closed()
        left.set()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as listener:
        model = ChatVLLM(base_url=f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
        replies = [await streamed(model) for _ in range(3)]
        await model.aclose()
        await left.wait()
    assert [reply.content for reply, _ in replies] == ["hello"] * 3
    assert len(connections) == 1


async def test_langchain_sees_the_calls(server: Server, connect: Connect) -> None:
    server.replies = [called('{"a": 1}'), called("{")]
    reply = await connect().ainvoke("hi", tools=[{"type": "function", "function": TOOL}])
    assert [(call["name"], call["args"]) for call in reply.tool_calls] == [("add", {"a": 1})]
    assert (await refused(connect().ainvoke("hi"))).kind == "unusable"
