"""Training logged to a real MLflow server over HTTP: the run, the model with its files, and the alias."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from journeyman.runtime.adapters.adapter import WEIGHTS
from journeyman.runtime.workspace import Workspace
from journeyman.traces.messages import Message
from journeyman.training.data.samples import SFTSample
from journeyman.training.methods.job import train_adapter
from journeyman.training.methods.recipes.known import load_recipe
from journeyman.training.registry import ACTIVE, follow, model_name, register
from journeyman.training.tracking import run_of

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]

SAMPLE = SFTSample(
    agent="worker",
    policy="teacher",
    trace_id="1" * 32,
    span_ids=("1" * 16,),
    messages=(Message(role="user", content="Capital of France?"),),
    completion='{"answer": "Paris"}',
)


def test_a_run_and_its_adapter_are_in_mlflow(
    mlflow_server: str, embedded_model: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe("sft", {"trl.max_steps": 2, "trl.per_device_train_batch_size": 1})
    adapter = train_adapter(
        [SAMPLE],
        agent="worker",
        recipe=recipe,
        base_model=embedded_model,
        workspace=workspace,
        mlflow_uri=mlflow_server,
    )
    folder = workspace.adapters / adapter.policy
    registered = register(adapter, folder, uri=mlflow_server, run_id=run_of(adapter, uri=mlflow_server))
    follow("worker", adapter.digest, uri=mlflow_server)
    assert capsys.readouterr().out == "", "what a command prints with --json is JSON alone"

    client = MlflowClient(tracking_uri=mlflow_server, registry_uri=mlflow_server)
    version = client.get_model_version_by_alias(model_name("worker"), ACTIVE)
    assert str(version.version) == registered.version and version.tags["digest"] == adapter.digest
    assert version.run_id and version.source
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED" and run.data.metrics["loss"] > 0
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert WEIGHTS in {Path(file.path).name for file in client.list_logged_model_artifacts(model.model_id)}
