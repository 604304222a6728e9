"""The chat client and the server's life on a real vLLM."""

import asyncio
import json
from pathlib import Path

import pytest
from langchain_core.messages import AIMessageChunk

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.runtime.config import ServerConfig
from journeyman.runtime.models.vllm import ChatVLLM
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.serving import server
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ModelError, ServerError
from journeyman.traces.messages import Message

# The first test pays for the start of the session's server.
pytestmark = [pytest.mark.serve, pytest.mark.timeout(600)]

REQUEST = ModelRequest(
    policy="base",
    messages=(Message(role="user", content="Name three colours."),),
    max_tokens=24,
    temperature=0.8,
    seed=11,
)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def ask(url: str, request: ModelRequest) -> ModelReply:
    model = ChatVLLM(base_url=url)
    try:
        return await model.complete(request)
    finally:
        await model.aclose()


async def test_every_token_comes_with_its_id_and_logprob(vllm_server: ServerState) -> None:
    reply = await ask(vllm_server.url, REQUEST.model_copy(update={"traceparent": TRACEPARENT}))
    assert reply.token_ids and reply.logprobs and reply.prompt_token_ids
    assert len(reply.token_ids) == len(reply.logprobs) == reply.usage.output_tokens
    assert len(reply.prompt_token_ids) == reply.usage.input_tokens
    assert all(value <= 0 for value in reply.logprobs)
    assert reply.model == "base" and reply.finish_reason in {"stop", "length"}


async def test_the_same_seed_gives_the_same_tokens_and_another_does_not(vllm_server: ServerState) -> None:
    """Which takes a server that is known to be one of ours: its version says so."""
    first, again, other = [
        await ask(vllm_server.url, REQUEST.model_copy(update={"seed": seed, "temperature": 1.0})) for seed in (1, 1, 2)
    ]
    assert first.token_ids == again.token_ids != other.token_ids and not first.unsent


async def test_sixty_four_seeded_samples_of_long_prompts_at_once_leave_the_server_alive(
    vllm_server: ServerState,
) -> None:
    """Prompts are prefilled in parts then, which ended vLLM's engine for everybody."""
    prompts = [" ".join(f"word{part}{number}" for part in range(120)) for number in range(8)]
    model = ChatVLLM(base_url=vllm_server.url, retries=0)

    async def sample(seed: int) -> ModelReply:
        asked = (Message(role="user", content=prompts[seed % 8]),)
        changes = {"messages": asked, "seed": seed, "temperature": 1.0, "max_tokens": 4, "timeout_s": 300.0}
        return await model.complete(REQUEST.model_copy(update=changes))

    try:
        replies = await asyncio.gather(*map(sample, range(64)))
    finally:
        await model.aclose()
    assert all(reply.token_ids and not reply.unsent for reply in replies)


async def test_a_schema_is_obeyed(vllm_server: ServerState) -> None:
    colour = {"type": "string", "enum": ["red", "green", "blue"]}
    schema = {"type": "object", "properties": {"colour": colour}, "required": ["colour"], "additionalProperties": False}
    reply = await ask(vllm_server.url, REQUEST.model_copy(update={"json_schema": schema, "max_tokens": 64}))
    assert json.loads(reply.content)["colour"] in {"red", "green", "blue"}


async def test_a_reply_that_is_cut_off_says_so(vllm_server: ServerState) -> None:
    reply = await ask(vllm_server.url, REQUEST.model_copy(update={"max_tokens": 2}))
    assert (reply.finish_reason, reply.usage.output_tokens) == ("length", 2)


async def test_a_streamed_reply_is_the_reply_itself(vllm_server: ServerState) -> None:
    model, shown = ChatVLLM(base_url=vllm_server.url), list[str]()
    greedy = REQUEST.model_copy(update={"temperature": 0.0})
    streamed = await model.stream_reply(greedy, shown.append, shown.clear)
    whole = await model.complete(greedy)
    await model.aclose()
    assert len(shown) > 1 and "".join(shown) == streamed.content == whole.content
    assert (streamed.token_ids, streamed.prompt_token_ids) == (whole.token_ids, whole.prompt_token_ids)
    assert streamed.logprobs is not None and len(streamed.logprobs) == len(streamed.token_ids or ())
    assert streamed.usage.output_tokens == whole.usage.output_tokens


COLOURS = {"type": "string", "enum": ["red", "green", "blue"]}
PAINT = {
    "name": "paint",
    "description": "Paints the wall.",
    "parameters": {
        "type": "object",
        "properties": {"colour": COLOURS},
        "required": ["colour"],
        "additionalProperties": False,
    },
}
WITH_TOOLS = REQUEST.model_copy(update={"tools": (PAINT,), "max_tokens": 64, "parallel_calls": False})


async def test_a_model_without_a_template_for_it_can_be_made_to_call_a_tool(vllm_server: ServerState) -> None:
    reply = await ask(vllm_server.url, WITH_TOOLS.model_copy(update={"tool_choice": "required"}))
    (call,) = reply.tool_calls
    assert call.name == "paint" and call.arguments["colour"] in COLOURS["enum"] and call.id
    assert (reply.unreadable, reply.finish_reason) == (None, "tool_calls")
    assert reply.token_ids and len(reply.token_ids) == reply.usage.output_tokens


async def test_a_streamed_call_is_the_call_itself(vllm_server: ServerState) -> None:
    model, shown = ChatVLLM(base_url=vllm_server.url), list[str]()
    required = WITH_TOOLS.model_copy(update={"tool_choice": "required", "temperature": 0.0})
    streamed = await model.stream_reply(required, shown.append, shown.clear)
    whole = await model.complete(required)
    await model.aclose()
    assert [call.arguments for call in streamed.tool_calls] == [call.arguments for call in whole.tool_calls]


async def test_a_call_and_its_result_may_stand_in_the_history(vllm_server: ServerState) -> None:
    reply = await ask(vllm_server.url, WITH_TOOLS.model_copy(update={"tool_choice": "required"}))
    (call,) = reply.tool_calls
    history = (
        *REQUEST.messages,
        Message(role="assistant", content=reply.content, tool_calls=reply.tool_calls),
        Message(role="tool", content="painted", tool_call_id=call.id),
    )
    last = WITH_TOOLS.model_copy(update={"messages": history, "tool_choice": "none"})
    assert (await ask(vllm_server.url, last)).tool_calls == ()


async def test_a_prompt_seen_before_is_read_from_the_cache(vllm_server: ServerState) -> None:
    words = " ".join(f"word{number}" for number in range(200))
    long = REQUEST.model_copy(update={"messages": (Message(role="user", content=words),), "max_tokens": 2})
    await ask(vllm_server.url, long)
    assert (await ask(vllm_server.url, long)).usage.cached_tokens > 100


async def test_what_an_agent_s_calls_share_is_read_from_the_cache(vllm_server: ServerState) -> None:
    instructions = " ".join(["Answer the question as briefly as you can, and say nothing else."] * 12)
    crew = Crew(name="one", orchestrator=None, workers=(Agent(name="worker", instructions=instructions),))
    async with Runtime(crew, model=ChatVLLM(base_url=vllm_server.url)) as runtime:
        await runtime.run("How many moons has Mars?")
        second = await runtime.run("Who directed Alien?")
    shared = second.usage.cached_tokens / second.usage.input_tokens
    assert shared > 0.5


async def test_an_unknown_policy_is_a_404_that_names_it(vllm_server: ServerState) -> None:
    with pytest.raises(ModelError, match="policy 'worker@99' is not loaded") as caught:
        await ask(vllm_server.url, REQUEST.model_copy(update={"policy": "worker@99"}))
    assert (caught.value.status, caught.value.kind) == (404, "refused")


async def test_a_prompt_that_is_too_long_is_a_400(vllm_server: ServerState) -> None:
    with pytest.raises(ModelError) as caught:
        await ask(vllm_server.url, REQUEST.model_copy(update={"max_tokens": 100_000}))
    assert (caught.value.status, caught.value.kind) == (400, "refused")


async def test_it_is_a_langchain_chat_model(vllm_server: ServerState) -> None:
    model = ChatVLLM(base_url=vllm_server.url, max_tokens=8)
    reply = await model.ainvoke("Say hello.")
    whole: AIMessageChunk | None = None
    async for chunk in model.astream("Say hello."):
        assert isinstance(chunk, AIMessageChunk)
        whole = chunk if whole is None else whole + chunk
    await model.aclose()
    assert reply.usage_metadata is not None and whole is not None
    assert len(reply.additional_kwargs["token_ids"]) == reply.usage_metadata["output_tokens"]
    assert whole.content == reply.content
    # The second prompt comes from the prefix cache, where some processors round the first one's numbers otherwise.
    close = {"logprobs": pytest.approx(reply.additional_kwargs["logprobs"], abs=0.1)}
    assert whole.additional_kwargs == {**reply.additional_kwargs, **close}


def test_invoke_works_without_an_event_loop(vllm_server: ServerState) -> None:
    model = ChatVLLM(base_url=vllm_server.url, max_tokens=4)
    assert model.invoke("Say hello.").response_metadata["model_name"] == "base"


def test_the_server_is_known_and_attachable(vllm_server: ServerState, tmp_path: Path) -> None:
    assert vllm_server.ready and vllm_server.model_digest is not None and vllm_server.process is not None
    assert vllm_server.process.alive
    workspace = Workspace(tmp_path / ".journeyman")
    attached = server.attach(workspace, vllm_server.url)
    assert (attached.model, attached.model_digest) == (vllm_server.model, vllm_server.model_digest)
    server.stop(workspace)
    assert vllm_server.process.alive


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"extra_args": ("--no-such-flag",)}, r"does not know one of its arguments.*\n.*--no-such-flag"),
        ({"start_timeout_s": 1.0}, "did not answer within 1 s"),
    ],
)
def test_a_server_that_does_not_come_up_says_why_and_leaves_nothing(
    embedded_model: Path, tmp_path: Path, free_port: int, config: dict[str, object], complaint: str
) -> None:
    workspace = Workspace(tmp_path / ".journeyman")
    pids: list[int | None] = []

    def note(elapsed: float, doing: str) -> None:
        found = server.status(workspace).server
        pids.append(None if found is None else found.pid)

    with pytest.raises(ServerError, match=complaint):
        server.start(
            workspace, ServerConfig.model_validate({"model": str(embedded_model), "port": free_port, **config}), note
        )
    assert not workspace.server.exists()
    assert pids and pids[0] is not None and not Path(f"/proc/{pids[0]}").exists()


def test_an_interrupted_start_leaves_nothing(embedded_model: Path, tmp_path: Path, free_port: int) -> None:
    workspace = Workspace(tmp_path / ".journeyman")
    pids: list[int] = []

    def interrupt(elapsed: float, doing: str) -> None:
        found = server.status(workspace)
        assert found.condition == "starting" and found.server is not None and found.server.pid is not None
        pids.append(found.server.pid)
        if elapsed > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        server.start(workspace, ServerConfig(model=str(embedded_model), port=free_port), interrupt)
    assert not workspace.server.exists()
    assert not Path(f"/proc/{pids[0]}").exists()
