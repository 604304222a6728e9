"""`journeyman train` says which weights it starts from, and where it goes on."""

import json
from hashlib import sha256

import pytest
import typer
from typer.testing import CliRunner

from journeyman.runtime.adapters.adapter import load_adapter
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import TrainingError
from journeyman.traces.messages import Message
from journeyman.training.commands.train import train
from journeyman.training.data.datasets.card import Profile, Provenance, write_card
from journeyman.training.data.samples import SFTSample, write_samples

SAMPLES = [
    SFTSample(
        agent="worker",
        policy="teacher",
        trace_id=f"{number:032x}",
        span_ids=(f"{number:016x}",),
        messages=(Message(role="user", content=f"{number}?"),),
        completion=json.dumps({"answer": str(number)}),
    )
    for number in range(4)
]


@pytest.mark.train
@pytest.mark.timeout(300)
def test_it_says_that_it_starts_from_the_base_model_and_not_from_the_adapter_in_service(workspace: Workspace) -> None:
    Journal(workspace.journal).append("worker", "promote", "worker@1", expected="base", digest="d" * 64, reason="test")
    data = workspace.root / "rows.jsonl"
    write_samples(SAMPLES, data)
    app = typer.Typer()
    app.command()(train)
    mlflow = f"sqlite:///{workspace.root / 'mlflow.db'}"
    options = ["--set", "trl.max_steps=2", "--set", "trl.save_steps=1", "--mlflow", mlflow, "-C", str(workspace.root)]
    arguments = ["--agent", "worker", "--data", str(data), *options]
    ended = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert ended.exit_code == 0, ended.output
    base = "the base model smollm2-135m-instruct, not from worker@1, which the adapter would replace"
    assert f"training starts from {base}" in ended.stderr
    assert "to replace worker@1" in ended.stdout
    adapter = load_adapter(workspace.adapters / "worker@1")
    (kept,) = workspace.datasets.glob("*.jsonl")
    assert adapter.dataset_digest == sha256(data.read_bytes()).hexdigest() == sha256(kept.read_bytes()).hexdigest()
    again = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert "training starts" not in again.stderr, "the same job is there already"


def test_a_dataset_that_was_changed_is_refused_by_its_digest(workspace: Workspace) -> None:
    data = workspace.datasets / "worker.jsonl"
    digest = write_samples(SAMPLES, data)
    profile = Profile()
    card = profile.card(digest, Provenance(workspace.store), turns=4, refused={})
    write_card(card, data)
    data.write_bytes(data.read_bytes().replace(b"0?", b"1?"))
    app = typer.Typer()
    app.command()(train)
    ended = CliRunner().invoke(app, ["--agent", "worker", "--data", "worker", "-C", str(workspace.root)])
    assert isinstance(ended.exception, TrainingError)
    assert f"was changed after it was made (its card says {digest[:12]}" in str(ended.exception)
