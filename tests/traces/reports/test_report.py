"""The report: everything at once, as a record and at a terminal."""

import json
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from journeyman.traces.prices import Price
from journeyman.traces.reports.report import Report, report
from journeyman.traces.reports.scope import Scope
from journeyman.traces.reports.shown.printed import SHOWN, printed
from journeyman.traces.reports.shown.sections import headline, sections

CHAT = {"operation": "chat"}
TOOL = {"operation": "execute_tool"}


def shown(found: Report, width: int = 120) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        console.print(printed(found))
    return capture.get()


def test_it_answers_every_question_and_reads_back_from_json(runs: Any) -> None:
    runs.add(CHAT, TOOL, {**CHAT, "seconds": 5.0}, score=1.0)
    runs.add(CHAT, {**TOOL, "error": "timeout"}, status="failed", worker_status="failed", score=0.0)
    found = report(runs.store, prices={"default": Price(input=1.0)}, watts=10.0)
    assert Report.model_validate_json(found.model_dump_json()) == found
    assert found.overall is not None and found.overall.solved == 1
    assert found.slowest is not None and found.slowest.seconds == 7.0
    text = shown(found)
    for line in [
        "2 runs, 1970-01-01: 1 solved (50.0%)",
        "How often tasks are solved",
        "Where it broke first",
        "1 of 2 runs were not solved. First failure: lookup 1.",
        "How steps add up",
        "If steps failed independently and nothing were repaired, 50.0% of runs would succeed; 50.0% were solved",
        "How long it takes",
        "What a solved task costs",
        "300 tokens in, 30 out, 9.00 s of runs, 0.0003 USD, 90 J (estimated): all that 2 runs spent, over",
        "What the slowest run waited for",
        "What can be learned from",
    ]:
        assert line in text
    assert max(map(len, text.splitlines())) <= 120


def test_of_no_runs_it_says_so(runs: Any) -> None:
    found = report(runs.store, Scope(family="seas"))
    assert headline(found) == "no runs"
    assert shown(found).strip() == "no runs"
    assert json.loads(found.model_dump_json())["overall"] is None


def test_the_refusals_of_the_capture_contract_are_counted_by_reason(runs: Any) -> None:
    runs.add({**CHAT, "error": "ModelError"}, CHAT, {**CHAT, "error": "ModelError"})
    found = report(runs.store)
    assert [(one.agent, one.refusal, one.turns) for one in found.captured] == [
        ("lookup", "call failed", 2),
        ("lookup", "no response", 1),
    ]
    assert "call failed 2, no response 1" in shown(found)


def test_a_name_cannot_take_over_the_terminal(runs: Any) -> None:
    runs.add(CHAT, family="\x1b[2J[red]", worker="\x1b]0;title\x07")
    text = shown(report(runs.store))
    assert "\x1b" not in text and "\x07" not in text and "[red]" in text


def test_a_long_table_says_how_many_rows_are_left_out(runs: Any) -> None:
    runs.add(*[CHAT] * 15)
    assert "… 3 more rows" in shown(report(runs.store))
    assert {len(one.columns) for one in sections(report(runs.store)) if one.topic == "steps"} == {6}


def test_the_slowest_run_is_one_of_the_scope(runs: Any) -> None:
    runs.add({**CHAT, "seconds": 50.0}, family="lakes")
    quick = runs.add({**CHAT, "seconds": 2.0}, family="rivers")
    found = report(runs.store, Scope(family="rivers"))
    assert found.slowest is not None and found.slowest.trace_id == quick


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_longer_than_the_terminal_and_no_number_is_cut(runs: Any, width: int) -> None:
    engine = {f"journeyman.engine.{part}_s": 12.5 for part in ("queue", "prefill", "decode")}
    names = {"worker": "a worker of many words and_one_very_long_one", "family": "漢字" * 20}
    runs.add(*[{**CHAT, "seconds": 1234.5, "engine": engine}, TOOL] * 4, score=1.0, **names)
    runs.add(CHAT, {**TOOL, "error": "timeout"}, status="failed", worker_status="failed", score=0.0, **names)
    found = report(runs.store, prices={"default": Price(input=1.0)})
    lines = shown(found, width).splitlines()
    assert max(map(cell_len, lines)) <= width
    words = " ".join(" ".join(lines).split())
    for section in sections(found):
        for name, *cells in zip(section.columns, *section.rows[:SHOWN], strict=True):
            assert not name.startswith(">") or all(text in words for text in (name[1:], *cells)), name
    assert "…" not in words.replace("… 1 more row", "")
