"""`journeyman train` says which weights it starts from, and where it goes on."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

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
from journeyman.training.data.samples import KTOSample, SFTSample, write_samples

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


def test_it_refuses_rows_of_another_kind_than_its_method_takes(workspace: Workspace) -> None:
    told = SAMPLES[0].model_dump(exclude={"kind", "edited_by", "origin"})
    data = workspace.root / "rows.jsonl"
    write_samples([KTOSample(**told, label=True, origin="thumbs")], data)
    app = typer.Typer()
    app.command()(train)
    ended = CliRunner().invoke(app, ["--agent", "worker", "--data", str(data), "-C", str(workspace.root)])
    assert isinstance(ended.exception, TrainingError)
    assert str(ended.exception) == f"{data} holds rows of kind kto, not sft: mine some with --kind sft"


def test_who_learns_is_named_in_one_way(run: Any, files: list[str]) -> None:
    assert str(run.error("train", "--data", "rows")).startswith("nobody is named who learns: give --agent")
    in_turn = ("train", "--agents", "planner, worker", *files)
    for more in ("--agent", "worker"), ("--from", "worker@1"):
        assert "--agents names all that learn" in str(run.error(*in_turn, "--recipe", "grpo", *more))
    alone = ("train", "--agent", "worker", *files, "--recipe", "grpo", "--alternate", "2")
    assert "name them with --agents" in str(run.error(*alone))


def test_agents_learn_in_turn_by_grpo_only(run: Any, files: list[str], embedded_model: Path) -> None:
    in_turn = ("train", "--agents", "worker,planner")
    assert "method sft teaches one agent at a time" in str(run.error(*in_turn, "--data", "rows"))
    assert "method rft teaches one agent at a time" in str(run.error(*in_turn, *files, "--recipe", "rft"))
    assert "crew 'echo' has no agent 'planner'" in str(run.error(*in_turn, *files, "--recipe", "grpo"))
    assert "worker: name two agents or more" in str(
        run.error("train", "--agents", "worker", *files, "--recipe", "grpo")
    )


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
