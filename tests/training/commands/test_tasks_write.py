"""`journeyman tasks write`: what it may be asked for, what it shows, and how it ends."""

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from journeyman.runtime.cli import build
from journeyman.runtime.console import Exit
from journeyman.runtime.serving.server import ServerState, attach
from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces.errors import JourneymanError

TOWNS = ["Bern", "Guarda", "Soglio", "Ftan"]
QUERY = "SELECT people FROM town WHERE name = '{}'"


class Shop:
    """A project with a database and tasks about it."""

    def __init__(self, workspace: Workspace) -> None:
        self.root, self.folder = workspace.root, workspace.root.parent
        self.out = self.folder / "written.jsonl"
        with closing(sqlite3.connect(self.folder / "shop.db")) as database:
            database.execute("CREATE TABLE town (name TEXT, people INTEGER)")
            database.executemany("INSERT INTO town VALUES (?, ?)", [(town, 100 + n) for n, town in enumerate(TOWNS)])
            database.commit()
        row = {"id": "t1", "prompt": "How many people live in Bern?", "reference": 100}
        (self.folder / "train.jsonl").write_text(json.dumps({**row, "metadata": {"sql": QUERY.format("Bern")}}) + "\n")
        (self.folder / "gate.jsonl").write_text('{"id": "g", "prompt": "How many people live in Ftan?"}\n')
        self.project("")

    def project(self, more: str) -> None:
        sets = '[tasks]\ntrain = "train.jsonl"\ngate = "gate.jsonl"\nnear = 0.95\n'
        (self.folder / PROJECT_FILE).write_text(sets + more)

    def __call__(self, *options: str, like: str = "train") -> Result:
        words = [option.replace("HERE", str(self.folder)) for option in options]
        words = ["tasks", "write", "--like", like, "--out", str(self.out), "-C", str(self.root), *words]
        return CliRunner().invoke(build(), words, env={"COLUMNS": "200"})

    @property
    def tasks(self) -> list[dict[str, Any]]:
        return [json.loads(row) for row in self.out.read_text().splitlines()]


@pytest.fixture
def shop(workspace: Workspace) -> Shop:
    return Shop(workspace)


VALUES = ["--how", "values", "--check", "sql:HERE/shop.db"]


def test_new_values_are_written_without_any_server(shop: Shop) -> None:
    ended = shop(*VALUES, "-n", "2")
    assert ended.exit_code == Exit.OK, ended.output
    assert {row["prompt"]: row["reference"] for row in shop.tasks} == {
        "How many people live in Guarda?": 101,
        "How many people live in Soglio?": 102,
    }
    assert "2 tasks of 2, 2 new" in ended.stdout


def test_fewer_than_wanted_is_partial_and_says_what_was_refused(shop: Shop) -> None:
    ended = shop(*VALUES, "-n", "9", "--json")
    report = json.loads(ended.stdout)
    assert (ended.exit_code, report["tasks"], report["refused"]) == (Exit.PARTIAL, 2, {"a task of gate": 1})
    assert report["examples"] == {"a task of gate": "How many people live in Ftan?"}
    shown = shop(*VALUES, "-n", "9")
    assert "a task of gate  1       How many people live in Ftan?" in shown.stdout
    assert "fewer than wanted: there is nothing more to write from" in shown.stderr


def test_nothing_written_is_a_failure_with_its_counts(shop: Shop) -> None:
    against = shop.folder / "more.jsonl"
    against.write_text("".join(f'{{"prompt": "How many people live in {town}?"}}\n' for town in TOWNS[1:3]))
    ended = shop(*VALUES, "--against", str(against))
    assert ended.exit_code == Exit.FAILED
    assert "a task of gate" in ended.stdout and f"a task of {against}"[:60] in ended.stdout
    assert shop.tasks == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--with", "nobody"], "unknown policy 'nobody'; have base, and adapters such as worker@8"),
        (["--how", "verse"], "--how verse: there is no such way; have paraphrase, values"),
        (["--how", "values"], "computes references: add --check sql:DATABASE, or --check calculation"),
        (["--how", "values", "--check", "sql:none.db"], "none.db cannot be read: No such file"),
        (["--how", "values", "--check", "sql:HERE/train.jsonl"], "is neither an SQLite nor a DuckDB file"),
        (["--how", "values", "--check", "calculation"], "nothing to write values from: it has no `calculation`"),
        (["--how", "documents"], "needs documents: add --documents PATH"),
        (["--how", "documents", "--documents", "HERE/none"], "none: cannot be read"),
        (["--check", "agree"], "write how often the model is asked again"),
        (["--check", "well"], "--check 'well' is unknown: have sql:DATABASE"),
        (["--budget", "50000"], "--budget '50000': write KEY=NUMBER, as in tokens=50000"),
        (["--budget", "token=5"], "--budget: unknown key 'token'; did you mean 'tokens'?"),
        (["--budget", "cost=1"], "a budget of `cost` needs prices"),
        (["--against", "none.jsonl"], "none.jsonl: cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_said_with_what_can(shop: Shop, options: Sequence[str], told: str) -> None:
    ended = shop(*options)
    assert isinstance(ended.exception, JourneymanError) and ended.exception.exit_code == Exit.USAGE
    assert told in str(ended.exception)
    assert not shop.out.exists()


def test_nothing_is_written_like_a_held_out_set_nor_into_a_set(shop: Shop) -> None:
    assert "nothing to write paraphrase from: a task of gate (1)" in str(shop(like="gate").exception)
    before, shop.out = (shop.folder / "train.jsonl").read_bytes(), shop.folder / "train.jsonl"
    assert "name another --out" in str(shop(*VALUES).exception)
    assert shop.out.read_bytes() == before


class Peer(BaseHTTPRequestHandler):
    """An endpoint that rewords and agrees."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = body["response_format"]["json_schema"]["schema"]["properties"]
        said = {name: True if name == "same" else "What is the population of Bern?" for name in parts}
        choice = {"message": {"role": "assistant", "content": json.dumps(said)}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 30, "completion_tokens": 10, "total_tokens": 40}
        text = json.dumps({"id": "1", "model": body["model"], "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Peer)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f'[models.big]\nurl = "http://127.0.0.1:{listener.server_address[1]}/v1"\nmodel = "m"\nretries = 0\n'
    listener.shutdown()
    thread.join()
    listener.server_close()


def test_an_endpoint_of_the_project_writes(shop: Shop, endpoint: str) -> None:
    shop.project(endpoint)
    ended = shop("--with", "big", "-n", "1", "--budget", "tokens=2000")
    assert ended.exit_code == Exit.OK, ended.output
    ((prompt, policy),) = [(row["prompt"], row["metadata"]["origin"]["policy"]) for row in shop.tasks]
    assert (prompt, policy) == ("What is the population of Bern?", "big")


def test_a_budget_that_is_used_up_has_its_own_exit_code(shop: Shop, endpoint: str) -> None:
    shop.project(endpoint)
    ended = shop("--with", "big", "-n", "3", "--budget", "model_calls=3", "--concurrency", "1")
    assert (ended.exit_code, len(shop.tasks)) == (Exit.OVER_BUDGET, 1)
    assert "fewer than wanted: the budget of model calls is used up" in ended.stderr


def test_an_endpoint_that_is_down_is_one_line_and_what_is_written_stays(shop: Shop, endpoint: str) -> None:
    shop.project(endpoint)
    shop("--with", "big", "-n", "1")
    shop.project('[models.big]\nurl = "http://127.0.0.1:9/v1"\nmodel = "m"\nretries = 0\n')
    ended = shop("--with", "big", "-n", "3")
    assert isinstance(ended.exception, JourneymanError) and ended.exception.exit_code == Exit.FAILED
    assert "cannot be reached" in str(ended.exception) and "1 tasks are in" in str(ended.exception)
    assert len(shop.tasks) == 1


@pytest.mark.serve
@pytest.mark.timeout(300)
def test_a_real_server_holds_even_a_small_model_to_the_form(
    shop: Shop, vllm_server: ServerState, workspace: Workspace
) -> None:
    attach(workspace, vllm_server.url, workspace.config.server)
    report = json.loads(shop("-n", "4", "--tries", "1", "--json").stdout)
    assert report["tasks"] + sum(report["refused"].values()) == 4
    assert not {"the model's reply has another form", "the model gave no reply"} & report["refused"].keys()
