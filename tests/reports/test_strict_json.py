"""Reported: an export held bare `NaN` and `Infinity`, which is no JSON, so that other programs refused the file."""

import json
from pathlib import Path
from typing import Any

import pytest


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize("name", ["e.jsonl", "e.json", "e.parquet"])
def test_what_is_exported_is_json_and_reads_back_the_same(
    journeyman: Any, reports: Path, tmp_path: Path, name: str
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    journeyman("traces", "import", reports / "nan_export" / "otlp.json", "-C", one)
    assert journeyman("traces", "export", "--to", tmp_path / name, "-C", one).code == 0
    if not name.endswith(".parquet"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        for line in text.splitlines() if name.endswith("l") else [text]:
            json.loads(line, parse_constant=no_constant)
    assert journeyman("traces", "import", tmp_path / name, "-C", two).code == 0
    journeyman("traces", "export", "--to", tmp_path / "1.jsonl", "-C", one)
    journeyman("traces", "export", "--to", tmp_path / "2.jsonl", "-C", two)
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    assert b"NaN" in (tmp_path / "1.jsonl").read_bytes() and b"Infinity" in (tmp_path / "1.jsonl").read_bytes()


def test_spans_that_are_followed_are_strict_json_too(journeyman: Any, reports: Path, tmp_path: Path) -> None:
    journeyman("traces", "import", reports / "nan_export" / "otlp.json", "-C", tmp_path)
    lines = journeyman("traces", "tail", "--no-follow", "--json", "-C", tmp_path).out.splitlines()
    assert lines
    for line in lines:
        json.loads(line, parse_constant=no_constant)
