"""Reported: instrumentations put the span of a tool under the agent, and name the call by the provider's id."""

import json
from typing import Any

import pytest

from journeyman.runtime.workspace import Workspace
from journeyman.traces import attributes as a
from journeyman.traces.assemble import assemble
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.storage.columns import to_table
from journeyman.traces.storage.segments import Segments


def span(number: int, parent: int | None, operation: str, **attributes: Any) -> SpanRecord:
    return SpanRecord(
        trace_id="a" * 32,
        span_id=f"{number:016x}",
        parent_id=None if parent is None else f"{parent:016x}",
        name=operation,
        kind="internal",
        start_ns=number * 10**9,
        end_ns=number * 10**9 + 1,
        status="ok",
        attributes={a.OPERATION: operation, **{getattr(a, name): value for name, value in attributes.items()}},
    )


def asks(*ids: str) -> str:
    parts = [{"type": "tool_call", "id": id, "name": "price", "arguments": {}} for id in ids]
    return json.dumps([{"role": "assistant", "parts": parts, "finish_reason": "tool_call"}])


AGENT = span(1, None, "invoke_agent", AGENT_NAME="clerk")
FIRST, SECOND = span(2, 1, "chat", OUTPUT_MESSAGES=asks("c1", "c2")), span(5, 1, "chat", OUTPUT_MESSAGES=asks("c3"))


def tool(number: int, parent: int, call: str | None) -> SpanRecord:
    more = {} if call is None else {"TOOL_CALL_ID": call}
    return span(number, parent, "execute_tool", TOOL_NAME=f"price {number}", **more)


@pytest.mark.parametrize(("parent", "calls"), [(1, ("c1", "c2", "c3")), (2, (None, "c2", "c3"))])
def test_a_tool_stands_under_the_turn_that_asked_for_it(parent: int, calls: tuple[str | None, ...]) -> None:
    tools = [tool(3, parent, calls[0]), tool(4, 1, calls[1]), tool(6, 1, calls[2])]
    (clerk,) = assemble([AGENT, FIRST, SECOND, *tools]).trajectories
    assert [[one.tool for one in turn.tool_results] for turn in clerk.turns] == [["price 3", "price 4"], ["price 6"]]


def test_an_id_that_is_used_again_is_the_latest_turns() -> None:
    again = span(5, 1, "chat", OUTPUT_MESSAGES=asks("c1"))
    (clerk,) = assemble([AGENT, FIRST, tool(3, 1, "c1"), again, tool(6, 1, "c1")]).trajectories
    assert [[one.tool for one in turn.tool_results] for turn in clerk.turns] == [["price 3"], ["price 6"]]


def test_a_turn_that_an_older_segment_never_checked_is_told(workspace: Workspace) -> None:
    import pyarrow as pa

    segments = Segments(workspace.spans)
    turn = span(2, 1, "generate_content", AGENT_NAME="clerk", OUTPUT_MESSAGES=asks("c1"))
    table = to_table([AGENT, turn], segments.texts)
    place = table.schema.get_field_index("refusal")
    segments.write(table.set_column(place, table.schema.field(place), pa.nulls(2, pa.string())))
    (row,) = workspace.store.sql("SELECT refusal FROM turns").to_pylist()
    assert row["refusal"] == "recorded before its operation counted as a turn; import it again"
