"""Long trainings on the embedded model: what stops them costs a step, and running again ends as if nothing had been."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.adapters.adapter import WEIGHTS, Adapter
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import TrainingError
from journeyman.traces.messages import Message
from journeyman.training.data.samples import SFTSample, write_samples
from journeyman.training.methods.job import train_adapter
from journeyman.training.methods.recipe import Recipe, Step
from journeyman.training.methods.recipes.known import load_recipe
from journeyman.training.trainings.trainings import Training, list_trainings

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]

CAPITALS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Egypt": "Cairo"}


def samples() -> list[SFTSample]:
    return [
        SFTSample(
            agent="worker",
            policy="teacher",
            trace_id=f"{number:032x}",
            span_ids=(f"{number:016x}",),
            messages=(Message(role="user", content=f"Capital of {country}?"),),
            completion=json.dumps({"answer": capital}),
        )
        for number, (country, capital) in enumerate(CAPITALS.items())
    ]


def short(**changes: Any) -> Recipe:
    settings = {"max_steps": 3, "per_device_train_batch_size": 2} | changes
    return load_recipe(
        "sft", {"lora.target_modules": ["q_proj"], **{f"trl.{key}": value for key, value in settings.items()}}
    )


def train(folder: Path, rows: list[SFTSample] | None = None, recipe: Recipe | None = None, **more: Any) -> Adapter:
    return train_adapter(
        rows or samples(),
        agent="worker",
        recipe=recipe or short(),
        base_model=pull_model(),
        workspace=Workspace(folder / ".journeyman"),
        **more,
    )


def journal(folder: Path) -> Training:
    (training,) = list_trainings(Workspace(folder / ".journeyman"))
    return training


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Adapter, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return train(folder), folder


def test_the_journal_outlives_the_run_and_has_each_step(whole: tuple[Adapter, Path]) -> None:
    adapter, folder = whole
    training = journal(folder)
    assert (training.state, training.policy, len(training.attempts)) == ("finished", "worker@1", 1)
    assert sorted(training.steps) == [1, 2, 3]
    assert all(metrics["loss"] > 0 and metrics["tokens_per_second"] > 0 for metrics in training.steps.values())
    assert training.attempts[0].ended and training.attempts[0].ended.digest == adapter.digest
    assert training.plan is not None and "3 steps" in training.plan
    assert training.seconds >= adapter.train_seconds
    assert training.began.recipe["method"] == "sft" and "trl" in training.began.versions


def test_a_signal_saves_a_checkpoint_and_running_again_ends_as_if_nothing_had_been(
    whole: tuple[Adapter, Path], tmp_path: Path
) -> None:
    said: list[str] = []

    def interrupt(step: Step) -> None:
        if step.number == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, on_step=interrupt, say=said.append)
    assert said == ["stopping: a checkpoint is saved after this step (the same signal again ends at once)"]
    assert journal(tmp_path).state == "interrupted"
    steps: list[int] = []
    adapter = train(tmp_path, on_step=lambda step: steps.append(step.number))
    assert steps == [3]
    assert adapter.digest == whole[0].digest
    assert (journal(tmp_path).state, sorted(journal(tmp_path).steps)) == ("finished", [1, 2, 3])


def test_a_full_disk_at_a_checkpoint_loses_no_checkpoint(whole: tuple[Adapter, Path], tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step: Step) -> None:
        if step.number == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))

    try:
        with pytest.raises(TrainingError, match=r"stopped after step 2: .*; run it again to go on") as raised:
            train(tmp_path, recipe=short(save_steps=1), on_step=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(raised.value)
    assert (journal(tmp_path).state, journal(tmp_path).error) == ("failed", str(raised.value))
    steps: list[int] = []
    adapter = train(tmp_path, recipe=short(save_steps=1), on_step=lambda step: steps.append(step.number))
    assert steps == [2, 3]
    assert adapter.digest == whole[0].digest


def test_a_loss_that_is_no_number_names_the_row_that_caused_it(tmp_path: Path) -> None:
    rows = samples()
    rows[2] = rows[2].model_copy(update={"weight": 1e300})
    named = f"is not finite: the worst loss is that of the row of trace {2:032x}, span"
    with pytest.raises(TrainingError, match=named):
        train(tmp_path, rows)


def test_checkpoints_of_another_recipe_are_left_alone_and_that_is_said(tmp_path: Path) -> None:
    def end(step: Step) -> None:
        raise KeyboardInterrupt

    for recipe in (short(), short(learning_rate=1e-5)):
        said: list[str] = []
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, recipe=recipe, on_step=end, say=said.append)
    assert len(said) == 1 and said[0].startswith("worker@1 is unfinished at step 1, from other rows or another recipe")
    steps: list[int] = []
    assert train(tmp_path, on_step=lambda step: steps.append(step.number)).policy == "worker@1"
    assert steps == [2, 3]
    assert train(tmp_path, recipe=short(max_steps=1), discard=True).policy == "worker@2"
    assert not list((tmp_path / ".journeyman" / "adapters").glob(".*"))


def test_memory_that_runs_out_halves_the_pieces_and_not_the_step(tmp_path: Path) -> None:
    """Where it runs out depends on the machine, so that the error itself is raised here, as the library raises it."""
    plans: list[str] = []
    rows = samples() * 2

    def run_out(step: Step) -> None:
        if len(plans) == 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")

    recipe = short(max_steps=1, per_device_train_batch_size=8)
    adapter = train(tmp_path, rows, recipe, on_step=run_out, on_plan=lambda plan: plans.append(str(plan)))
    assert len(plans) == 2
    assert "in pieces of 4 rows because memory ran out with 8" in plans[1]
    assert (adapter.steps, adapter.recipe_digest) == (1, recipe.digest), "it is the same job"


def test_two_processes_train_what_one_does(whole: tuple[Adapter, Path], tmp_path: Path) -> None:
    data, workspace = tmp_path / "rows.jsonl", tmp_path / ".journeyman"
    write_samples(samples(), data)
    script = tmp_path / "train.py"
    script.write_text("from journeyman.runtime.cli import main\nmain()\n")
    settings = ["trl.max_steps=3", "trl.per_device_train_batch_size=2", 'lora.target_modules=["q_proj"]']
    launch = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", str(script)]
    told = ["train", "--agent", "worker", "--data", str(data), "-C", str(workspace), "--json"]
    sets = [word for setting in settings for word in ("--set", setting)]
    ended = subprocess.run(
        [sys.executable, *launch, *told, *sets],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert json.loads(ended.stdout)["number"] == 1, "one process speaks for both"
    ours, theirs = journal(tmp_path).steps, journal(whole[1]).steps
    for number in theirs:
        assert ours[number]["loss"] == pytest.approx(theirs[number]["loss"], rel=0.02)
        assert ours[number]["grad_norm"] == pytest.approx(theirs[number]["grad_norm"], rel=0.05)
    assert _distance(workspace / "adapters" / "worker@1", whole[1] / ".journeyman" / "adapters" / "worker@1") < 0.05


def _distance(ours: Path, theirs: Path) -> float:
    """Of the weights, relative to their size."""
    from safetensors.torch import load_file

    one, other = load_file(ours / WEIGHTS), load_file(theirs / WEIGHTS)
    apart = sum(float((one[name].float() - other[name].float()).square().sum()) for name in one)
    return float((apart / sum(float(other[name].float().square().sum()) for name in one)) ** 0.5)
