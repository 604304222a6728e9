"""Messages on a span: in the conventions' shape, and back exactly as they were sent."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.messages import (
    Message,
    ToolCall,
    prompt_attributes,
    read_prompt,
    read_reply,
    read_result,
    reply_attribute,
    write_result,
)
from journeyman.traces.reports.shapes import misfits

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
CALLS = st.lists(
    st.builds(
        ToolCall,
        id=st.text(max_size=5),
        name=st.text(min_size=1, max_size=5),
        arguments=st.dictionaries(st.text(max_size=5), JSON, max_size=2),
    ),
    max_size=2,
).map(tuple)
MESSAGES = st.one_of(
    st.builds(Message, role=st.sampled_from(["system", "user"]), content=st.text()),
    st.builds(Message, role=st.just("assistant"), content=st.text(), tool_calls=CALLS),
    st.builds(Message, role=st.just("tool"), content=st.text(), tool_call_id=st.none() | st.text(max_size=5)),
)


@given(st.lists(MESSAGES, max_size=5))
def test_a_prompt_comes_back_as_it_was_sent(prompt: list[Message]) -> None:
    assert read_prompt({**prompt_attributes(prompt)}) == tuple(prompt)


@given(MESSAGES)
def test_a_reply_comes_back_as_it_came(reply: Message) -> None:
    assert read_reply({a.OUTPUT_MESSAGES: reply_attribute(reply, "stop")}) == reply


@given(st.lists(MESSAGES, max_size=5), MESSAGES)
def test_every_message_has_the_conventions_shape(prompt: list[Message], reply: Message) -> None:
    written = {**prompt_attributes(prompt), a.OUTPUT_MESSAGES: reply_attribute(reply, "stop")}
    assert not list(misfits("message[]", written[a.INPUT_MESSAGES]))
    assert not list(misfits("output_message[]", written[a.OUTPUT_MESSAGES]))
    assert not list(misfits("part[]", written.get(a.SYSTEM_INSTRUCTIONS, "[]")))


def test_the_system_message_stands_apart() -> None:
    prompt = (Message(role="system", content="You plan."), Message(role="user", content="Which films?"))
    written = prompt_attributes(prompt)
    assert json.loads(written[a.SYSTEM_INSTRUCTIONS]) == [{"type": "text", "content": "You plan."}]
    user = {"role": "user", "parts": [{"type": "text", "content": "Which films?"}]}
    assert json.loads(written[a.INPUT_MESSAGES]) == [user]


def test_a_reply_says_why_it_ended() -> None:
    (reply,) = json.loads(reply_attribute(Message(role="assistant", content="42"), "stop"))
    text = {"type": "text", "content": "42"}
    assert reply == {"role": "assistant", "parts": [text], "finish_reason": "stop"}


def test_what_is_no_text_shows_as_the_json_that_it_is() -> None:
    image = {"type": "uri", "modality": "image", "uri": "https://example.com/a.png"}
    parts: JsonValue = [{"type": "text", "content": "What is it? "}, {**image}]
    (message,) = read_prompt({a.INPUT_MESSAGES: [{"role": "user", "parts": parts}]})
    assert message.content == "What is it? \n" + json.dumps(image)


def test_arguments_that_another_program_left_as_text_are_parsed() -> None:
    call: JsonValue = {"type": "tool_call", "id": "1", "name": "search", "arguments": '{"query": "Riga"}'}
    (message,) = read_prompt({a.INPUT_MESSAGES: [{"role": "assistant", "parts": [call]}]})
    assert message.tool_calls == (ToolCall(id="1", name="search", arguments={"query": "Riga"}),)


@pytest.mark.parametrize(
    "value", ["not JSON", "{}", '["text"]', '[{"role": "user"}]', '[{"role": "user", "parts": [1]}]']
)
def test_what_is_no_list_of_messages_is_an_error(value: str) -> None:
    with pytest.raises(ValueError, match=r"must be|has the role"):
        read_prompt({a.INPUT_MESSAGES: value})


def test_a_digest_in_the_place_of_messages_reads_as_none() -> None:
    known = dict.fromkeys((a.SYSTEM_INSTRUCTIONS, a.INPUT_MESSAGES, a.OUTPUT_MESSAGES), f"sha256:{'0' * 64}")
    assert read_prompt({**known}) == ()
    assert read_reply({**known}) is None


@given(st.text())
def test_a_tools_result_is_an_object_and_comes_back_as_the_text_that_it_was(content: str) -> None:
    written = write_result(content)
    assert not list(misfits("object", written))
    assert read_result(written) == content


def test_another_programs_result_shows_whole() -> None:
    assert read_result('{"degrees": 57}') == '{"degrees": 57}'
    assert read_result({"degrees": 57}) == '{"degrees": 57}'
    assert read_result("rainy") == "rainy"
    assert read_result(None) is None
