"""`journeyman replay`: the record answers, or from a step on the server does, and what differs is shown."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import typer
from typer.testing import CliRunner, Result

from journeyman.agents.agent import Crew
from journeyman.agents.crew_file import load_crew
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.commands.replay import replay_command
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.questions import Consent
from journeyman.runtime.workspace import Workspace
from journeyman.traces import attributes as a
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Trace

app = typer.Typer()
app.command()(replay_command)

CREW = """
name = "sums"

[workers.clerk]
instructions = "Count."
tools = ["calculator"]

[tools.calculator]
use = "calculator"
"""


@pytest.fixture
def crew(tmp_path: Path) -> Path:
    path = tmp_path / "crew.toml"
    path.write_text(CREW)
    return path


@pytest.fixture
def recorded(workspace: Workspace, crew: Path) -> Trace:
    """A run with two turns and a tool call in between."""
    script = ScriptedModel([write_call("calculator", {"expression": "2 * 3"}), write_answer("6")])
    with Recording(workspace) as recording:
        outcome = Runtime(load_crew(crew), model=script, tracer=recording.tracer).run_sync("How much is 2 * 3?")
    return workspace.store.get(outcome.trace_id)


def replay(workspace: Workspace, crew: Path, *arguments: str) -> Result:
    options = ["--crew", str(crew), "-C", str(workspace.root)]
    return CliRunner().invoke(app, [*arguments, *options], env={"COLUMNS": "140"})


def test_from_the_record_a_run_is_the_same_and_says_whose_it_is(
    workspace: Workspace, crew: Path, recorded: Trace
) -> None:
    result = replay(workspace, crew, recorded.trace_id[:8], "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["same"] is True
    assert said["outcome"]["answer"] == "6"
    again = said["outcome"]["trace_id"]
    assert again != recorded.trace_id
    marks = {span.attributes.get(a.REPLAY_OF) for span in workspace.store.spans() if span.trace_id == again}
    assert marks == {recorded.trace_id}
    assert workspace.store.ids(purpose="replay") == [again]


async def refused(workspace: Workspace, crew: Crew) -> str:
    """The trace of a run whose answer a person withheld."""
    script = ScriptedModel([write_answer("write to bob@example.com")])
    with Recording(workspace) as recording:
        async with Runtime(crew, model=script, tracer=recording.tracer, runs=workspace.runs) as runtime:
            waiting = await runtime.run("Whom?", run_id="r")
            word = Consent(approved=False, reason="private")
            return (await runtime.resume(waiting.run_id, {"answer/1": word})).trace_id


def test_what_a_person_refused_is_refused_again(workspace: Workspace, crew: Path) -> None:
    crew.write_text(f'{CREW}[[guardrails]]\ncheck = "personal_data"\nat = ["answer"]\naction = "ask"\n')
    trace = asyncio.run(refused(workspace, load_crew(crew)))
    said = json.loads(replay(workspace, crew, trace, "--json").stdout)
    assert said["same"] is True
    assert said["outcome"]["error"] == "the answer was withheld: a person refused it: private"


def test_an_answer_that_is_not_the_same_any_more_is_told(workspace: Workspace, crew: Path) -> None:
    script = ScriptedModel([write_answer("write to bob@example.com")])
    with Recording(workspace) as recording:
        outcome = Runtime(load_crew(crew), model=script, tracer=recording.tracer).run_sync("Whom?")
    crew.write_text(f'{CREW}[[guardrails]]\ncheck = "personal_data"\nat = ["answer"]\naction = "redact"\n')
    result = replay(workspace, crew, outcome.trace_id, "--json")
    assert (json.loads(result.stdout)["same"], result.exit_code) == (False, 1)


def test_a_crew_that_changed_ends_with_1_and_the_place(workspace: Workspace, crew: Path, recorded: Trace) -> None:
    crew.write_text(CREW.replace("Count.", "Count well."))
    result = replay(workspace, crew, recorded.trace_id)
    assert result.exit_code == 1
    assert "here 'Count well." in result.stderr
    assert "failed" in result.stdout


class Chat(BaseHTTPRequestHandler):
    """A server's chat endpoint that answers everything with 7."""

    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(body)
        message = {"role": "assistant", "content": write_answer("7")}
        reply = {
            "id": "c1",
            "model": body["model"],
            "choices": [{"message": message, "finish_reason": "stop", "token_ids": [7]}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
        }
        text = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def url() -> Iterator[str]:
    Chat.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Chat) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_from_a_step_on_another_policy_answers(workspace: Workspace, crew: Path, recorded: Trace, url: str) -> None:
    step = recorded.turns[1].span_id
    result = replay(workspace, crew, recorded.trace_id, "--from", step, "--policy", "base", "--attach", url, "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["same"], said["outcome"]["answer"]) == (False, "7")
    (asked,) = Chat.asked
    assert asked["messages"][-1]["content"] == "calculator: 6"
    shown = replay(workspace, crew, recorded.trace_id, "--from", step, "--attach", url)
    assert "turn 2 ▶" in shown.stdout


def test_what_nobody_was_asked_is_told_and_can_be_approved(
    workspace: Workspace, crew: Path, recorded: Trace, url: str
) -> None:
    bread = 'check = "topics"\nallowed = { food = ["bread"] }'
    crew.write_text(f'{CREW}[[guardrails]]\n{bread}\nat = ["answer"]\naction = "ask"\n')
    options = [recorded.trace_id, "--from", recorded.turns[1].span_id, "--attach", url]
    result = replay(workspace, crew, *options)
    assert result.exit_code == 1
    assert "nobody was asked: May this answer go on?" in result.stderr
    assert "--approve says yes" in result.stderr
    result = replay(workspace, crew, *options, "--approve", "--json")
    said = json.loads(result.stdout)
    assert (result.exit_code, said["outcome"]["answer"], said["unasked"]) == (0, "7", [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "base"], "--policy needs --from SPAN"),
        (["--approve"], "--approve needs --from SPAN"),
        (["--from", "ffff"], "no agent, model call or tool call has span 'ffff'"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(
    workspace: Workspace, crew: Path, recorded: Trace, arguments: list[str], said: str
) -> None:
    result = replay(workspace, crew, recorded.trace_id, *arguments)
    assert isinstance(result.exception, ConfigError)
    assert said in str(result.exception)


def test_a_policy_that_nobody_answers_for_is_refused_before_anything_is_run(
    workspace: Workspace, crew: Path, recorded: Trace, url: str
) -> None:
    step = recorded.turns[0].span_id
    result = replay(workspace, crew, recorded.trace_id, "--from", step, "--policy", "bog", "--attach", url)
    assert isinstance(result.exception, ConfigError)
    assert "unknown policy 'bog'" in str(result.exception)
    assert Chat.asked == []
