"""`journeyman run` over a file of tasks: what it makes of the outcomes that are there already."""

import fcntl
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.batch import open_batch, read_tasks
from journeyman.runtime.commands.run import run, show_outcome
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Outcome

app = typer.Typer()
app.command()(run)

CREW = """
name = "one"

[workers.clerk]
instructions = "Work."
"""


ASKING = """
name = "one"

[workers.clerk]
instructions = "Work."
tools = ["ask"]

[tools.ask]
use = "ask"
"""


class Chat(BaseHTTPRequestHandler):
    """A chat endpoint that answers every question alike, or under `/asking` has a person asked."""

    asked: list[str]

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"])
        asks = self.path.startswith("/asking")
        said = write_call("ask", {"question": "Which?"}) if asks else write_answer("done")
        choice = {"message": {"content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 1}
        body = json.dumps({"id": "1", "model": "base", "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    Chat.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "crew.toml").write_text(CREW)
    (tmp_path / "tasks.jsonl").write_text('{"id": "a", "prompt": "one"}\n{"id": "b", "prompt": "two"}\n')
    return tmp_path


def run_tasks(folder: Path, url: str) -> Result:
    files = {"--crew": "crew.toml", "--tasks": "tasks.jsonl", "--out": "out.jsonl", "-C": ".journeyman"}
    options = [part for name, file in files.items() for part in (name, str(folder / file))]
    return CliRunner().invoke(app, [*options, "--attach", url, "--json"])


def answered(folder: Path) -> list[str]:
    return sorted(json.loads(line)["task_id"] for line in (folder / "out.jsonl").read_text().splitlines())


def test_what_a_crash_cut_short_is_run_again_and_the_rest_is_not(folder: Path, url: str) -> None:
    assert run_tasks(folder, url).exit_code == 0
    first, second = (folder / "out.jsonl").read_text().splitlines(keepends=True)
    (folder / "out.jsonl").write_text(first + second[:40])
    again = run_tasks(folder, url)
    assert json.loads(again.stdout)["ok"] == 2
    assert answered(folder) == ["a", "b"]
    assert (folder / "out.jsonl").read_text().startswith(first)


def test_a_run_that_ended_just_before_a_crash_is_not_run_again(folder: Path, url: str) -> None:
    workspace, (tasks, _) = Workspace(folder / ".journeyman"), read_tasks(folder / "tasks.jsonl")
    with pytest.raises(KeyboardInterrupt), open_batch(workspace, folder / "out.jsonl", tasks) as batch:
        runtime = Runtime.open(folder / "crew.toml", workspace=workspace, attach=url)
        assert runtime.run_sync(tasks[0], run_id=batch.run_id("one", tasks[0])).status == "ok"
        runtime.close()
        raise KeyboardInterrupt
    assert answered(folder) == []
    assert json.loads(run_tasks(folder, url).stdout)["ok"] == 2
    assert (answered(folder), Chat.asked) == (["a", "b"], ["one", "two"])


def test_a_task_that_was_changed_is_another_one(folder: Path) -> None:
    workspace, (tasks, _) = Workspace(folder / ".journeyman"), read_tasks(folder / "tasks.jsonl")
    changed = tasks[0].model_copy(update={"prompt": "uno"})
    with open_batch(workspace, folder / "out.jsonl", tasks) as batch:
        assert len({batch.run_id("one", tasks[0]), batch.run_id("one", changed), batch.run_id("two", tasks[0])}) == 3


def test_a_new_file_is_a_new_batch(folder: Path, url: str) -> None:
    for _ in range(2):
        assert json.loads(run_tasks(folder, url).stdout)["ok"] == 2
        (folder / "out.jsonl").unlink()
    assert sorted(Chat.asked) == ["one", "one", "two", "two"]
    assert not any((folder / ".journeyman" / "batches").iterdir())


def test_two_at_once_never_run_the_tasks_of_one_file_twice(folder: Path, url: str) -> None:
    with (folder / "out.jsonl").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        refused = run_tasks(folder, url).exception
    assert isinstance(refused, ConfigError) and "another `journeyman run` writes" in str(refused)
    assert answered(folder) == []
    assert run_tasks(folder, url).exit_code == 0
    assert answered(folder) == ["a", "b"]


@pytest.mark.parametrize("held", [b"dear diary", b"dear diary\n", b'{"id": 1}', b"\xff\xfe", b'{"task_id": 1}\n{"task'])
def test_a_file_that_holds_something_else_is_refused_and_left_as_it_is(folder: Path, held: bytes) -> None:
    (folder / "out.jsonl").write_bytes(held)
    refused = run_tasks(folder, "http://127.0.0.1:9").exception
    assert isinstance(refused, ConfigError)
    assert "holds something other than outcomes" in str(refused)
    assert (folder / "out.jsonl").read_bytes() == held


def test_runs_that_wait_are_named_with_what_goes_on_with_them(folder: Path, url: str) -> None:
    (folder / "crew.toml").write_text(ASKING)
    options = [str(folder / "crew.toml"), "--tasks", str(folder / "tasks.jsonl"), "--out", str(folder / "out.jsonl")]
    options = ["--crew", *options, "-C", str(folder / ".journeyman"), "--attach", f"{url}/asking"]
    told = CliRunner().invoke(app, options)
    assert told.exit_code == 4
    assert told.stderr.count("go on with: journeyman runs show ") == 2
    waiting = json.loads(CliRunner().invoke(app, [*options, "--json"]).stdout)["waiting"]
    assert list(waiting.values()) == ["needs_input"] * 2
    assert (folder / "out.jsonl").read_text() == ""


def test_an_answer_cannot_take_over_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome(
        task_id="t", trace_id="a" * 32, status="failed", answer="done\n\x1b]0;mine\x07", error="\x1b[2Kno"
    )
    show_outcome(outcome)
    printed = capsys.readouterr()
    assert printed.out == "done\n\ufffd]0;mine\ufffd\n"
    assert "\x1b" not in printed.err
