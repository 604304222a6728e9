"""Runs and labels on a real MLflow server, and what people say there back in the record."""

import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from journeyman.runtime.commands.label import label
from journeyman.runtime.commands.traces.exchange import export_command
from journeyman.runtime.workspace import Workspace
from journeyman.traces.labels import Label, LabelLog, newest

pytestmark = [pytest.mark.serve, pytest.mark.filterwarnings("ignore")]

SPANS = Path(__file__).parents[2] / "data" / "spans"
LEARNED = "a" * 32
CHAT = "0000000000000004"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    shutil.copytree(SPANS, tmp_path / ".journeyman" / "spans")
    return Workspace(tmp_path / ".journeyman")


def run(workspace: Workspace, *arguments: str) -> dict[str, object]:
    app = typer.Typer()
    app.command("export")(export_command)
    app.command("label")(label)
    done = CliRunner().invoke(app, [*arguments, "-C", str(workspace.root), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    told: dict[str, object] = json.loads(done.stdout)
    return told


def test_labels_go_to_mlflow_and_what_people_say_there_comes_back(mlflow_server: str, workspace: Workspace) -> None:
    import mlflow
    from mlflow.entities import AssessmentSource, Expectation, Feedback
    from mlflow.tracing.client import TracingClient

    workspace.store.label(
        Label(trace_id=LEARNED, name="score", source="exact", value=0.5, comment="one of two"),
        Label(trace_id=LEARNED, name="thumbs", source="ann", source_type="human", value=False, span_id=CHAT),
        Label(trace_id=LEARNED, name="edit", source="ann", source_type="human", value="Daugava, Neris."),
    )
    told = run(workspace, "export", "--mlflow", mlflow_server)
    assert told["labels"] == 3
    assert run(workspace, "export", "--mlflow", mlflow_server)["labels"] == 0, "twice is once"

    mlflow.set_tracking_uri(mlflow_server)
    trace = mlflow.get_trace(f"tr-{LEARNED}")
    assert trace is not None
    assert {span.span_type for span in trace.data.spans} >= {"AGENT", "CHAT_MODEL", "TOOL"}
    assert len(trace.data.spans) == 20
    shown = {assessment.name: assessment for assessment in trace.info.assessments}
    score, thumbs, edit = shown["score"], shown["thumbs"], shown["expected_response"]
    assert isinstance(score, Feedback) and isinstance(thumbs, Feedback) and isinstance(edit, Expectation)
    assert (score.value, score.rationale, score.source.source_type) == (0.5, "one of two", "CODE")
    assert (thumbs.value, thumbs.span_id, thumbs.source.source_id) == (False, CHAT, "ann")
    assert (edit.value, edit.source.source_type) == ("Daugava, Neris.", "HUMAN")

    assert run(workspace, "label", "--from-mlflow", mlflow_server)["labels"] == 0, "all of it is ours"
    client = TracingClient(mlflow_server)
    ben, judge = AssessmentSource("HUMAN", "ben"), AssessmentSource("LLM_JUDGE", "gpt")
    client.log_assessment(f"tr-{LEARNED}", Feedback("helpful", True, source=ben, rationale="clear"))
    client.log_assessment(f"tr-{LEARNED}", Feedback("score", 0.75, source=judge))
    client.update_assessment(f"tr-{LEARNED}", str(thumbs.assessment_id), Feedback("thumbs", True, source=thumbs.source))
    assert run(workspace, "label", "--from-mlflow", mlflow_server)["labels"] == 3
    assert run(workspace, "label", "--from-mlflow", mlflow_server)["labels"] == 0
    assert run(workspace, "export", "--mlflow", mlflow_server)["labels"] == 0, "nothing goes back to where it was said"

    last = {(one.name, one.source): one for one in newest(LabelLog(workspace.labels))}
    helpful, thumbs_up = last["helpful", "ben"], last["thumbs", "ann"]
    assert (helpful.value, helpful.comment, helpful.source_type) == (True, "clear", "human")
    assert (last["score", "gpt"].value, last["score", "gpt"].source_type) == (0.75, "llm_judge")
    assert (thumbs_up.value, thumbs_up.version, thumbs_up.span_id) == (True, 2, CHAT)


def test_what_other_workspaces_said_there_is_left_alone(
    mlflow_server: str, workspace: Workspace, tmp_path: Path
) -> None:
    workspace.store.label(Label(trace_id=LEARNED, name="note", source="ann", value="x"))
    run(workspace, "export", "--mlflow", mlflow_server)
    elsewhere = Workspace(tmp_path / "elsewhere")
    told = run(elsewhere, "label", "--from-mlflow", mlflow_server)
    assert told["labels"] == 0 and told["foreign"] != 0
    assert list(LabelLog(elsewhere.labels)) == []
