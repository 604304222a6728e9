"""Chat logs of OpenAI's API, fine-tuning files, LangChain and LangGraph: the same conversations in one shape."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage, messages_to_dict

from journeyman.traces.errors import StoreError
from journeyman.traces.exchange.chatlog import conversations, looks_like_chat, read_conversation
from journeyman.traces.exchange.conversation import Conversation
from journeyman.traces.messages import Message, ToolCall, Usage

DATA = Path(__file__).parents[2] / "data" / "imports"

LANGCHAIN: list[BaseMessage] = [
    SystemMessage("You look things up."),
    HumanMessage("Which river runs through Riga?"),
    AIMessage(
        "",
        name="lookup",
        tool_calls=[{"name": "search", "args": {"query": "river Riga"}, "id": "call_1"}],
        usage_metadata={"input_tokens": 9, "output_tokens": 2, "total_tokens": 11},
        response_metadata={"model_name": "gpt-4o-mini", "finish_reason": "tool_calls", "model_provider": "openai"},
    ),
    ToolMessage("Riga lies on the Daugava.", tool_call_id="call_1", name="search"),
    AIMessage("The Daugava.", name="lookup"),
]

MESSAGES = (
    Message(role="system", content="You look things up."),
    Message(role="user", content="Which river runs through Riga?"),
    Message(
        role="assistant",
        content="",
        tool_calls=(ToolCall(id="call_1", name="search", arguments={"query": "river Riga"}),),
    ),
    Message(role="tool", content="Riga lies on the Daugava.", tool_call_id="call_1"),
    Message(role="assistant", content="The Daugava."),
)


def lines(name: str) -> list[Conversation]:
    return [read_conversation(json.loads(line)) for line in (DATA / name).read_text().splitlines()]


def said(conversation: Conversation) -> tuple[Message, ...]:
    return tuple(entry.message for entry in conversation.entries)


def test_a_file_for_fine_tuning_gives_its_messages_and_tools() -> None:
    looked_up, weighed = lines("finetune.jsonl")
    assert said(looked_up) == MESSAGES
    assert looked_up.tools == (
        {
            "type": "function",
            "name": "search",
            "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
        },
    )
    assert [entry.demonstration for entry in weighed.entries] == [True, False, True, True]


def test_a_request_and_its_response_are_one_conversation() -> None:
    completion, wrapped, plain = lines("requests.jsonl")
    assert said(completion)[0].role == "system"
    reply = completion.entries[-1]
    assert (reply.message.content, reply.model, reply.finish_reason) == ("The Daugava.", "gpt-4o-mini", "stop")
    assert reply.usage == Usage(input_tokens=24, output_tokens=5, cached_tokens=16)
    assert completion.started_ns == 1759996800 * 10**9
    assert (completion.user, completion.metadata, completion.scores) == ("u-17", {"app": "atlas"}, {"score": 1.0})

    assert said(wrapped)[0].content == "Which river runs \nthrough Tallinn?"
    assert wrapped.entries[-1].model == "gpt-4o-mini-2024-07-18", "the model that answered, not the one asked for"
    assert (wrapped.entries[-1].finish_reason, wrapped.scores) == ("length", {"rating": 2.0})

    assert (said(plain)[-1].content, plain.session) == ("The Neris.", "s-3")


def test_a_dump_of_a_graphs_state_names_the_agents_that_spoke() -> None:
    state = read_conversation(json.loads((DATA / "langgraph.json").read_text()))
    assert [entry.agent for entry in state.entries] == [None, "lookup", None, "lookup", "writer"]
    assert (state.session, state.started_ns) == ("t-9", 1759996800 * 10**9)
    asked, result = state.entries[1:3]
    assert asked.usage == Usage(input_tokens=61, output_tokens=9, cached_tokens=32)
    assert (asked.model, asked.provider, asked.response_id) == ("gpt-4o-mini-2024-07-18", "openai", "chatcmpl-1")
    assert (result.failed, result.tool) == (True, "search")


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(messages_to_dict(LANGCHAIN), id="messages_to_dict"),
        pytest.param([message.model_dump() for message in LANGCHAIN], id="model_dump"),
        pytest.param(dumpd(LANGCHAIN), id="dumpd"),
        pytest.param({"messages": messages_to_dict(LANGCHAIN)}, id="state"),
    ],
)
def test_every_way_of_langchain_to_write_messages_reads_the_same(written: Any) -> None:
    written = json.loads(json.dumps(written))
    (only,) = conversations(written)
    conversation = read_conversation(only)
    assert said(conversation) == MESSAGES
    assert conversation.entries[2].agent == "lookup"
    assert conversation.entries[2].usage == Usage(input_tokens=9, output_tokens=2)


def test_the_old_form_of_a_call_is_read_too() -> None:
    call: Any = {
        "role": "assistant",
        "content": None,
        "function_call": {"name": "search", "arguments": '{"query": "x"}'},
    }
    result: Any = {"role": "function", "name": "search", "content": "found"}
    conversation = read_conversation({"messages": [{"role": "user", "content": "?"}, call, result]})
    assert said(conversation)[1].tool_calls == (ToolCall(id="call_1_0", name="search", arguments={"query": "x"}),)
    assert conversation.entries[2].tool == "search"


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([{"role": "user", "content": "x"}], "nobody replies"),
        ([{"role": "judge", "content": "x"}], "message 1 has an unknown role: 'judge'"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "message 1 has a part of type 'image_url'"),
        ([{"role": "user", "content": 7}], "message 1 has a content that is neither text nor parts: int"),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "search", "arguments": "{"}}]}],
            "message 1 calls 'search' with arguments that must be a JSON object",
        ),
        (
            [{"type": "ai", "content": "", "invalid_tool_calls": [{"name": "search", "args": "{"}]}],
            "message 1 has a tool call whose arguments couldn't be read",
        ),
        ([], "no conversation"),
        (["x"], "no conversation"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_with_a_reason(messages: list[Any], reason: str) -> None:
    with pytest.raises(StoreError, match=reason):
        read_conversation({"messages": messages})


def test_a_score_that_is_no_value_of_a_label_is_named() -> None:
    with pytest.raises(StoreError, match=r"scores\.score"):
        read_conversation({"messages": [{"role": "assistant", "content": "x"}], "score": [1]})


@pytest.mark.parametrize("value", [None, 3, "x", [], {}, {"messages": "x"}, [[1]], {"resourceSpans": []}])
def test_other_json_is_no_chat_log(value: Any) -> None:
    assert not looks_like_chat(value)


@pytest.mark.parametrize(
    ("created", "ns"),
    [
        (1759996800, 1759996800 * 10**9),
        (1759996800.5, 17599968005 * 10**8),
        (1759996800500, 17599968005 * 10**8),
        ("2025-10-09T08:00:00Z", 1759996800 * 10**9),
        ("2025-10-09T08:00:00", 1759996800 * 10**9),
    ],
)
def test_times_are_read_as_logs_write_them(created: Any, ns: int | None) -> None:
    value = {"messages": [{"role": "assistant", "content": "x"}], "created": created}
    assert read_conversation(value).started_ns == ns


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=4,
)
ROLE = st.sampled_from(["system", "user", "assistant", "tool", "ai", "human", "constructor"])
CALL = JSON | st.fixed_dictionaries({}, optional={"id": JSON, "name": JSON, "args": JSON, "function": JSON})
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(["role", "type"], ROLE | JSON),
        **dict.fromkeys(["content", "name", "id", "data", "kwargs", "status", "weight", "tool_call_id"], JSON),
        **dict.fromkeys(["response_metadata", "usage_metadata", "function_call", "invalid_tool_calls"], JSON),
        "tool_calls": JSON | st.lists(CALL, max_size=2),
    },
)
CHOICES = st.lists(st.fixed_dictionaries({}, optional={"message": MESSAGE | JSON, "finish_reason": JSON}), max_size=2)
LOG = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGE, min_size=1, max_size=3) | JSON},
    optional={
        **dict.fromkeys(["response", "request", "values", "created", "tools", "metadata", "score", "usage"], JSON),
        "choices": CHOICES | JSON,
    },
)


@settings(max_examples=150, deadline=None)
@given(LOG | JSON | st.lists(MESSAGE))
def test_any_json_is_a_conversation_or_is_refused_with_one_line(value: Any) -> None:
    for one in conversations(value):
        try:
            assert read_conversation(one).entries
        except StoreError as error:
            assert "\n" not in str(error)
