"""Reported: logs of Anthropic's API lose the system text, which stands beside the messages.

Their tool calls, results and thoughts are blocks of a message's content.
"""

import json
from pathlib import Path
from typing import Any

from journeyman.traces.exchange.chatlog import read_conversation
from journeyman.traces.messages import Message, ToolCall, Usage

LOG: dict[str, Any] = {
    "model": "claude",
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "tools": [{"name": "weather", "description": "Weather", "input_schema": {"type": "object"}}],
    "messages": [
        {"role": "user", "content": "weather in Graz?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "I must look.", "signature": "x"},
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Graz"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "4 C"}]},
                {"type": "text", "text": "in a sentence"},
            ],
        },
    ],
    "response": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-1",
        "content": [{"type": "text", "text": "It is"}],
        "stop_reason": "max_tokens",
        "usage": {"input_tokens": 5, "cache_read_input_tokens": 20, "output_tokens": 2},
    },
}


def test_the_system_text_is_the_first_message(journeyman: Any, reports: Path, tmp_path: Path) -> None:
    file = reports / "anthropic_log" / "anthropic_system.jsonl"
    assert journeyman("traces", "import", file, "-C", tmp_path).code == 0
    (row,) = json.loads(
        journeyman("traces", "sql", "SELECT system_instructions AS system FROM turns", "-C", tmp_path, "--json").out
    )
    assert json.loads(row["system"]) == [{"type": "text", "content": "Be brief."}]


def test_blocks_are_text_calls_and_results_and_thoughts_are_left_out() -> None:
    talk = read_conversation(LOG)
    assert [entry.message for entry in talk.entries] == [
        Message(role="system", content="Be brief."),
        Message(role="user", content="weather in Graz?"),
        Message(
            role="assistant",
            content="Let me look.",
            tool_calls=(ToolCall(id="t1", name="weather", arguments={"city": "Graz"}),),
        ),
        Message(role="tool", content="4 C", tool_call_id="t1"),
        Message(role="user", content="in a sentence"),
        Message(role="assistant", content="It is"),
    ]
    assert talk.tools == (
        {"type": "function", "name": "weather", "description": "Weather", "parameters": {"type": "object"}},
    )


def test_a_reply_that_was_cut_short_is_known_as_one() -> None:
    reply = read_conversation(LOG).entries[-1]
    assert (reply.model, reply.response_id, reply.finish_reason) == ("claude-1", "msg_1", "length")
    assert reply.usage == Usage(input_tokens=25, output_tokens=2, cached_tokens=20)
