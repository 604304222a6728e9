"""What a server isn't sent: a seed that could end it, and parameters that it refuses."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.worker import write_answer
from journeyman.runtime.models.chat_withheld import may_be_cpu
from journeyman.runtime.models.vllm import ChatVLLM
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import read_spans
from journeyman.traces.errors import ModelError
from journeyman.traces.messages import Message

SAMPLED = ModelRequest(
    policy="m", messages=(Message(role="user", content="hi"),), seed=7, temperature=0.8, timeout_s=5.0, max_tokens=9
)
GREEDY = SAMPLED.model_copy(update={"temperature": 0.0})


def metrics(**labels: str) -> str:
    """As vLLM gives them, in part."""
    listed = ",".join(f'{name}="{value}"' for name, value in {"cache_dtype": "auto", "engine": "0", **labels}.items())
    return (
        f"# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{{{listed}}} 1.0\nvllm:num_requests_running 0.0\n"
    )


CHOSEN = metrics(block_size="32", user_specified_block_size="True", kv_cache_memory_bytes="1073741824")
CUDA = metrics(block_size="16", user_specified_block_size="False", kv_cache_memory_bytes="None")
CPU = metrics(block_size="128", user_specified_block_size="False", kv_cache_memory_bytes="1073741824")


class Server:
    """Somebody else's: it says who it is, and refuses what it does not take."""

    def __init__(self) -> None:
        self.url = ""
        self.version: str | None = None
        self.metrics = ""
        self.hangs: set[str] = set()
        """Paths at which it hangs up."""
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.refuses: dict[str, dict[str, Any]] = {}
        """By key of the body: with what error."""
        self.content = "hello"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        path = head.split(" ")[1]
        self.asked.append(path)
        if path not in self.hangs:
            length = int(head.split("content-length: ")[1].split("\r\n")[0]) if head.startswith("post") else 0
            status, body = self.reply(path, await reader.readexactly(length))
            kept = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(body))
            writer.write(kept + body)
        writer.close()

    def reply(self, path: str, sent: bytes) -> tuple[int, bytes]:
        if path.endswith("/version"):
            return (404, b"{}") if self.version is None else (200, json.dumps({"version": self.version}).encode())
        if path.endswith("/metrics"):
            return 200, self.metrics.encode()
        body = json.loads(sent)
        self.bodies.append(body)
        for key, error in self.refuses.items():
            if key in body:
                return 400, json.dumps({"error": error}).encode()
        said = {"role": "assistant", "content": self.content}
        choice = {"index": 0, "finish_reason": "stop", "delta" if body.get("stream") else "message": said}
        reply = {"id": "1", "model": "m", "choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
        text = json.dumps(reply)
        return 200, (f"data: {text}\n\ndata: [DONE]\n\n" if body.get("stream") else text).encode()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    there = Server()
    listener = await asyncio.start_server(there.handle, "127.0.0.1", 0)
    there.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield there


@pytest.fixture
async def model(server: Server) -> AsyncIterator[ChatVLLM]:
    chat = ChatVLLM(base_url=f"{server.url}/v1", retries=0)
    yield chat
    await chat.aclose()


async def streamed(model: ChatVLLM, request: ModelRequest) -> ModelReply:
    return await model.stream_reply(request, lambda _: None, lambda: None)


@pytest.mark.parametrize(
    ("version", "told", "seeded"),
    [
        (None, "", True),
        ("0.32.0+cu129", "", True),
        ("0.11.1rc2.dev185+gabc1234.cu129", "", True),
        ("0.32.0+rocm700", CPU, True),
        ("0.32.0+journeyman", CHOSEN, True),
        ("0.32.0+cpu.journeyman", CPU, True),
        ("0.32.0", CUDA, True),
        ("0.11.0", metrics(block_size="16", cpu_kvcache_space_bytes="None"), True),
        ("0.32.0+cpu", CUDA, False),
        ("0.11.1rc2.dev185+gabc1234.cpu", "", False),
        ("0.32.0", CPU, False),
        ("0.32.0", CHOSEN, False),
        ("0.11.0", metrics(block_size="16", cpu_kvcache_space_bytes="4294967296"), False),
        ("0.32.0", "", False),
        ("0.32.0", "vllm:num_requests_running 0.0", False),
    ],
)
async def test_a_seed_goes_where_a_cpu_build_with_the_fault_is_ruled_out(
    server: Server, model: ChatVLLM, version: str | None, told: str, seeded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server.version, server.metrics = version, told
    assert version is None or may_be_cpu(version, told) is not seeded
    replies = [await model.complete(SAMPLED), await model.complete(SAMPLED), await streamed(model, SAMPLED)]
    assert [body.get("seed") for body in server.bodies] == [7 if seeded else None] * 3
    assert [body["temperature"] for body in server.bodies] == [0.8] * 3
    assert [set(reply.unsent) for reply in replies] == [set() if seeded else {"seed"}] * 3
    assert server.asked.count("/version") == 1 and server.asked.count("/metrics") <= 1
    notes = [record.getMessage() for record in caplog.records]
    assert len(notes) == (not seeded)
    if notes:
        assert server.url in notes[0] and f"vLLM {version} may be a CPU build" in notes[0]


async def test_who_asks_for_the_likeliest_token_does_not_ask_who_answers(server: Server, model: ChatVLLM) -> None:
    server.version = "0.32.0+cpu"
    unseeded = SAMPLED.model_copy(update={"seed": None})
    assert not (await model.complete(GREEDY)).unsent and not (await model.complete(unseeded)).unsent
    assert server.asked == ["/v1/chat/completions"] * 2 and server.bodies[0]["seed"] == 7


async def test_a_server_that_does_not_say_who_it_is_is_asked_again(server: Server, model: ChatVLLM) -> None:
    server.version, server.hangs = "0.32.0+cu129", {"/version"}
    assert (await model.complete(SAMPLED)).unsent == {"seed": "the server did not say who it is"}
    server.hangs = set()
    assert (await model.complete(SAMPLED)).unsent == {}
    assert [body.get("seed") for body in server.bodies] == [None, 7]


async def test_many_samples_at_once_are_noted_once(
    server: Server, model: ChatVLLM, caplog: pytest.LogCaptureFixture
) -> None:
    server.version = "0.32.0+cpu"
    replies = await asyncio.gather(*(model.complete(SAMPLED) for _ in range(16)))
    assert all(reply.unsent for reply in replies) and not any("seed" in body for body in server.bodies)
    assert len(caplog.records) == 1


async def test_a_server_below_a_path_says_there_who_it_is(server: Server) -> None:
    server.version = "0.32.0+cpu"
    chat = ChatVLLM(base_url=f"{server.url}/qwen/v1/", retries=0)
    assert (await chat.complete(SAMPLED)).unsent
    await chat.aclose()
    assert server.asked == ["/qwen/version", "/qwen/v1/chat/completions"]


async def test_the_record_of_a_run_says_that_it_was_not_seeded(server: Server, tmp_path: Path) -> None:
    server.version, server.content = "0.32.0+cpu", write_answer("fine")
    workspace = Workspace(tmp_path / ".journeyman")
    (tmp_path / PROJECT_FILE).write_text(f'[models.big]\nurl = "{server.url}"\nmodel = "m"\n')
    crew = Crew(name="office", orchestrator=None, workers=(Agent(name="clerk", instructions="Work.", model="big"),))
    for temperature in (0.8, 0.0):
        async with Runtime.open(crew, workspace=workspace, seed=7, temperature=temperature) as runtime:
            assert (await runtime.run("hi")).status == "ok"
    sampled, greedy = (span for span in read_spans(workspace.spans) if span.attributes.get(a.OPERATION) == "chat")
    assert a.REQUEST_SEED not in sampled.attributes and sampled.attributes[a.REQUEST_TEMPERATURE] == 0.8
    assert "may be a CPU build" in json.loads(str(sampled.attributes[a.UNSENT]))["seed"]
    assert greedy.attributes[a.REQUEST_SEED] == 7 and a.UNSENT not in greedy.attributes


def unsupported(key: str, text: str | None = None, **error: Any) -> dict[str, Any]:
    said = text or f"Unsupported parameter: '{key}' is not supported with this model."
    return {"message": said, "type": "invalid_request_error", "param": key, "code": "unsupported_parameter", **error}


MAX_TOKENS = unsupported(
    "max_tokens",
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
)
TEMPERATURE = unsupported(
    "temperature",
    "Unsupported value: 'temperature' does not support 0.8 with this model. Only the default (1) value is supported.",
    code="unsupported_value",
)


async def test_a_model_that_reasons_is_asked_in_its_own_words_from_the_second_request_on(
    server: Server, model: ChatVLLM, caplog: pytest.LogCaptureFixture
) -> None:
    server.refuses = {"max_tokens": MAX_TOKENS, "temperature": TEMPERATURE}
    first = await model.complete(SAMPLED)
    assert (first.content, first.unsent) == ("hello", {"temperature": "the server refuses it"})
    assert len(server.bodies) == 3 and len(caplog.records) == 2
    again = [await model.complete(SAMPLED), await streamed(model, SAMPLED)]
    assert len(server.bodies) == 5 and all(reply.unsent == first.unsent for reply in again)
    for body in server.bodies[2:]:
        assert body["max_completion_tokens"] == 9 and not {"max_tokens", "temperature"} & body.keys()
    chunks = [chunk.content async for chunk in model.astream("hi", model="m")]
    assert "".join(map(str, chunks)) == "hello" and len(server.bodies) == 6 and len(caplog.records) == 2


async def test_a_stream_learns_too_and_another_model_of_the_server_is_asked_as_before(
    server: Server, model: ChatVLLM
) -> None:
    server.refuses = {"max_tokens": MAX_TOKENS}
    assert (await streamed(model, GREEDY)).content == "hello"
    server.refuses = {}
    await model.complete(GREEDY.model_copy(update={"policy": "other"}))
    assert "max_tokens" in server.bodies[-1] and "max_completion_tokens" in server.bodies[1]


async def test_many_requests_at_once_all_learn(server: Server, model: ChatVLLM) -> None:
    server.refuses = {"max_tokens": MAX_TOKENS, "temperature": TEMPERATURE}
    replies = await asyncio.gather(*(model.complete(GREEDY) for _ in range(8)))
    assert all(reply.content == "hello" for reply in replies)


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("temperature", unsupported("temperature")),
        ("temperature", unsupported("temperature", code=None)),
        ("max_tokens", unsupported("max_tokens", MAX_TOKENS["message"], param=None, code="invalid_request_body")),
        (
            "temperature",
            unsupported(
                "temperature",
                "litellm.UnsupportedParamsError: gpt-5 models don't support temperature=0.8. "
                "Only temperature=1 is supported.",
                type="None",
                param=None,
                code="400",
            ),
        ),
        (
            "seed",
            unsupported("seed", 'Invalid JSON payload received. Unknown name "seed": Cannot find field.', param=None),
        ),
        ("seed", unsupported("seed", "Unrecognized request argument supplied: seed", param=None, code=None)),
        ("stream_options", unsupported("stream_options", "Unrecognized request argument supplied: stream_options")),
    ],
)
async def test_a_refusal_is_understood_in_the_words_of_several_servers(
    server: Server, model: ChatVLLM, key: str, error: dict[str, Any]
) -> None:
    server.refuses = {key: error}
    reply = await streamed(model, SAMPLED)
    assert reply.content == "hello" and len(server.bodies) == 2 and key not in server.bodies[1]
    assert set(reply.unsent) == {key} & {"seed", "temperature"}


@pytest.mark.parametrize(
    "error",
    [
        unsupported("messages[0].role", "Unsupported value: 'messages[0].role' does not support 'system' for seed."),
        unsupported("response_format", "Invalid schema: 'seed' is not permitted.", code="invalid_value"),
        unsupported("model", "The model 'o9' is not supported.", code="model_not_found"),
        {"message": "max_tokens is too large: 9. This model supports at most 4 tokens.", "param": "max_tokens"},
    ],
)
async def test_any_other_refusal_is_told_as_it_is_and_asked_once(
    server: Server, model: ChatVLLM, error: dict[str, Any]
) -> None:
    server.refuses = {"messages": error}
    with pytest.raises(ModelError) as raised:
        await model.complete(GREEDY)
    assert str(raised.value) == f"{server.url} answered 400: {error['message']}" and len(server.bodies) == 1


async def test_a_server_that_refuses_the_other_name_too_is_not_asked_for_ever(server: Server, model: ChatVLLM) -> None:
    server.refuses = {"max_tokens": MAX_TOKENS, "max_completion_tokens": unsupported("max_completion_tokens")}
    with pytest.raises(ModelError, match="'max_completion_tokens' is not supported"):
        await model.complete(GREEDY)
    assert len(server.bodies) == 2
