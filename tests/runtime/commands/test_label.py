"""`journeyman label`: what people say of a run, one at a time or from a file."""

import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from journeyman.runtime.commands.label import label
from journeyman.traces import attributes as a
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.labels import Label, LabelLog
from journeyman.traces.storage.store import TraceStore

SPANS = Path(__file__).parents[2] / "data" / "spans"
LEARNED = "a" * 32


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    shutil.copytree(SPANS, tmp_path / "spans")
    return tmp_path


def say(workspace: Path, *arguments: str) -> Result:
    app = typer.Typer()
    app.command()(label)
    return CliRunner().invoke(app, [*arguments, "-C", str(workspace)], env={"LOGNAME": "ann"})


def kept(workspace: Path) -> list[Label]:
    return list(LabelLog(workspace / "labels.jsonl"))


@pytest.mark.parametrize(
    ("text", "value"), [("0.5", 0.5), ("1", 1.0), ("true", True), ("poor", "poor"), ("nan", "nan")]
)
def test_a_statement_is_kept(workspace: Path, text: str, value: object) -> None:
    assert say(workspace, "aaaa", "score", text, "--comment", "[b]why").exit_code == 0
    (said,) = kept(workspace)
    assert (said.trace_id, said.name, said.value, said.comment) == (LEARNED, "score", value, "[b]why")
    assert (said.source, said.source_type, said.version) == ("ann", "human", 1)


def test_a_source_of_another_kind_may_speak_too(workspace: Path) -> None:
    options = ["--source", "exact", "--source-type", "code", "--version", "3", "--json"]
    (shown,) = json.loads(say(workspace, "aaaa", "score", "1", *options).stdout)
    (said,) = kept(workspace)
    assert (said.source, said.source_type, said.version) == ("exact", "code", 3)
    assert Label.model_validate(shown) == said


def test_thumbs_a_better_reply_and_the_reason_in_one_go(workspace: Path) -> None:
    assert say(workspace, "aaaa", "--down", "--edit", "The Daugava.", "--comment", "wrong river").exit_code == 0
    assert [(one.name, one.value, one.comment) for one in kept(workspace)] == [
        ("thumbs", False, "wrong river"),
        ("edit", "The Daugava.", "wrong river"),
    ]


def test_a_comment_alone_is_a_statement(workspace: Path) -> None:
    assert say(workspace, "aaaa", "--comment", "nice").exit_code == 0
    assert [(one.name, one.value) for one in kept(workspace)] == [("comment", "nice")]


def test_a_label_of_a_span_must_name_one_that_is_there(workspace: Path) -> None:
    assert say(workspace, "aaaa", "--up", "--span", "0000000000000004").exit_code == 0
    assert kept(workspace)[0].span_id == "0000000000000004"
    assert isinstance(say(workspace, "aaaa", "--up", "--span", "feed").exception, StoreError)
    assert isinstance(say(workspace, "aaaa", "--up", "--span", "0000").exception, StoreError), "which of them?"


def test_only_a_model_call_has_a_reply_to_edit(workspace: Path) -> None:
    kinds = {
        span.attributes.get(a.OPERATION): span.span_id
        for span in TraceStore(SPANS, SPANS / "labels.jsonl").spans(ids=[LEARNED])
    }
    error = say(workspace, "aaaa", "--edit", "The Daugava.", "--span", kinds["execute_tool"]).exception
    assert isinstance(error, StoreError) and "isn't a model call (execute_tool)" in str(error)
    gone = say(workspace, "aaaa", "--edit", "The Daugava.", "--span", "feed").exception
    assert isinstance(gone, StoreError) and "\n" not in str(gone)
    assert kept(workspace) == []
    assert say(workspace, "aaaa", "--edit", "The Daugava.", "--span", kinds["chat"]).exit_code == 0
    assert [one.span_id for one in kept(workspace)] == [kinds["chat"]]


@pytest.mark.parametrize(
    "arguments",
    [
        ["aaaa"],
        ["aaaa", "score"],
        [],
        ["aaaa", "--up", "--file", "labels.jsonl"],
        ["--file", "labels.jsonl", "--up"],
        ["--file", "labels.jsonl", "--source", "exact"],
        ["aaaa", "--up", "--headers-env", "KEYS"],
        ["aaaa", "", "1"],
        ["aaaa", "score", " "],
        ["aaaa", "--edit", ""],
        ["--file", "labels.jsonl", "--from-mlflow", "http://127.0.0.1:1"],
        ["--file", "nowhere.jsonl"],
    ],
)
def test_a_command_that_says_nothing_clear_is_a_usage_error(workspace: Path, arguments: list[str]) -> None:
    assert isinstance(say(workspace, *arguments).exception, ConfigError)
    assert kept(workspace) == []


def test_an_unknown_run_is_a_store_error_of_one_line(workspace: Path) -> None:
    error = say(workspace, "feed", "--up").exception
    assert isinstance(error, StoreError) and "\n" not in str(error)


def test_a_file_of_labels_is_taken_line_by_line(workspace: Path) -> None:
    file = workspace / "feedback.jsonl"
    rows = [
        {"trace_id": LEARNED, "name": "score", "value": 1.0, "source": "exact", "source_type": "code", "at_ns": 7},
        {"trace_id": LEARNED, "name": "thumbs", "value": True},
        {"trace_id": "e" * 32, "name": "thumbs", "value": True},
        {"trace_id": LEARNED, "name": "thumbs"},
        {"trace_id": LEARNED, "name": "thumbs", "value": True, "colour": "red"},
        [],
        {"trace_id": LEARNED, "name": "thumbs", "value": {"up": True}},
    ]
    file.write_text("\n".join(["{", "", *map(json.dumps, rows)]))
    result = say(workspace, "--file", str(file))
    assert result.exit_code == 3
    assert [(one.name, one.source, one.source_type) for one in kept(workspace)] == [
        ("score", "exact", "code"),
        ("thumbs", "ann", "human"),
    ]
    assert kept(workspace)[0].at_ns == 7
    told = result.stderr.splitlines()
    assert [line.split(": ")[1] for line in told] == [f"line {number}" for number in (1, 5, 6, 7, 8, 9)]
    assert f"there is no trace '{'e' * 32}'" in told[1] and "'value' is missing" in told[2]
    assert told[5].endswith("'value': it is true, false, a finite number, or a text")


def test_a_file_of_which_nothing_can_be_taken_fails(workspace: Path) -> None:
    (workspace / "feedback.jsonl").write_text('{"trace_id": "aaaa", "name": "thumbs", "value": true}\n')
    result = say(workspace, "--file", str(workspace / "feedback.jsonl"))
    assert result.exit_code == 1 and "a file has whole ids" in result.stderr


def test_labels_that_were_kept_elsewhere_come_back_whole(workspace: Path, tmp_path: Path) -> None:
    say(workspace, "aaaa", "score", "0.5", "--comment", "why")
    before = kept(workspace)
    shutil.move(workspace / "labels.jsonl", workspace / "elsewhere.jsonl")
    assert say(workspace, "--file", str(workspace / "elsewhere.jsonl")).exit_code == 0
    assert kept(workspace) == before
