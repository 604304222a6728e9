"""`journeyman traces`: list, show and label, for people and for programs."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from journeyman.runtime.commands.traces import app
from journeyman.traces.errors import StoreError
from journeyman.traces.trace import Trace

SPANS = Path(__file__).parent.parent / "data" / "spans"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    shutil.copytree(SPANS, tmp_path / "spans")
    return tmp_path


def traces(workspace: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "-C", str(workspace)], env={"COLUMNS": "100"})


def listed(workspace: Path, *options: str) -> list[str]:
    result = traces(workspace, "list", "--json", *options)
    assert result.exit_code == 0
    return [row["task_id"] or "crashed" for row in json.loads(result.stdout)]


def test_the_newest_runs_come_first(workspace: Path) -> None:
    result = traces(workspace, "list")
    assert result.exit_code == 0
    assert [line[:8] for line in result.stdout.splitlines()] == ["TRACE   ", "aaaaaaaa", "cccccccc", "bbbbbbbb"]
    assert result.stderr == ""


def test_filters_and_limits(workspace: Path) -> None:
    assert listed(workspace) == ["learned", "crashed", "taught"]
    assert listed(workspace, "--policy", "lookup@8") == ["learned"]
    assert listed(workspace, "--agent", "lookup", "--family", "rivers") == ["learned", "taught"]
    assert listed(workspace, "--status", "unfinished") == ["crashed"]
    assert listed(workspace, "--limit", "1") == ["learned"]
    assert listed(workspace, "--limit", "0") == ["learned", "crashed", "taught"]
    assert "--limit 0 shows all" in traces(workspace, "list", "--limit", "2").stderr


def test_a_status_that_does_not_exist_is_a_usage_error(workspace: Path) -> None:
    result = traces(workspace, "list", "--status", "splendid")
    assert result.exit_code == 2
    assert "unfinished" in result.stderr


def test_no_traces_is_an_answer(tmp_path: Path) -> None:
    result = traces(tmp_path, "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no such traces" in result.stderr
    assert json.loads(traces(tmp_path, "list", "--json").stdout) == []


def test_a_run_is_shown_as_a_tree_or_as_the_record(workspace: Path) -> None:
    assert "└── orchestrator · ok" in traces(workspace, "show", "aaaa").stdout
    assert "user Which rivers" in traces(workspace, "show", "aaaa", "--full").stdout
    trace = Trace.model_validate_json(traces(workspace, "show", "aaaa", "--json").stdout)
    assert trace.task is not None and trace.task.id == "learned"


def test_an_unknown_run_is_a_store_error_of_one_line(workspace: Path) -> None:
    error = traces(workspace, "show", "feed").exception
    assert isinstance(error, StoreError)
    assert "\n" not in str(error)


def test_damage_is_told_beside_the_answer(workspace: Path) -> None:
    with (workspace / "spans" / "learned.jsonl").open("ab") as file:
        file.write(b"half a rec")
    result = traces(workspace, "show", "bbbb", "--json")
    assert json.loads(result.stdout)["trace_id"] == "b" * 32
    assert result.stderr == "left out: 1 torn spans\n"


@pytest.mark.parametrize(
    ("text", "value"), [("0.5", 0.5), ("1", 1.0), ("true", True), ("poor", "poor"), ("nan", "nan")]
)
def test_a_label_is_kept_and_shown(workspace: Path, text: str, value: object) -> None:
    assert traces(workspace, "label", "aaaa", "score", text, "--source", "me", "--comment", "[b]why").exit_code == 0
    (label,) = json.loads(traces(workspace, "show", "aaaa", "--json").stdout)["labels"]
    assert (label["name"], label["value"], label["source"], label["comment"]) == ("score", value, "me", "[b]why")
    assert json.loads(traces(workspace, "list", "--json").stdout)[0]["score"] == value


def test_a_label_of_a_span_must_name_one_that_is_there(workspace: Path) -> None:
    span = json.loads(traces(workspace, "show", "aaaa", "--json").stdout)["trajectories"][1]["turns"][0]["span_id"]
    assert traces(workspace, "label", "aaaa", "note", "good", "--span", span).exit_code == 0
    assert "label note good" in traces(workspace, "show", "aaaa").stdout
    assert isinstance(traces(workspace, "label", "aaaa", "note", "good", "--span", "feed").exception, StoreError)
