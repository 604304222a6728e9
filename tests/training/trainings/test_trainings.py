"""Journals of trainings are read as they were written, torn or not, and their commands show them."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError
from journeyman.training.commands.trainings import app
from journeyman.training.trainings.events import Began, Ended, Event, Planned, Spent, Stepped
from journeyman.training.trainings.trainings import differences, find_training, list_trainings


def began(step: int = 0, **changes: object) -> Began:
    told = {
        "at_ns": 1,
        "pid": 1,
        "policy": "worker@1",
        "job": {"method": "sft"},
        "recipe": {"trl": {"learning_rate": 1e-3}},
        "versions": {"torch": "1"},
        "step": step,
        "watts": 36.0,
        "cost_per_hour": 7.2,
    }
    return Began.model_validate(told | changes)


def made(number: int, loss: float, seconds: float, **metrics: float) -> Stepped:
    return Stepped(
        at_ns=2, step=number, steps=4, metrics={"loss": loss, **metrics}, spent=Spent(seconds=seconds, joules=None)
    )


def write(workspace: Workspace, name: str, *events: Event, torn: str = "") -> None:
    workspace.trainings.mkdir(parents=True, exist_ok=True)
    lines = "".join(event.model_dump_json(exclude_none=True) + "\n" for event in events)
    (workspace.trainings / f"{name}.jsonl").write_text(lines + torn)


@pytest.fixture
def two(workspace: Workspace) -> Workspace:
    """One that was killed at step 3 and went on from step 2, and one that failed."""
    planned = Planned(plan={}, said="1.0 epochs of 8 rows, 4 steps")
    ended = Ended(at_ns=9, state="finished", digest="d" * 64, spent=Spent(seconds=60))
    first: list[Event] = [began(), planned, made(1, 3.0, 10), made(2, 2.0, 20), made(3, 9.0, 30)]
    write(workspace, "worker@1-aaaaaaaa", *first, began(2), made(3, 1.5, 10), made(4, 1.0, 20, eval_loss=1.2), ended)
    failed = Ended(
        at_ns=9, state="failed", error="disk full: make room", spent=Spent(seconds=5, joules=72, source="rapl")
    )
    other = began(at_ns=5, policy="worker@2", recipe={"trl": {"learning_rate": 1e-4}})
    write(workspace, "worker@2-bbbbbbbb", other, made(1, 3.0, 1), failed)
    return workspace


def test_a_step_that_was_made_again_after_a_kill_counts_as_it_was_made_last(two: Workspace) -> None:
    training = find_training(two, "worker@1")
    assert [training.steps[number]["loss"] for number in (1, 2, 3, 4)] == [3.0, 2.0, 1.5, 1.0]
    assert (training.state, training.seconds, training.planned_steps) == ("finished", 90.0, 4)


def test_energy_is_counted_or_else_estimated_and_cost_follows_the_hour(two: Workspace) -> None:
    first, second = list_trainings(two)
    assert first.energy is not None and first.energy.source == "estimated"
    assert first.energy.watt_hours == pytest.approx(36 * 90 / 3600)
    assert first.cost == pytest.approx(7.2 * 90 / 3600)
    assert second.energy is not None and (second.energy.source, second.energy.joules) == ("rapl", 72)


def test_what_differs_is_told_by_its_key(two: Workspace) -> None:
    assert differences(list_trainings(two)) == {"recipe.trl.learning_rate": [1e-3, 1e-4]}


def test_a_torn_line_is_passed_over_and_a_killed_training_is_interrupted(workspace: Workspace) -> None:
    write(workspace, "worker@1-aaaaaaaa", began(), made(1, 3.0, 10), torn='{"event": "st')
    (training,) = list_trainings(workspace)
    assert (training.state, training.seconds, training.step) == ("interrupted", 10.0, 1)


def test_the_one_that_holds_the_workspace_runs(workspace: Workspace) -> None:
    write(workspace, "worker@1-aaaaaaaa", began(pid=os.getpid()))
    with workspace.lock("train"):
        assert [training.state for training in list_trainings(workspace)] == ["running"]
    assert [training.state for training in list_trainings(workspace)] == ["interrupted"]


def test_an_unknown_training_is_refused_with_those_there_are(two: Workspace) -> None:
    with pytest.raises(ConfigError, match="unknown training 'clerk@1'; have worker@1-aaaaaaaa, worker@2-bbbbbbbb"):
        find_training(two, "clerk@1")


def test_the_commands_show_and_compare_them(two: Workspace) -> None:
    folder = ["-C", str(two.root)]
    runner = CliRunner(env={"COLUMNS": "200"})
    listed = runner.invoke(app, ["list", *folder])
    assert "4 of 4" in listed.stdout and "finished" in listed.stdout and "failed" in listed.stdout
    shown = runner.invoke(app, ["show", "worker@2", *folder])
    assert "disk full: make room" in shown.stdout
    told = json.loads(runner.invoke(app, ["show", "worker@1-aaaaaaaa", "--json", *folder]).stdout)
    assert (told["plan"], told["by_step"]["4"]["eval_loss"]) == ("1.0 epochs of 8 rows, 4 steps", 1.2)
    compared = json.loads(runner.invoke(app, ["compare", "worker@1", "worker@2", "--json", *folder]).stdout)
    assert [one["state"] for one in compared["trainings"]] == ["finished", "failed"]
    assert list(compared["differences"]) == ["recipe.trl.learning_rate"]


@pytest.mark.filterwarnings("ignore")
def test_curves_are_drawn_as_a_picture_and_as_a_page(two: Workspace, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = ["-C", str(two.root)]
    runner = CliRunner()
    for name, start in (("curves.png", b"\x89PNG"), ("curves.html", b"<!doctype html>")):
        told = runner.invoke(app, ["plot", "worker@1", "worker@2", "--out", str(tmp_path / name), "--json", *folder])
        assert json.loads(told.stdout)["metrics"] == ["loss", "eval_loss"]
        assert (tmp_path / name).read_bytes().startswith(start)
    wrong = runner.invoke(app, ["plot", "worker@1", "--metric", "magic", "--out", str(tmp_path / "c.png"), *folder])
    assert str(wrong.exception) == "no training here has the metric 'magic'; have eval_loss, loss"
    wrong = runner.invoke(app, ["plot", "worker@1", "--out", "curves.txt", *folder])
    assert str(wrong.exception) == "curves.txt can't be drawn: name a file that ends in .png, .svg, .html"
