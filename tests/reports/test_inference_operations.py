"""Reported: spans of `generate_content` were imported, and no turn was seen in them."""

import json
from pathlib import Path
from typing import Any

import pytest

from journeyman.traces import attributes as a
from journeyman.traces.conventions import conventions


def test_every_inference_operation_of_the_conventions_is_known() -> None:
    assert set(a.INFERENCE) == conventions().metrics["gen_ai.client.inference.duration"].operations


@pytest.mark.parametrize("operation", a.INFERENCE)
def test_it_is_a_turn_everywhere(journeyman: Any, reports: Path, tmp_path: Path, operation: str) -> None:
    text = (reports / "generate_content" / "otlp.json").read_text(encoding="utf-8")
    file, workspace = tmp_path / "otlp.json", tmp_path / "w"
    file.write_text(text.replace("generate_content", operation), encoding="utf-8")
    journeyman("traces", "import", file, "-C", workspace)
    (listed,) = json.loads(journeyman("traces", "list", "-C", workspace, "--json").out)
    assert listed["turns"] == 1
    assert "hello" in journeyman("traces", "show", "0000", "-C", workspace).out
    query = "SELECT agent, policy, refusal, demonstration FROM turns"
    rows = json.loads(journeyman("traces", "sql", query, "-C", workspace, "--json").out)
    assert rows == [{"agent": "clerk", "policy": "m", "refusal": None, "demonstration": True}]
    assert "m" in json.loads(journeyman("traces", "report", "-C", workspace, "--json").out)["by_policy"][0]["name"]
