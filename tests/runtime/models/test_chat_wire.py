"""The chat API's JSON: what a request says, and what is made of replies and of their pieces."""

import json

import pytest

from journeyman.agents.model import ModelRequest, ToolChoice
from journeyman.runtime.models.chat_failures import read_complaint
from journeyman.runtime.models.chat_wire import join_pieces, read_piece, read_reply, request_body
from journeyman.traces.messages import Message

REQUEST = ModelRequest(policy="worker@1", messages=(Message(role="user", content="hi"),))
TOOL = {"name": "add", "description": "adds", "parameters": {"type": "object", "properties": {}}}
WITH_TOOLS = REQUEST.model_copy(update={"tools": (TOOL,)})
USAGE = {"prompt_tokens": 2, "completion_tokens": 2}


def reply(*arguments: str) -> bytes:
    """A reply that calls `add` with each of those texts."""
    calls = [
        {"id": f"c{number}", "type": "function", "function": {"name": "add", "arguments": text}}
        for number, text in enumerate(arguments)
    ]
    choice = {"message": {"content": None, "tool_calls": calls}, "finish_reason": "tool_calls"}
    return json.dumps({"id": "1", "model": "base", "choices": [choice], "usage": USAGE}).encode()


def piece(index: int, finish: str | None = None, usage: dict[str, int] | None = None, **function: str) -> bytes:
    call = {"index": index, "function": function} | ({"id": f"c{index}"} if "name" in function else {})
    choices = [{"delta": {"tool_calls": [call]}, "finish_reason": finish}]
    return json.dumps({"id": "1", "model": "base", "choices": choices, "usage": usage}).encode()


@pytest.mark.parametrize("choice", ["auto", "required", "none"])
def test_tools_are_asked_for_in_the_api_s_form(choice: ToolChoice) -> None:
    body = request_body(WITH_TOOLS.model_copy(update={"tool_choice": choice}))
    assert body["tools"] == [{"type": "function", "function": {**TOOL, "strict": True}}]
    assert body["tool_choice"] == choice
    assert "parallel_tool_calls" not in body


def test_a_reply_may_be_held_to_one_call() -> None:
    assert request_body(WITH_TOOLS.model_copy(update={"parallel_calls": False}))["parallel_tool_calls"] is False


def test_a_request_without_tools_says_nothing_of_them() -> None:
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & request_body(REQUEST).keys()


def test_without_vllm_s_extensions_nothing_is_asked_that_others_may_refuse() -> None:
    body = request_body(WITH_TOOLS, extensions=False)
    assert body["tools"] == [{"type": "function", "function": TOOL}]
    assert not {"logprobs", "return_token_ids"} & body.keys()


def test_calls_come_back_parsed() -> None:
    read = read_reply(reply('{"a": 1}', ""))
    assert [(call.id, call.name, call.arguments) for call in read.tool_calls] == [
        ("c0", "add", {"a": 1}),
        ("c1", "add", {}),
    ]
    assert (read.content, read.unreadable, read.finish_reason) == ("", None, "tool_calls")


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", "3", '{"a": "\\ud800"}'])
def test_where_one_call_cannot_be_read_none_is_given(arguments: str) -> None:
    read = read_reply(reply('{"a": 1}', arguments))
    assert read.tool_calls == ()
    assert read.unreadable is not None and read.unreadable.startswith("the arguments of add")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "too\\nlong"}}', "too long"),
        (b'{"error": "no such model"}', "no such model"),
        (b'{"object": "error", "message": "busy"}', "busy"),
        (b'{"detail": "Not authenticated"}', "Not authenticated"),
        (b'{"detail": [{"msg": "x"}, {"loc": ["body", "top_p"], "msg": "y"}]}', "x; body.top_p: y"),
        (b'{"error": null}', ""),
        (b"[]", ""),
        (b"<html>", ""),
        (b"\xff", ""),
    ],
)
def test_what_a_server_complains_of_is_read_in_the_forms_that_there_are(body: bytes, said: str) -> None:
    assert read_complaint(body) == said


def test_streamed_calls_are_put_together() -> None:
    events = [
        piece(0, name="add"),
        piece(0, arguments='{"a"'),
        piece(0, arguments=": 1}"),
        piece(1, "tool_calls", USAGE, name="sub"),
    ]
    joined = join_pieces([read_piece(event) for event in events])
    assert joined is not None
    assert [(call.id, call.name, call.arguments) for call in joined.tool_calls] == [
        ("c0", "add", {"a": 1}),
        ("c1", "sub", {}),
    ]


def test_pieces_without_an_end_are_no_reply_and_without_a_count_they_are() -> None:
    assert join_pieces([read_piece(piece(0, name="add", usage=USAGE))]) is None
    uncounted = join_pieces([read_piece(piece(0, name="add", finish="stop"))])
    assert uncounted is not None and uncounted.usage.tokens == 0


def test_a_complaint_that_is_nested_without_end_says_nothing() -> None:
    assert read_complaint(b'{"error":' * 100_000 + b"1" + b"}" * 100_000) == ""
