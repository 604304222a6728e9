"""`journeyman runs`: a run that waits is listed, shown, answered, gone on with in another process, or given up."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.commands.run import run
from journeyman.runtime.commands.runs import app
from journeyman.runtime.console import Exit
from journeyman.runtime.store.questions import Question
from journeyman.runtime.store.run_store import RunRecord, RunStatus
from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task

CREW = """
name = "office"

[workers.clerk]
tools = ["person"]

[tools.person]
use = "ask"
"""
PAY = Question(id="1/1", kind="approve_call", agent="clerk", tool="pay", arguments={"sum": 5}, text="Pay [5]?")

APP = typer.Typer()
APP.registered_commands += app.registered_commands
APP.command("run")(run)


class Chat(BaseHTTPRequestHandler):
    """A clerk that asks a person for a colour, and answers with it."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        told = re.findall(r"blue|red", request["messages"][-1]["content"])
        content = write_answer(told[0]) if told else write_call("person", {"question": "Which colour?"})
        message = {"role": "assistant", "content": content}
        reply = {
            "id": "1",
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        }
        body = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Chat) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def crew(tmp_path: Path) -> Path:
    path = tmp_path / "office.toml"
    path.write_text(CREW)
    return path


def say(workspace: Workspace, *arguments: str, columns: int = 200) -> Result:
    return CliRunner().invoke(APP, [*arguments, "-C", str(workspace.root)], env={"COLUMNS": str(columns)})


def shown(workspace: Workspace, *arguments: str) -> Any:
    return json.loads(say(workspace, *arguments, "--json").stdout)


def keep(workspace: Workspace, run_id: str, status: RunStatus, *questions: Question) -> None:
    record = RunRecord(
        id=run_id, trace_id="a" * 32, crew="office", task=Task(id=run_id, prompt="Paint [it]."), status=status
    )

    async def put() -> None:
        runs = await workspace.runs.open()
        await runs.put(record.model_copy(update={"pending": questions}))
        await runs.aclose()

    asyncio.run(put())


def test_a_question_waits_for_an_answer_from_another_process(workspace: Workspace, crew: Path, url: str) -> None:
    asked = say(workspace, "run", "Paint it.", "--crew", str(crew), "--attach", url, "--run-id", "paint")
    assert asked.exit_code == Exit.NEEDS_INPUT
    (waiting,) = shown(workspace, "list", "--status", "needs_input")
    assert (waiting["id"], waiting["state"], waiting["crew_path"]) == ("paint", "needs_input", str(crew))
    assert "Which colour?" in say(workspace, "show", "paint").stdout
    assert say(workspace, "resume", "paint", "--attach", url).exit_code == Exit.NEEDS_INPUT
    kept = say(workspace, "answer", "pa", "blue")
    assert (kept.exit_code, kept.stdout) == (0, "kept; go on with: journeyman runs resume paint\n")
    gone_on = say(workspace, "resume", "paint", "--attach", url)
    assert (gone_on.exit_code, gone_on.stdout) == (Exit.OK, "blue\n")
    assert shown(workspace, "show", "paint")["state"] == "ok"
    assert shown(workspace, "resume", "paint")["answer"] == "blue", "it needs no server to say how it ended"


def test_an_answer_may_go_on_at_once(workspace: Workspace, crew: Path, url: str) -> None:
    say(workspace, "run", "Paint it.", "--crew", str(crew), "--attach", url, "--run-id", "paint")
    outcome = shown(workspace, "answer", "paint", "red", "--resume", "--attach", url)
    assert (outcome["status"], outcome["answer"], outcome["run_id"]) == ("ok", "red", "paint")


def test_the_crew_may_have_moved(workspace: Workspace, crew: Path, url: str) -> None:
    say(workspace, "run", "Paint it.", "--crew", str(crew), "--attach", url, "--run-id", "paint")
    moved = crew.rename(crew.with_name("moved.toml"))
    say(workspace, "answer", "paint", "red")
    lost = say(workspace, "resume", "paint", "--attach", url)
    assert isinstance(lost.exception, ConfigError)
    assert "office.toml" in str(lost.exception)
    assert say(workspace, "resume", "paint", "--attach", url, "--crew", str(moved)).stdout == "red\n"


def test_runs_are_listed_with_what_they_ask_and_whether_they_died(workspace: Workspace) -> None:
    keep(workspace, "r1", "running")
    keep(workspace, "r2", "needs_input", PAY)
    rows = [line.split() for line in say(workspace, "list").stdout.splitlines()]
    assert rows[0] == ["RUN", "AGE", "CREW", "TASK", "STATUS", "ASKS"]
    assert {(row[0], *row[5:]) for row in rows[1:]} == {("r1", "interrupted"), ("r2", "needs_input", "1")}
    assert [row["id"] for row in shown(workspace, "list", "--limit", "1")] == ["r2"]
    assert shown(workspace, "list", "--status", "cancelled") == []
    assert [row["id"] for row in shown(workspace, "list", "--status", "interrupted")] == ["r1"]
    assert shown(workspace, "list", "--status", "running") == []


def test_a_call_is_shown_before_it_is_agreed_to(workspace: Workspace) -> None:
    keep(workspace, "r1", "needs_input", PAY)
    told = say(workspace, "show", "r1").stdout
    for words in ("Paint [it].", "Pay [5]?", 'pay({"sum": 5})', "journeyman runs approve r1 [--deny REASON]"):
        assert words in told
    assert shown(workspace, "approve", "r1", "--deny", "[b]no")["answers"] == {
        "1/1": {"approved": False, "reason": "[b]no"}
    }
    assert '{"approved": false, "reason": "[b]no"}' in say(workspace, "show", "r1").stdout


def test_a_text_that_waits_is_shown_as_it_would_go_on(workspace: Workspace) -> None:
    keep(workspace, "r1", "needs_input", PAY.model_copy(update={"tool": None, "content": "All is [well]."}))
    assert "All is [well]." in say(workspace, "show", "r1").stdout


def test_what_a_model_wrote_cannot_take_over_the_terminal_of_whoever_agrees_to_it(workspace: Workspace) -> None:
    sly = PAY.model_copy(update={"text": "Pay \x1b[2K5?", "arguments": {"to": "\u202enna"}, "content": "\x1b]0;x\x07"})
    keep(workspace, "r1", "needs_input", sly)
    told = say(workspace, "show", "r1").stdout
    assert "Pay \ufffd[2K5?" in told
    assert not {"\x1b", "\x07", "\u202e"} & set(told)


def test_one_question_of_several_is_named(workspace: Workspace) -> None:
    keep(workspace, "r1", "needs_input", PAY, PAY.model_copy(update={"id": "2/1"}))
    assert "journeyman runs approve r1 --question 2/1 [--deny REASON]" in say(workspace, "show", "r1").stdout
    assert isinstance(say(workspace, "approve", "r1").exception, ConfigError)
    assert "1 more to answer" in say(workspace, "approve", "r1", "--question", "2/1").stdout


@pytest.mark.parametrize("command", ["show", "resume"])
def test_what_answers_a_question_can_be_copied_from_a_narrow_terminal(workspace: Workspace, command: str) -> None:
    run_id = "pay" * 20
    keep(workspace, run_id, "needs_input", PAY, PAY.model_copy(update={"id": "2/1"}))
    told = say(workspace, command, run_id, columns=80)
    assert f"    journeyman runs approve {run_id} --question 2/1 [--deny REASON]\n" in told.stdout


def test_a_run_is_given_up(workspace: Workspace) -> None:
    keep(workspace, "r1", "needs_input", PAY)
    assert say(workspace, "cancel", "r1").stdout == "run r1 is cancelled\n"
    assert shown(workspace, "show", "r1")["outcome"]["status"] == "cancelled"
    assert "ended already" in str(say(workspace, "cancel", "r1").exception)


def test_a_crew_made_in_python_is_asked_for(workspace: Workspace) -> None:
    keep(workspace, "r1", "paused")
    assert "name its TOML file with --crew" in str(say(workspace, "resume", "r1").exception)


def test_ended_runs_are_forgotten_by_age(workspace: Workspace) -> None:
    keep(workspace, "r1", "ok")
    keep(workspace, "r2", "paused")
    assert shown(workspace, "prune") == {"pruned": 0}
    assert say(workspace, "prune", "--older-than", "0s").stdout == "1 runs forgotten\n"
    assert [row["id"] for row in shown(workspace, "list")] == ["r2"]


def test_runs_are_kept_as_long_as_the_workspace_says(workspace: Workspace) -> None:
    keep(workspace, "r1", "ok")
    assert len(shown(workspace, "list")) == 1
    (workspace.root.parent / PROJECT_FILE).write_text("[runs]\nkeep_days = 1e-9\n")
    assert shown(workspace, "list") == []


@pytest.mark.parametrize("command", [["list"], ["prune"], ["show", "x"], ["approve", "x"], ["cancel", "x"]])
def test_reading_makes_no_runs(workspace: Workspace, command: list[str]) -> None:
    say(workspace, *command)
    assert not workspace.root.exists() or list(workspace.root.iterdir()) == []


def test_a_run_that_is_cancelled_while_it_waits_ends_cancelled_in_its_trace(
    workspace: Workspace, crew: Path, url: str
) -> None:
    say(workspace, "run", "Paint it.", "--crew", str(crew), "--attach", url, "--run-id", "paint")
    say(workspace, "cancel", "paint")
    (trace,) = workspace.store.traces()
    assert trace.outcome is not None
    assert (trace.outcome.status, trace.outcome.model_calls) == ("cancelled", 1)


def test_a_list_of_nothing_says_so(workspace: Workspace) -> None:
    nothing = say(workspace, "list")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "no such runs" in nothing.stderr
    assert isinstance(say(workspace, "show", "x").exception, ConfigError)
