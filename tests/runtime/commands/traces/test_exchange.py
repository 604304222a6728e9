"""`journeyman traces export` and `import`: what leaves one workspace comes into another, once."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from journeyman.runtime.commands.traces.exchange import export_command, import_command
from journeyman.runtime.workspace import Workspace
from journeyman.traces.assemble import refusal
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.errors import ConfigError, DeliveryError
from journeyman.traces.exchange.receive import Receiver
from journeyman.traces.labels import Label, LabelLog
from journeyman.traces.tombstones import Tombstones

DATA = Path(__file__).parents[3] / "data"


class Kept:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.spans: list[SpanRecord] = []

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        self.spans.append(span)


@pytest.fixture
def recorded(tmp_path: Path) -> Workspace:
    shutil.copytree(DATA / "spans", tmp_path / "recorded" / ".journeyman" / "spans")
    return Workspace(tmp_path / "recorded" / ".journeyman")


def run(workspace: Workspace, *arguments: object) -> Result:
    app = typer.Typer()
    app.command("export")(export_command)
    app.command("import")(import_command)
    return CliRunner().invoke(app, [*map(str, arguments), "-C", str(workspace.root)])


def spans_of(workspace: Workspace) -> list[SpanRecord]:
    return sorted(workspace.store.spans(), key=lambda span: (span.trace_id, span.span_id))


@pytest.mark.parametrize("name", ["spans.jsonl", "spans.parquet", "spans.json"])
def test_what_one_workspace_exports_another_imports_once(
    recorded: Workspace, workspace: Workspace, tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    told = json.loads(run(recorded, "export", "--to", file, "--json").stdout)
    assert told == {"to": str(file), "spans": len(spans_of(recorded)), "refused": 0}
    first = json.loads(run(workspace, "import", file, "--json").stdout)
    assert (first["spans"], first["known"]) == (told["spans"], 0)
    assert spans_of(workspace) == spans_of(recorded)
    again = json.loads(run(workspace, "import", file, "--json").stdout)
    assert (again["spans"], again["known"]) == (0, told["spans"])
    assert spans_of(workspace) == spans_of(recorded)


@pytest.mark.parametrize(
    ("options", "traces"),
    [
        (["--trace", "aaaa"], "a"),
        (["--trace", "aaaa", "--trace", "cccc"], "ac"),
        (["--policy", "teacher"], "b"),
        (["--status", "unfinished"], "c"),
        (["--label", "score"], "a"),
        (["--since", "2099-01-01"], ""),
        (["--until", "2099-01-01"], "abc"),
        (["--agent", "nobody"], ""),
    ],
)
def test_only_the_runs_that_are_asked_for_leave(
    recorded: Workspace, tmp_path: Path, options: list[str], traces: str
) -> None:
    LabelLog(recorded.labels).append(Label(trace_id="a" * 32, name="score", source="test", value=1.0))
    assert run(recorded, "export", "--to", tmp_path / "spans.jsonl", *options).exit_code == 0
    lines = (tmp_path / "spans.jsonl").read_text().splitlines()
    assert {json.loads(line)["trace_id"][0] for line in lines} == set(traces)


@pytest.mark.parametrize(
    "options",
    [[], ["--to", "spans.jsonl", "--otlp", "http://127.0.0.1:1"], ["--to", "spans.csv"], ["--otlp", "ftp://x"]],
)
def test_an_unclear_target_is_a_usage_error(recorded: Workspace, options: list[str]) -> None:
    assert isinstance(run(recorded, "export", *options).exception, ConfigError)


@pytest.fixture
def receiver() -> Iterator[tuple[Kept, str]]:
    sink = Kept()
    with closing(Receiver(sink)) as receiver:
        yield sink, receiver.url


def test_an_endpoint_gets_the_spans_as_they_are(recorded: Workspace, receiver: tuple[Kept, str]) -> None:
    sink, url = receiver
    result = run(recorded, "export", "--otlp", url)
    assert result.exit_code == 0
    assert result.stdout == f"{len(sink.spans)} spans to {url}\n"
    assert sorted(sink.spans, key=lambda span: (span.trace_id, span.span_id)) == spans_of(recorded)


@pytest.mark.parametrize("option", [["--otlp", "grpc://{}"], ["--mlflow", "http://{}"]])
def test_an_endpoint_that_is_down_is_one_line(recorded: Workspace, free_port: int, option: list[str]) -> None:
    failed = run(recorded, "export", *[part.format(f"127.0.0.1:{free_port}") for part in option])
    assert isinstance(failed.exception, DeliveryError) and failed.exception.exit_code == 1
    assert "it took 0 spans before" in str(failed.exception) and "\n" not in str(failed.exception)


def test_headers_come_from_an_environment_variable(recorded: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADERS", "no headers, secret")
    refused = run(recorded, "export", "--otlp", "http://127.0.0.1:1", "--headers-env", "HEADERS").exception
    assert isinstance(refused, ConfigError) and "secret" not in str(refused)
    absent = run(recorded, "export", "--otlp", "http://127.0.0.1:1", "--headers-env", "NOT_THERE").exception
    assert isinstance(absent, ConfigError) and "NOT_THERE" in str(absent)


def test_chat_logs_become_runs_that_can_be_mined(workspace: Workspace) -> None:
    logs = [DATA / "imports" / name for name in ("requests.jsonl", "finetune.jsonl", "langgraph.json")]
    result = run(workspace, "import", *logs, "--agent", "lookup", "--family", "rivers", "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert (told["labels"], told["broken"]) == (2, [])
    found = list(workspace.store.traces(agent="lookup"))
    assert {trace.task.family for trace in found if trace.task} == {"rivers"}
    usable = [
        turn
        for trace in found
        for trajectory in trace.trajectories
        for turn in trajectory.turns
        if refusal(turn, trajectory) is None
    ]
    assert len(usable) == 8
    assert sum(trace.label("score") is not None for trace in found) == 1


def test_a_score_that_has_changed_is_a_new_version_of_the_label(workspace: Workspace, tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    talk = {"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "5"}]}
    for score in (1.0, 1.0, 0.0):
        log.write_text(json.dumps(talk | {"score": score}))
        assert run(workspace, "import", log).exit_code == 0
    (trace,) = workspace.store.traces()
    assert [(one.value, one.version) for one in LabelLog(workspace.labels)] == [(1.0, 1), (0.0, 2)]
    assert len(trace.turns) == 1


def test_a_broken_line_is_named_and_the_rest_is_there(workspace: Workspace) -> None:
    file = DATA / "imports" / "broken.jsonl"
    result = run(workspace, "import", file)
    assert result.exit_code == 3
    assert [line.removeprefix(f"{file}: ").split(":")[0] for line in result.stderr.splitlines()] == [
        f"line {number}" for number in (2, 3, 4, 5, 6)
    ]
    assert len(list(workspace.store.traces())) == 2


def test_a_file_of_which_nothing_can_be_taken_fails_and_names_the_first_lines(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "log.jsonl").write_text("{}\n" * 30)
    result = run(workspace, "import", tmp_path / "log.jsonl", "--format", "chat")
    assert result.exit_code == 1
    *_, last, more = result.stderr.splitlines()
    assert "line 20: no conversation" in last and more == "and 10 more: --json has all"


def test_secrets_are_taken_out_before_anything_is_written(workspace: Workspace, tmp_path: Path) -> None:
    secret = "sk-proj-" + "Zr7Qm2Kx9Tb4Wn8Vc3Ld6Pf1" * 2
    (tmp_path / "log.json").write_text(
        json.dumps({"messages": [{"role": "user", "content": secret}, {"role": "assistant", "content": "Thanks."}]})
    )
    assert run(workspace, "import", tmp_path / "log.json").exit_code == 0
    assert spans_of(workspace)
    assert not [path for path in workspace.root.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_what_was_deleted_stays_deleted(recorded: Workspace, tmp_path: Path) -> None:
    run(recorded, "export", "--to", tmp_path / "spans.jsonl")
    shutil.rmtree(recorded.spans)
    Tombstones(recorded.spans).add(["a" * 32], reason="test")
    told = json.loads(run(recorded, "import", tmp_path / "spans.jsonl", "--json").stdout)
    assert told["deleted"] == 20
    assert {span.trace_id[0] for span in spans_of(recorded)} == {"b", "c"}


def test_a_file_of_no_known_format_imports_nothing(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Dear diary")
    assert isinstance(run(workspace, "import", tmp_path / "notes.txt").exception, ConfigError)
    assert spans_of(workspace) == []
