"""`journeyman traces check`: what it looks at, what it finds, and how it ends."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from journeyman.runtime.cli import build
from journeyman.runtime.workspace import Workspace
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import LogReader, SpanLog, SpanRecord
from journeyman.traces.errors import ConfigError, StoreError

DATA = Path(__file__).parents[3] / "data" / "spans"


def check(workspace: Workspace, *arguments: str) -> Result:
    options = [*arguments, "-C", str(workspace.root)]
    result = CliRunner().invoke(build(), ["traces", "check", *options], catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def recorded(workspace: Workspace) -> Workspace:
    shutil.copytree(DATA, workspace.spans)
    return workspace


def spoil(workspace: Workspace) -> SpanRecord:
    """A further run with a model call that has no provider and a name of the past."""
    chat = next(span for span in LogReader(DATA) if span.attributes[a.OPERATION] == "chat")
    kept = {name: value for name, value in chat.attributes.items() if name != a.PROVIDER}
    spoilt = {**kept, "gen_ai.system": "vllm"}
    late = chat.model_copy(update={"trace_id": "d" * 32, "start_ns": 2 * chat.start_ns, "attributes": spoilt})
    log = SpanLog(workspace.spans)
    log.append(late, sync=False)
    log.close()
    return late


def test_runs_that_conform_end_with_0(recorded: Workspace) -> None:
    result = check(recorded, "--all", "--json")
    assert result.exit_code == 0
    checked = json.loads(result.stdout)
    assert (checked["spans"], checked["findings"]) == (len(list(LogReader(DATA))), [])
    assert checked["conventions"].startswith("open-telemetry/semantic-conventions-genai@")


def test_without_a_name_the_newest_run_is_checked_and_said_to_be(recorded: Workspace) -> None:
    late = spoil(recorded)
    assert f"run {late.trace_id[:8]} alone, the newest: --all checks every run" in check(recorded).stderr
    for arguments in (["--all"], [late.trace_id], ["--file", str(DATA)]):
        assert "alone" not in check(recorded, *arguments).stderr


def test_a_finding_is_shown_with_its_span_and_ends_with_3(recorded: Workspace) -> None:
    late = spoil(recorded)
    result = check(recorded)
    assert result.exit_code == 3
    assert f"dddddddd {late.span_id} chat" in result.stdout
    assert "gen_ai.provider.name is missing" in result.stdout
    assert "gen_ai.system is deprecated: it is gen_ai.provider.name now" in result.stdout
    assert "1 spans: 1 deprecated, 1 required" in result.stdout


def test_a_run_can_be_named_by_the_start_of_its_id(recorded: Workspace) -> None:
    spoil(recorded)
    assert check(recorded, "aaaa", "bbbb").exit_code == 0
    assert check(recorded, "aaaa", "dddd").exit_code == 3


def test_a_file_can_be_checked_instead(recorded: Workspace, tmp_path: Path) -> None:
    assert check(recorded, "--file", str(DATA)).exit_code == 0
    spans = [span.model_dump_json() for span in LogReader(DATA)]
    exported = tmp_path / "exported.jsonl"
    exported.write_text("\n".join(spans) + "\n")
    result = check(recorded, "--file", str(exported), "--json")
    assert (result.exit_code, json.loads(result.stdout)["spans"]) == (0, len(spans))


def test_another_programs_spans_are_checked_as_they_were_sent(recorded: Workspace, tmp_path: Path) -> None:
    attributes = [{"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}}]
    attributes.append({"key": "gen_ai.system", "value": {"stringValue": "openai"}})
    ids = {"traceId": "a" * 32, "spanId": "b" * 16, "startTimeUnixNano": "1", "endTimeUnixNano": "2"}
    span = {**ids, "name": "chat", "kind": 3, "attributes": attributes}
    sent = tmp_path / "sent.json"
    sent.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}))
    result = check(recorded, "--file", str(sent), "--json")
    assert result.exit_code == 3
    assert {finding["rule"] for finding in json.loads(result.stdout)["findings"]} == {"deprecated", "required"}


def test_nothing_to_check_is_an_error(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing to check"):
        check(workspace)
    with pytest.raises(StoreError, match="nothing to check"):
        check(workspace, "--file", str(tmp_path))


def test_runs_and_a_file_at_once_are_refused(recorded: Workspace) -> None:
    with pytest.raises(ConfigError, match="only one of them"):
        check(recorded, "--all", "--file", str(DATA))
