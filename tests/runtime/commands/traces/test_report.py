"""`journeyman traces report`: at a terminal, as JSON, as a page."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from journeyman.runtime.commands.traces.app import app
from journeyman.traces.errors import ConfigError
from journeyman.traces.labels import Label, LabelLog
from journeyman.traces.reports.report import Report

SPANS = Path(__file__).parents[3] / "data" / "spans"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """With a price and a wattage, and a score for two of the three golden runs."""
    (tmp_path / "journeyman.toml").write_text(
        '[traces]\ncurrency = "EUR"\nwatts = 40\n[traces.prices]\ndefault = {input = 1.0, output = 2.0}\n'
    )
    place = tmp_path / ".journeyman"
    shutil.copytree(SPANS, place / "spans")
    labels = LabelLog(place / "labels.jsonl")
    labels.append(Label(trace_id="a" * 32, name="score", source="judge", value=0.5))
    labels.append(Label(trace_id="b" * 32, name="score", source="judge", value=1.0))
    return place


def report(workspace: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["report", *arguments, "-C", str(workspace)], env={"COLUMNS": "120"})


def test_it_answers_in_plain_words(workspace: Path) -> None:
    result = report(workspace)
    assert result.exit_code == 0
    for words in ["3 runs, 2025-10-09: 1 solved (33.3%)", "Where it broke first", "EUR", "J (estimated)"]:
        assert words in result.stdout
    broken = [line.split() for line in result.stdout.splitlines() if "model call failed" in line]
    assert broken == [["1", "lookup", "2", "model", "call", "failed", "aaaaaaaa"]]


def test_json_is_the_report_itself(workspace: Path) -> None:
    found = Report.model_validate_json(report(workspace, "--json", "--family", "rivers").stdout)
    assert found.scope.family == "rivers"
    assert found.overall is not None and (found.overall.runs, found.overall.solved) == (2, 1)
    assert found.cost.currency == "EUR" and found.cost.money is not None
    assert [one.source for one in found.cost.energy] == ["estimated"]


def test_conditions_choose_the_runs(workspace: Path) -> None:
    assert json.loads(report(workspace, "--json", "--policy", "teacher").stdout)["overall"]["runs"] == 1
    assert json.loads(report(workspace, "--json", "--label", "score=1").stdout)["overall"]["runs"] == 1
    assert report(workspace, "--since", "7d").stdout.strip() == "no runs"


def test_a_page_is_written_beside_the_answer(workspace: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = report(workspace, "--html", str(page))
    assert result.exit_code == 0
    assert f"written: {page}" in result.stderr.replace("\n", "")
    assert page.read_text().startswith("<!doctype html>")


def test_a_page_that_cannot_be_written_is_an_error_of_one_line(workspace: Path, tmp_path: Path) -> None:
    error = report(workspace, "--html", str(tmp_path / "nowhere" / "report.html")).exception
    assert isinstance(error, ConfigError)
    assert "\n" not in str(error)
