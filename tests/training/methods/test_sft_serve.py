"""A row's prompt is what a server makes of the same messages and tools, token for token."""

from pathlib import Path
from typing import Any

import pytest

from journeyman.agents.model import ModelRequest
from journeyman.runtime.models.vllm import ChatVLLM
from journeyman.runtime.serving.server import ServerState
from journeyman.traces.messages import Message, ToolCall
from journeyman.training.data.samples import SFTSample

pytestmark = [
    pytest.mark.serve,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),
]
TEMPLATE = Path(__file__).parents[2] / "data" / "tools.jinja"
WEATHER = {
    "name": "weather",
    "description": "Weather of a city: \u201eGraz\u201c, say.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
GRAZ = ToolCall(
    id="a", name="weather", arguments={"city": "Gr\u00e4z", "days": [1, 2.5], "deep": {"x": None, "y": True}}
)
LINZ = ToolCall(id="b", name="weather", arguments={})


def user(text: str) -> Message:
    return Message(role="user", content=text)


SHAPES: dict[str, tuple[Message, ...]] = {
    "a question": (user("weather in Graz?"),),
    "instructions first": (Message(role="system", content="Be brief."), user("hi")),
    "text and a call": (
        user("weather?"),
        Message(role="assistant", content="Let me look.", tool_calls=(GRAZ,)),
        Message(role="tool", content="4 C, rain", tool_call_id="a"),
    ),
    "calls alone, two at once": (
        user("weather?"),
        Message(role="assistant", content="", tool_calls=(GRAZ, LINZ)),
        Message(role="tool", content='{"celsius": 4}', tool_call_id="a"),
        Message(role="tool", content="", tool_call_id="b"),
    ),
    "several turns": (
        user("a"),
        Message(role="assistant", content="b"),
        user("c\n\nd <|im_end|>"),
    ),
}


@pytest.fixture(scope="module")
def tokenizer(vllm_server: ServerState) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(vllm_server.model)
    tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
    return tokenizer


def sample(messages: tuple[Message, ...], tools: tuple[dict[str, Any], ...] | None, **reply: Any) -> SFTSample:
    fields = {"agent": "w", "policy": "teacher", "trace_id": "t", "span_ids": ("s",), "completion": "x", **reply}
    return SFTSample(messages=messages, tools=tools, **fields)


@pytest.mark.parametrize("tools", [None, (WEATHER,)], ids=["without tools", "with tools"])
@pytest.mark.parametrize("messages", SHAPES.values(), ids=SHAPES)
async def test_a_demonstration_s_prompt_has_the_server_s_tokens(
    messages: tuple[Message, ...], tools: tuple[dict[str, Any], ...] | None, vllm_server: ServerState, tokenizer: Any
) -> None:
    from journeyman.training.methods.rows import write_prompt

    model = ChatVLLM(base_url=vllm_server.url)
    request = ModelRequest(policy="base", messages=messages, tools=tools or (), max_tokens=1)
    reply = await model.complete(request)
    await model.aclose()
    assert reply.prompt_token_ids is not None
    written = write_prompt(sample(messages, tools), tokenizer)
    assert tokenizer.decode(written) == tokenizer.decode(reply.prompt_token_ids)
    assert tuple(written) == reply.prompt_token_ids
