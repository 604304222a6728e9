"""A training run in a real MLflow store knows the dataset that it learns from."""

import json
from pathlib import Path

from journeyman.runtime.workspace import Workspace
from journeyman.traces.messages import Message
from journeyman.training.data.datasets.shelf import open_dataset
from journeyman.training.data.samples import SFTSample, write_samples
from journeyman.training.registry import _client, dataset_name
from journeyman.training.tracking import RUN, track

SAMPLE = SFTSample(
    agent="worker",
    policy="teacher",
    trace_id="1" * 32,
    span_ids=("1" * 16,),
    messages=(Message(role="user", content="Capital of France?"),),
    completion="Paris",
)


def test_a_dataset_is_an_input_of_the_run_that_learns_from_it(workspace: Workspace, tmp_path: Path) -> None:
    path = workspace.datasets / "worker.jsonl"
    write_samples([SAMPLE], path)
    dataset = open_dataset(workspace, path)
    job = {"agent": "worker", "method": "sft"}
    partial = tmp_path / "partial"
    partial.mkdir()
    for _ in range(2):  # The second time the run goes on.
        with track(workspace.mlflow_uri, partial, policy="worker@1", job=job, recipe={}) as run:
            run.learns_from(dataset, dataset_name("worker", "sft"))
    with _client(workspace.mlflow_uri) as client:
        inputs = client.get_run((partial / RUN).read_text()).inputs
    assert inputs is not None
    (given,) = inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("worker-sft", dataset.digest[:36])
    assert given.dataset.profile is not None
    assert json.loads(given.dataset.source) == {"uri": str(path)}
    profile = json.loads(given.dataset.profile)
    assert (profile["digest"], profile["rows"], profile["kind"]) == (dataset.digest, 1, "sft")
    assert {tag.key: tag.value for tag in given.tags} == {"mlflow.data.context": "training"}


def test_without_mlflow_nothing_is_told(workspace: Workspace, tmp_path: Path) -> None:
    write_samples([SAMPLE], tmp_path / "rows.jsonl")
    dataset = open_dataset(workspace, tmp_path / "rows.jsonl")
    with track(None, tmp_path, policy="worker@1", job={}, recipe={}) as run:
        run.learns_from(dataset, "worker-sft")
    assert not (tmp_path / RUN).exists()
