"""`journeyman traces`: list, show, tail and diff, for people and for programs."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from journeyman.runtime.commands.traces.app import app
from journeyman.traces.capture.log import LogReader, SpanLog
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.labels import Label, LabelLog
from journeyman.traces.trace import Trace

SPANS = Path(__file__).parents[3] / "data" / "spans"


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


def test_runs_are_found_by_label_text_and_time(workspace: Path) -> None:
    labels = LabelLog(workspace / "labels.jsonl")
    labels.append(Label(trace_id="a" * 32, name="score", source="me", value=0.5))
    labels.append(Label(trace_id="b" * 32, name="score", source="me", value=1.0))
    assert listed(workspace, "--label", "score") == ["learned", "taught"]
    assert listed(workspace, "--label", "score=1") == ["taught"]
    assert listed(workspace, "--label", "score>=0.5") == ["learned", "taught"]
    assert listed(workspace, "--label", "thumbs=true") == []
    assert listed(workspace, "--text", "Tallinn: Pirita") == ["taught"]
    assert listed(workspace, "--since", "2025-10-09T09:30:00+00:00") == ["learned", "crashed"]
    assert listed(workspace, "--until", "2025-10-09T09:30:00+00:00") == ["taught"]
    assert listed(workspace, "--since", "30d") == []


@pytest.mark.parametrize("option", [["--label", "=1"], ["--label", "score>=good"], ["--since", "yesterday"]])
def test_a_condition_that_means_nothing_is_a_usage_error(workspace: Path, option: list[str]) -> None:
    assert isinstance(traces(workspace, "list", *option).exception, ConfigError)


def test_two_runs_are_compared_step_by_step(workspace: Path) -> None:
    same = traces(workspace, "diff", "aaaa", "aaaa")
    assert (same.exit_code, same.stdout.strip()) == (0, "21 steps the same, 0 not")
    refused = traces(workspace, "diff", "aaaa", "bbbb").exception
    assert isinstance(refused, StoreError) and "one task" in str(refused)
    steps = json.loads(traces(workspace, "diff", "aaaa", "cccc", "--json").stdout)
    assert (steps["a"], steps["b"]) == ("a" * 32, "c" * 32)
    assert any(step["side"] == "b" for step in steps["steps"])


def test_the_latest_are_told_and_the_rest_is_not(workspace: Path) -> None:
    lines = traces(workspace, "tail", "--no-follow", "-n", "3").stdout.splitlines()
    assert len(lines) == 3
    assert "RUN ENDED · ok · 4.05 s" in lines[-1]
    rows = traces(workspace, "tail", "--no-follow", "--runs", "--json").stdout.splitlines()
    assert [json.loads(row)["trace_id"][0] for row in rows] == ["b", "a"]
    of_agent = traces(workspace, "tail", "--no-follow", "-n", "100", "--agent", "orchestrator", "--json").stdout
    assert {json.loads(row)["attributes"]["gen_ai.agent.name"] for row in of_agent.splitlines()} == {"orchestrator"}


def test_what_another_process_records_is_told_until_ctrl_c(tmp_path: Path) -> None:
    log = SpanLog(tmp_path / "spans")
    spans = list(LogReader(SPANS))
    log.append(spans[0], sync=False)
    tail = [sys.executable, "-c", "from journeyman.runtime.cli import main; main()", "traces", "tail", "--json"]
    with subprocess.Popen(
        [*tail, "-C", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell that runs these tests in the background has it ignored, and what is ignored is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline())["span_id"] == spans[0].span_id
        SpanLog(tmp_path / "spans").append(spans[1], sync=False)
        assert json.loads(process.stdout.readline())["span_id"] == spans[1].span_id
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == b""
