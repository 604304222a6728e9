"""People who fine-tuned on exported agent logs lost calls and tools, and learned JSON of images, without a word.

A row must be what a server was sent and said; what can't be rendered so is refused, and counted.
"""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from journeyman.runtime.cli import build
from journeyman.runtime.workspace import Workspace
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanLog
from journeyman.traces.capture.tracer import AttributeValue, Tracer
from journeyman.traces.messages import ToolCall, chat_tool
from journeyman.training.data.mine import Mined, mine_sft
from journeyman.training.data.samples import SFTSample
from journeyman.training.data.source import MineConfig, Source

WEATHER = {"name": "weather", "description": "Weather of a city", "parameters": {"type": "object"}}
CALL = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Graz"}'}}
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "weather in Graz?"},
    {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "a", "content": "4 C, rain"},
    {"role": "assistant", "content": "It rains."},
]
TEXT = {"type": "text", "content": "hello"}


def imported(workspace: Workspace, log: dict[str, Any]) -> tuple[SFTSample, ...]:
    """What `mine` makes of a chat log that was imported."""
    path = workspace.root.parent / "chat.jsonl"
    path.write_text(json.dumps(log) + "\n", encoding="utf-8")
    done = CliRunner().invoke(build(), ["traces", "import", str(path), "-C", str(workspace.root)])
    assert done.exit_code == 0, done.output
    return mine_sft(Source(workspace.store, "assistant", MineConfig())).samples


def recorded(workspace: Workspace, prompt: list[dict[str, Any]], reply: list[dict[str, Any]], **more: str) -> Mined:
    """What it makes of one demonstration with those parts of a question and of a reply."""
    tracer = Tracer(SpanLog(workspace.create().spans))
    with tracer.span("invoke_agent clerk", parent=None, attributes={a.OPERATION: "invoke_agent"}) as agent:
        agent.set({a.AGENT_NAME: "clerk", a.STATUS: "ok", a.PURPOSE: "service"})
        attributes: dict[str, AttributeValue | None] = {
            a.OPERATION: "chat",
            a.AGENT_NAME: "clerk",
            a.REQUEST_MODEL: "teacher",
            a.RESPONSE_MODEL: "teacher",
            a.FINISH_REASONS: ["stop"],
            a.DEMONSTRATION: True,
            a.INPUT_MESSAGES: json.dumps([{"role": "user", "parts": prompt}]),
            a.OUTPUT_MESSAGES: json.dumps([{"role": "assistant", "parts": reply, "finish_reason": "stop"}]),
            **{getattr(a, name): value for name, value in more.items()},
        }
        with tracer.span("chat teacher", parent=agent, attributes=attributes):
            pass
    return mine_sft(Source(workspace.store, "clerk", MineConfig()))


def test_a_reply_of_text_and_calls_keeps_both(workspace: Workspace) -> None:
    first, second = imported(workspace, {"messages": TALK})
    assert (first.completion, second.completion) == ("Let me look.", "It rains.")
    assert first.tool_calls == (ToolCall(id="a", name="weather", arguments={"city": "Graz"}),)
    assert second.tool_calls is None and second.messages[1].tool_calls == first.tool_calls


def test_a_reply_that_is_only_calls_is_a_row(workspace: Workspace) -> None:
    talk = [TALK[0], {**TALK[1], "content": None}]
    [row] = imported(workspace, {"messages": talk})
    assert row.completion == "" and row.tool_calls is not None


def test_a_row_has_the_tools_that_the_server_was_given(workspace: Workspace) -> None:
    for row in imported(workspace, {"messages": TALK, "tools": [chat_tool(WEATHER, strict=False)]}):
        assert row.tools == (WEATHER,)


def test_an_agent_that_writes_calls_as_json_was_given_none(workspace: Workspace) -> None:
    tools = json.dumps([{"type": "function", **WEATHER}])
    said = {"type": "text", "content": '{"answer": "hello"}'}
    [own] = recorded(workspace, [TEXT], [said], TOOL_DEFINITIONS=tools, RUN_ID="r", OUTPUT_TYPE="json").samples
    assert own.tools is None


def test_reasoning_is_left_out(workspace: Workspace) -> None:
    thought = {"type": "reasoning", "content": "think"}
    [row] = recorded(workspace, [TEXT, thought], [thought, TEXT]).samples
    assert (row.messages[0].content, row.completion) == ("hello", "hello")


def test_results_of_several_calls_in_one_message_are_a_message_each(workspace: Workspace) -> None:
    results = [{"type": "tool_call_response", "id": id, "response": id * 2} for id in "ab"]
    [row] = recorded(workspace, [*results, TEXT], [TEXT]).samples
    told = [(message.role, message.content, message.tool_call_id) for message in row.messages]
    assert told == [("tool", "aa", "a"), ("tool", "bb", "b"), ("user", "hello", None)]


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"type": "blob", "modality": "image", "content": "AAAA"}, "a blob part"),
        ({"type": "uri", "modality": "image", "uri": "https://x.example/a.png"}, "a uri part"),
        ({"type": "file", "modality": "image", "file_id": "f"}, "a file part"),
        ({"type": "compaction", "content": "earlier"}, "a compaction part"),
        ({"type": "server_tool_call", "name": "search", "server_tool_call": {}}, "a server_tool_call part"),
        ({"type": "tool_call_response", "id": "a", "response": {"rows": [1]}}, "a tool's result that isn't text"),
        ({"type": "tool_call", "id": "a", "arguments": {}}, "a tool call without a name"),
        ({"type": "text", "content": None}, "a text part without text"),
    ],
)
@pytest.mark.parametrize("where", ["prompt", "reply"])
def test_what_no_text_model_s_server_was_sent_is_refused_and_counted(
    workspace: Workspace, part: dict[str, Any], reason: str, where: str
) -> None:
    prompt, reply = ([part, TEXT], [TEXT]) if where == "prompt" else ([TEXT], [part, TEXT])
    mined = recorded(workspace, prompt, reply)
    assert mined.samples == ()
    [(told, count)] = mined.refused.items()
    assert told.startswith(reason) and count == 1
