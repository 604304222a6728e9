"""`journeyman run` and the embedding example, on a real server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from journeyman.runtime.serving.server import ServerState

pytestmark = [pytest.mark.serve, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[3]
CREW = str(ROOT / "examples" / "planets" / "crew.toml")
JOURNEYMAN = str(Path(sys.executable).with_name("journeyman"))


def journeyman(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([JOURNEYMAN, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_a_question_is_answered_and_recorded(tmp_path: Path, vllm_server: ServerState) -> None:
    question = "How many moons does each rocky planet have?"
    done = journeyman("run", "--attach", vllm_server.url, "--crew", CREW, "--json", question, folder=tmp_path)
    outcome = json.loads(done.stdout)
    assert outcome["model_calls"] >= 1
    assert done.returncode in (0, 1, 3)
    assert (done.returncode == 0) == (outcome["status"] == "ok" and outcome["error"] is None)
    shown = json.loads(journeyman("traces", "show", outcome["trace_id"], "--json", folder=tmp_path).stdout)
    assert shown["task"]["prompt"] == question
    _conforms(tmp_path)


def test_a_file_of_tasks_is_run_once_and_a_broken_line_is_named(tmp_path: Path, vllm_server: ServerState) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text((ROOT / "examples" / "planets" / "tasks.jsonl").read_text() + "broken\n")
    arguments = ["run", "--attach", vllm_server.url, "--crew", CREW, "--tasks", str(tasks), "--out", "out.jsonl"]
    first = journeyman(*arguments, folder=tmp_path)
    assert "line 3: it is not valid JSON" in first.stderr
    assert first.returncode in (1, 3)
    out = tmp_path / "out.jsonl"
    outcomes = [json.loads(line) for line in out.read_text().splitlines()]
    assert {outcome["task_id"] for outcome in outcomes} == {"moons", "days"}
    out.write_text(out.read_text()[:-20])
    journeyman(*arguments, folder=tmp_path)
    again = [json.loads(line) for line in out.read_text().splitlines()]
    assert [outcome["trace_id"] for outcome in again][:1] == [outcomes[0]["trace_id"]]
    assert again[1]["task_id"] == outcomes[1]["task_id"]
    assert again[1]["trace_id"] != outcomes[1]["trace_id"]
    _conforms(tmp_path)


def test_the_embedding_example_runs(tmp_path: Path, vllm_server: ServerState) -> None:
    attached = journeyman("server", "start", "--attach", vllm_server.url, folder=tmp_path)
    assert attached.returncode == 0, attached.stderr
    example = str(ROOT / "examples" / "embed.py")
    done = subprocess.run([sys.executable, example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in ("ok", "failed", "truncated")


def _conforms(folder: Path) -> None:
    """Every span that was recorded there is as OpenTelemetry's GenAI conventions want it."""
    checked = journeyman("traces", "check", "--all", "--json", folder=folder)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert json.loads(checked.stdout)["findings"] == []
