"""`journeyman traces sql` asks the record, and says in a line what was wrong with a question."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from journeyman.runtime.cli import build
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError

DATA = Path(__file__).parents[3] / "data"


@pytest.fixture
def place(workspace: Workspace) -> Workspace:
    """With the golden runs in it."""
    workspace.spans.mkdir()
    for file in (DATA / "spans").iterdir():
        (workspace.spans / file.name).write_bytes(file.read_bytes())
    return workspace


def ask(place: Workspace, query: str, *options: str) -> str:
    found = CliRunner().invoke(
        build(), ["traces", "sql", query, "-C", str(place.root), *options], catch_exceptions=False
    )
    return found.stdout


def test_rows_are_a_table_or_json(place: Workspace) -> None:
    query = "SELECT status, count(*) AS runs FROM traces GROUP BY status ORDER BY status"
    assert [line.split() for line in ask(place, query).splitlines()] == [
        ["status", "runs"],
        ["ok", "2"],
        ["unfinished", "1"],
    ]
    assert json.loads(ask(place, query, "--json")) == [{"status": "ok", "runs": 2}, {"status": "unfinished", "runs": 1}]


def test_a_long_text_is_cut_in_the_table_only(place: Workspace) -> None:
    query = "SELECT max(attributes) AS text FROM spans WHERE operation = 'invoke_workflow'"
    (row,) = json.loads(ask(place, query, "--json"))
    assert len(row["text"]) > 400
    assert "…" in ask(place, query)


def test_a_wrong_question_is_answered_with_what_is_wrong(place: Workspace) -> None:
    with pytest.raises(ConfigError, match=r'Referenced column "agents" not found'):
        ask(place, "SELECT agents FROM turns")


def test_whatever_duckdb_answers_has_a_form_in_json(place: Workspace) -> None:
    query = r"""SELECT sum(x) AS whole, sum(x)::DECIMAL(4, 1) / 2 AS half, 'nan'::DOUBLE AS none,
        DATE '2026-11-23' AS day, TIMESTAMP '2026-11-23 10:00:00' AS moment,
        '\xAA'::BLOB AS bytes, [{'a': 1.5::DECIMAL(4, 2)}] AS nested
        FROM (VALUES (1), (2)) AS numbers(x)"""
    assert json.loads(ask(place, query, "--json")) == [
        {
            "whole": 3,
            "half": 1.5,
            "none": None,
            "day": "2026-11-23",
            "moment": "2026-11-23T10:00:00",
            "bytes": "aa",
            "nested": [{"a": 1.5}],
        }
    ]


def test_columns_of_one_name_are_told_apart(place: Workspace) -> None:
    query = "SELECT 1 AS a, 2 AS a"
    assert json.loads(ask(place, query, "--json")) == [{"a": 1, "a:1": 2}]
    assert ask(place, query).split() == ["a", "a:1", "1", "2"]
