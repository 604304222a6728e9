"""Reported: servers that leave out the ids of tool calls, or give all calls of a turn the same one.

Logs of the old `function_call` form have none at all. The arguments came out empty, or a result under another call.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from journeyman.traces.errors import StoreError
from journeyman.traces.exchange.chatlog import read_conversation

Call = tuple[str, str]


def filed(*messages: dict[str, Any]) -> list[tuple[Any, str]]:
    """What each result answers, and what it says."""
    entries = read_conversation({"messages": [{"role": "user", "content": "?"}, *messages]}).entries
    calls = {call.id: call.arguments["item"] for entry in entries for call in entry.message.tool_calls}
    results = [entry.message for entry in entries if entry.message.role == "tool"]
    return [(calls[str(result.tool_call_id)], result.content) for result in results]


def asks(*calls: tuple[str | None, str, str]) -> dict[str, Any]:
    made = [{"id": id, "function": {"name": name, "arguments": json.dumps({"item": item})}} for id, name, item in calls]
    return {"role": "assistant", "content": None, "tool_calls": made}


def gives(content: str, id: str | None = None, name: str | None = None) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "name": name, "content": content}


@pytest.mark.parametrize("kind", ["no_ids", "dup_ids", "legacy_fn"])
def test_each_call_has_its_own_arguments_and_result(journeyman: Any, reports: Path, tmp_path: Path, kind: str) -> None:
    assert journeyman("traces", "import", reports / kind / "chat.jsonl", "-C", tmp_path).code == 0
    query = "SELECT tool, arguments, result FROM tool_calls ORDER BY started_ns"
    rows = json.loads(journeyman("traces", "sql", query, "-C", tmp_path, "--json").out)
    told = [(row["tool"], json.loads(row["arguments"]), row["result"]) for row in rows]
    if kind == "legacy_fn":
        assert told == [("weather", {"city": "Graz"}, "4 C, rain")]
    else:
        assert told == [("price", {"item": "tea"}, "3"), ("price", {"item": "milk"}, "1")]


def test_results_in_another_order_are_found_by_the_tools_name() -> None:
    calls = asks((None, "price", "tea"), (None, "stock", "milk"))
    assert filed(calls, gives("7 left", name="stock"), gives("3", name="price")) == [("milk", "7 left"), ("tea", "3")]
    calls = asks(("c", "price", "tea"), ("c", "stock", "milk"))
    assert filed(calls, gives("7 left", "c", "stock"), gives("3", "c", "price")) == [("milk", "7 left"), ("tea", "3")]


def test_an_id_that_is_counted_anew_in_each_turn_is_that_turns() -> None:
    first, second = asks(("call_0", "price", "tea")), asks(("call_0", "price", "milk"))
    messages = read_conversation(
        {"messages": [{"role": "user", "content": "?"}, first, gives("3", "call_0"), second, gives("1", "call_0")]}
    ).entries
    assert [entry.message.content for entry in messages if entry.message.role == "tool"] == ["3", "1"]


@pytest.mark.parametrize("result", [gives("3", "other"), gives("3", name="stock")])
def test_a_result_that_answers_no_call_is_refused(result: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match="which no message before it makes"):
        filed(asks(("a", "price", "tea")), result)


def test_a_second_result_of_one_call_is_refused() -> None:
    with pytest.raises(StoreError, match="or which has its result"):
        filed(asks(("a", "price", "tea")), gives("3", "a"), gives("4", "a"))
