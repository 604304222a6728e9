"""`journeyman traces sql` asks the record, and says in a line what was wrong with a question."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from journeyman.runtime.cli import build
from journeyman.runtime.config import Workspace
from journeyman.traces.errors import ConfigError

DATA = Path(__file__).parent.parent / "data"


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
