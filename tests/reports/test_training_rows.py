"""Reported by people who fine-tuned on logs of agents: rows that looked right and taught the wrong thing."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from journeyman.traces import attributes as a
from journeyman.traces.assemble import assemble, refusal
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.errors import StoreError
from journeyman.traces.exchange.chatlog import read_conversation
from journeyman.traces.exchange.conversation import import_conversation
from journeyman.traces.exchange.importing import adopted
from journeyman.traces.messages import Message, ToolCall
from journeyman.training.data.samples import SFTSample

pytestmark = pytest.mark.filterwarnings("ignore")
ASK = Message(role="user", content="weather in Graz?")
CALL = ToolCall(id="a", name="weather", arguments={"city": "Graz"})
WEATHER = {"name": "weather", "description": "Weather of a city", "parameters": {"type": "object"}}
TURNS = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.role == 'assistant' %}{{ THOUGHT }}{% endif %}{{ message.content }}"
    "{% for call in message.tool_calls or [] %}{{ call.function.arguments | tojson }}{% endfor %}{{ END }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def template(thought: str = "", end: str = "<|im_end|>\n") -> str:
    return TURNS.replace("THOUGHT", repr(thought)).replace("END", repr(end))


@pytest.fixture(scope="module")
def tokenizer(embedded_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(embedded_model)


def sample(**fields: Any) -> SFTSample:
    known = {"agent": "w", "policy": "p", "trace_id": "t", "span_ids": ("s",), "messages": (ASK,), "completion": "hi"}
    return SFTSample(**known | fields)


def learned(tokenizer: Any, one: SFTSample, stops: set[str] | None = None) -> tuple[str, str]:
    """Prompt and completion of a row."""
    from journeyman.training.methods.rows import write_rows

    ids = {tokenizer.convert_tokens_to_ids(token) for token in stops or {tokenizer.eos_token}}
    [row] = write_rows([one], tokenizer, frozenset(ids))
    begins = row["completion_mask"].index(1)
    return tokenizer.decode(row["input_ids"][:begins]), tokenizer.decode(row["input_ids"][begins:])


@pytest.mark.parametrize("calls", [None, (CALL,)])
def test_the_end_of_a_turn_is_the_one_that_the_template_writes(tokenizer: Any, calls: Any) -> None:
    tokenizer.chat_template = template(end="<|endoftext|>\n")
    said = learned(tokenizer, sample(tool_calls=calls), {"<|im_end|>", "<|endoftext|>"})[1]
    assert said.startswith("hi") and said.endswith("<|endoftext|>") and "<|im_end|>" not in said


@pytest.mark.parametrize("calls", [None, (CALL,)])
def test_an_empty_thought_of_the_templates_making_is_not_learned(tokenizer: Any, calls: Any) -> None:
    tokenizer.chat_template = template(thought="<think>\n\n</think>\n\n")
    prompt, said = learned(tokenizer, sample(tool_calls=calls))
    assert "think" not in prompt and said.startswith("hi") and said.endswith("<|im_end|>")


def test_arguments_reach_the_template_as_an_object(tokenizer: Any) -> None:
    tokenizer.chat_template = template()
    prompt, _ = learned(tokenizer, sample(messages=(ASK, Message(role="assistant", content="", tool_calls=(CALL,)))))
    assert '{"city": "Graz"}' in prompt and "\\" not in prompt


def test_the_prompt_shows_the_tools(tokenizer: Any) -> None:
    tokenizer.chat_template = (Path(__file__).parents[1] / "data" / "tools.jinja").read_text(encoding="utf-8")
    assert "Weather of a city" in learned(tokenizer, sample(tools=(WEATHER,)))[0]


def test_tokens_that_the_server_sampled_are_not_made_again_from_text(tokenizer: Any) -> None:
    from journeyman.training.methods.rows import write_rows

    odd = [token for letter in "hello" for token in tokenizer(letter)["input_ids"]]
    assert tokenizer("hello")["input_ids"] != odd
    served = sample(completion="hello", prompt_token_ids=(5, 6), token_ids=(*odd, tokenizer.eos_token_id))
    [row] = write_rows([served], tokenizer, frozenset({tokenizer.eos_token_id}))
    assert row["input_ids"] == [5, 6, *odd, tokenizer.eos_token_id]


def talk(reply: dict[str, Any], **beside: Any) -> Any:
    return read_conversation({"messages": [{"role": "user", "content": "?"}, {"role": "assistant", **reply}], **beside})


def test_tools_may_be_the_text_of_a_list() -> None:
    tools = [{"type": "function", "function": WEATHER}]
    assert talk({"content": "x"}, tools=json.dumps(tools)).tools == talk({"content": "x"}, tools=tools).tools != ()


@pytest.mark.parametrize("tools", ["[not json", {"name": "f"}, 7, '"text"'])
def test_tools_that_are_no_list_are_told(tools: Any) -> None:
    with pytest.raises(StoreError, match="`tools` must be a list of definitions"):
        talk({"content": "x"}, tools=tools)


def why_not(spans: Iterable[SpanRecord]) -> str | None:
    trajectory = assemble(spans).trajectories[0]
    return refusal(trajectory.turns[-1], trajectory)


@pytest.mark.parametrize(
    "reply",
    [
        {"content": None, "refusal": "I can't."},
        {"content": [{"type": "refusal", "refusal": "I can't."}]},
        {"content": "It ra", "finish_reason": "content_filter"},
        {"content": "No.", "stop_reason": "refusal"},
    ],
)
def test_a_refusal_is_no_example(reply: dict[str, Any]) -> None:
    spans = import_conversation(talk(reply), agent="a", family="f", now_ns=1).spans
    assert why_not(spans) == "stopped by a content filter, or refused"


def test_the_end_of_a_reply_is_read_where_only_the_message_tells_it() -> None:
    spans = import_conversation(talk({"content": "It ra", "finish_reason": "length"}), agent="a", family="f", now_ns=1)
    foreign = []
    for span in spans.spans:
        known = {name: value for name, value in span.attributes.items() if name != a.FINISH_REASONS}
        foreign.append(adopted(span.model_copy(update={"attributes": known | {a.RESOURCE: '{"service.name": "x"}'}})))
    assert why_not(tuple(foreign)) == "truncated"


def test_pieces_of_a_sentence_stay_one_sentence() -> None:
    blocks = [{"type": "text", "text": "It "}, {"type": "text", "text": "rains", "citations": [{}]}]
    assert talk({"content": [*blocks, {"type": "text", "text": "."}]}).entries[-1].message.content == "It rains."
