"""Recording: a workspace's settings decide what reaches the record and its views."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.worker import write_answer
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.labels import Label, LabelLog
from journeyman.traces.trace import Task

CREW = Crew(name="one", orchestrator=None, workers=(Agent(name="lookup", instructions="Look up."),), tools={})
PAST = SpanRecord(
    trace_id="f" * 32,
    span_id="1" * 16,
    parent_id=None,
    name="chat",
    kind="client",
    start_ns=1,
    end_ns=2,
    status="ok",
    attributes={"journeyman.goal": "ask ann@example.com"},
)
KEY = "sk-proj-Zx9Qm2Lw7Rt4Vb8Ny3Kc6Hd1Jf5Gs0Ap"


@pytest.fixture
def settings(workspace: Workspace) -> "Settings":
    return Settings(workspace)


class Settings:
    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def write(self, *lines: str) -> Workspace:
        (self.workspace.root.parent / PROJECT_FILE).write_text("\n".join(["[traces]", *lines]), encoding="utf-8")
        return self.workspace


async def work(workspace: Workspace, prompt: str, *, runs: int = 1) -> None:
    with Recording(workspace) as recording:
        for number in range(runs):
            model = ScriptedModel([write_answer("none")])
            task = Task(id=f"q{number}", prompt=prompt, user="ann@example.com")
            await Runtime(CREW, model=model, tracer=recording.tracer).run(task)


def everything(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


async def test_without_settings_a_run_is_recorded_whole_but_for_keys(workspace: Workspace) -> None:
    await work(workspace, f"Ask ann@example.com with {KEY}")
    (trace,) = workspace.store.traces()
    assert trace.task is not None
    assert trace.task.prompt == "Ask ann@example.com with [redacted:key]"
    assert KEY not in everything(workspace.root)


def test_spans_of_the_past_are_redacted_like_all(settings: Settings) -> None:
    workspace = settings.write('redact = ["email"]')
    with Recording(workspace) as recording:
        recording.keep([PAST])
    (kept,) = workspace.store.spans()
    assert kept.attributes["journeyman.goal"] == "ask [redacted:email]"


def test_spans_of_the_past_that_the_disk_refuses_are_an_error_also_where_a_run_goes_on(settings: Settings) -> None:
    workspace = settings.write('on_full = "continue"')
    workspace.create().spans.touch()  # Where the folder should be.
    with Recording(workspace) as recording, pytest.raises(StoreError, match="spans were not written"):
        recording.keep([PAST])


async def test_what_is_to_be_redacted_never_touches_the_disk(settings: Settings) -> None:
    workspace = settings.write('redact = ["keys", "email"]')
    await work(workspace, f"Ask ann@example.com with {KEY}")
    assert KEY not in everything(workspace.root)
    assert "ann@example.com" not in everything(workspace.root)
    (trace,) = workspace.store.traces()
    assert [turn.withheld for turn in trace.turns] == ["redacted"]


@pytest.mark.parametrize("content", ["digest", "off"])
async def test_with_the_content_off_there_are_runs_without_texts(settings: Settings, content: str) -> None:
    workspace = settings.write(f'content = "{content}"')
    await work(workspace, "Who was Nebuchadnezzar?")
    assert "Nebuchadnezzar" not in everything(workspace.root)
    (trace,) = workspace.store.traces(status="ok", user="ann@example.com")
    assert trace.task is not None and trace.task.id == "q0"
    turns = workspace.store.sql("SELECT refusal FROM turns").to_pylist()
    assert turns == [{"refusal": "content not recorded"}]


async def test_log_files_are_as_large_as_the_settings_say(settings: Settings) -> None:
    workspace = settings.write("rotate_mb = 0.01")
    await work(workspace, "Who? " * 200, runs=4)
    files = list(workspace.spans.glob("*.jsonl"))
    assert len(files) > 1
    assert all(path.stat().st_size <= 0.01 * 2**20 for path in files)
    assert len(list(workspace.store.traces())) == 4


def test_labels_are_redacted_and_kept(settings: Settings) -> None:
    workspace = settings.write('redact = ["email"]')
    with Recording(workspace) as recording:
        recording.label(
            Label(
                trace_id="a" * 32, name="comment", source="me", value="ask ann@example.com", comment="bob@example.com"
            ),
            Label(trace_id="a" * 32, name="score", source="me", value=0.5),
        )
    said, score = LabelLog(workspace.labels)
    assert (said.value, said.comment, score.value) == ("ask [redacted:email]", "[redacted:email]", 0.5)


def test_a_further_sink_sees_what_the_log_sees(workspace: Workspace) -> None:
    seen: list[SpanRecord] = []

    class Sink:
        def append(self, span: SpanRecord, *, sync: bool) -> None:
            seen.append(span)

    with Recording(workspace, Sink()) as recording, recording.tracer.span("run", parent=None) as span:
        span.set({"said": KEY})
    assert [one.attributes["said"] for one in seen] == ["[redacted:key]"]


async def test_a_view_that_is_down_costs_a_line_and_nothing_else(
    settings: Settings, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = settings.write("[[traces.views]]", f'url = "http://127.0.0.1:{free_port}"')
    with caplog.at_level(logging.WARNING, "journeyman"):
        await work(workspace, "Who?")
    assert len(list(workspace.store.traces())) == 1
    (loss,) = [record.message for record in caplog.records if record.name == "journeyman.runtime.recording.recording"]
    assert f"127.0.0.1:{free_port} did not get" in loss


def test_an_unknown_redaction_is_told_with_those_there_are(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="'mail'; have keys, email, card, phone"):
        Recording(settings.write('redact = ["mail"]'))


def test_recording_imports_nothing_heavy() -> None:
    heavy = "sorted({'duckdb', 'pyarrow', 'torch'} & set(sys.modules))"
    script = f"import sys, journeyman.runtime.recording.recording; print({heavy})"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


async def test_a_full_log_file_becomes_a_segment_while_the_process_lives(settings: Settings) -> None:
    workspace = settings.write("rotate_mb = 0.02")
    with Recording(workspace, compacts=True) as recording:
        for number in range(12):
            with recording.tracer.span("run", parent=None) as span:
                span.set({"text": f"{number} " * 1500})
        assert recording.compaction is not None
        recording.compaction.join(60)
        assert list(workspace.spans.glob("segments/*/*.parquet"))
        assert len(workspace.store.ids()) == 12
