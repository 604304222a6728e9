"""Following: what ends in any process is seen once, in order, also across new files and torn lines."""

from pathlib import Path

from journeyman.traces.capture.log import SpanLog, SpanRecord
from journeyman.traces.reports.shown.follow import Follower, told


def spans(*names: str) -> list[SpanRecord]:
    return [
        SpanRecord(
            trace_id="a" * 32,
            span_id=f"{place:016x}",
            parent_id=None,
            name=name,
            kind="internal",
            start_ns=place,
            end_ns=place + 1,
            status="ok",
            attributes={"gen_ai.operation.name": "chat", "gen_ai.agent.name": "lookup"},
        )
        for place, name in enumerate(names)
    ]


def names(follower: Follower) -> list[str]:
    return [span.name for span in follower.ended()]


def test_what_was_there_comes_first_and_then_only_what_is_new(tmp_path: Path) -> None:
    log = SpanLog(tmp_path)
    one, two, three = spans("one", "two", "three")
    log.append(one, sync=False)
    follower = Follower(tmp_path)
    assert names(follower) == ["one"]
    assert names(follower) == []
    log.append(two, sync=False)
    SpanLog(tmp_path).append(three, sync=False)
    assert names(follower) == ["two", "three"]


def test_a_folder_that_does_not_exist_yet_is_waited_for(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "spans")
    assert names(follower) == []
    SpanLog(tmp_path / "spans").append(spans("one")[0], sync=False)
    assert names(follower) == ["one"]


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    log = SpanLog(tmp_path)
    log.append(spans("one")[0], sync=False)
    line = log.path.read_bytes()
    log.path.write_bytes(line[:40])
    follower = Follower(tmp_path)
    assert names(follower) == []
    log.path.write_bytes(line)
    assert names(follower) == ["one"]


def test_spans_of_several_processes_come_in_the_order_of_their_end(tmp_path: Path) -> None:
    one, two, three = spans("one", "two", "three")
    first, second = SpanLog(tmp_path), SpanLog(tmp_path)
    first.append(three, sync=False)
    second.append(one, sync=False)
    second.append(two, sync=False)
    assert names(Follower(tmp_path)) == ["one", "two", "three"]


def test_of_a_long_file_only_the_end_is_looked_at(tmp_path: Path) -> None:
    log = SpanLog(tmp_path)
    for span in spans(*(f"span {number} {'x' * 1000}" for number in range(1000))):
        log.append(span, sync=False)
    seen = names(Follower(tmp_path))
    assert 100 < len(seen) < 400
    assert seen[-1].startswith("span 999 ")


def test_a_file_that_was_compacted_away_is_no_error(tmp_path: Path) -> None:
    log = SpanLog(tmp_path)
    log.append(spans("one")[0], sync=False)
    follower = Follower(tmp_path)
    follower.ended()
    log.path.unlink()
    assert names(follower) == []


def test_a_line_says_who_did_what_and_cannot_take_over_the_terminal() -> None:
    (span,) = spans("tool")
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.agent.name": "lookup\x1b[2J",
        "gen_ai.tool.name": "search",
        "gen_ai.tool.call.arguments": '{"query": "\x1b[2J"}',
        "journeyman.tool.status": "failed",
        "journeyman.error": "search: no such index",
    }
    line = told(span.model_copy(update={"attributes": attributes}))
    assert line is not None
    assert "failed" in line.plain and "search: no such index" in line.plain and "\x1b" not in line.plain
    assert told(span.model_copy(update={"attributes": {}})) is None
