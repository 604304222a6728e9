"""Reported: a trace whose spans are each other's parents was an empty tree under a heading that counted an agent."""

import json
from pathlib import Path
from typing import Any

import pytest

RINGS = {
    "two in a ring": {"0000000000000001": "0000000000000002", "0000000000000002": "0000000000000001"},
    "an agent of its own": {"0000000000000001": "0000000000000001"},
    "a call of its own": {"0000000000000002": "0000000000000002"},
}


@pytest.mark.parametrize("ring", RINGS.values(), ids=RINGS)
def test_the_spans_are_shown_and_marked(journeyman: Any, reports: Path, tmp_path: Path, ring: dict[str, str]) -> None:
    sent = json.loads((reports / "cycle" / "otlp.json").read_text(encoding="utf-8"))
    for span in sent["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        span["parentSpanId"] = ring.get(span["spanId"], "" if span["spanId"].endswith("1") else "0000000000000001")
    file, workspace = tmp_path / "otlp.json", tmp_path / "w"
    file.write_text(json.dumps(sent), encoding="utf-8")
    journeyman("traces", "import", file, "-C", workspace)
    shown = journeyman("traces", "show", "0000", "-C", workspace).out
    assert "clerk" in shown and "hello" in shown
    assert shown.count("its parents form a ring") == 1
    listed = journeyman("traces", "list", "-C", workspace)
    assert "00000000" in listed.out and "lead back to themselves" in listed.err
    report = journeyman("traces", "report", "-C", workspace).out
    assert "What is no tree" in report and "a span's parents form a ring" in report and "00000000" in report


def test_a_report_names_no_ring_where_spans_begin_together(journeyman: Any, reports: Path, tmp_path: Path) -> None:
    sent = json.loads((reports / "cycle" / "otlp.json").read_text(encoding="utf-8"))
    for span in sent["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        first = span["spanId"].endswith("1")
        span |= {"parentSpanId": "" if first else "0000000000000001", "startTimeUnixNano": "1"}
    file, workspace = tmp_path / "otlp.json", tmp_path / "w"
    file.write_text(json.dumps(sent), encoding="utf-8")
    assert journeyman("traces", "import", file, "-C", workspace).code == 0
    assert "no tree" not in journeyman("traces", "report", "-C", workspace).out
