"""RFT's driver: which tasks it takes, what it plans, and what answers while it samples."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from journeyman.agents.agent import Agent, Crew
from journeyman.runtime.serving.server import attach
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError, ConfigError, ServerError
from journeyman.training.commands.train import train
from journeyman.training.improve.rejection import MERGING_PAYS, Served
from journeyman.training.methods.recipes.known import load_recipe
from journeyman.training.methods.recipes.rft import RFTRecipe, RoundsTable

MakeAdapter = Callable[..., Path]
Train = Callable[..., Result]
CREW = Crew(name="echo", orchestrator=None, workers=(Agent(name="worker", instructions="Answer."),))


@pytest.fixture
def run(workspace: Workspace, files: list[str]) -> Train:
    """`journeyman train --recipe rft` with the crew and its tasks."""
    app = typer.Typer()
    app.command()(train)

    def run(*options: str, given: Sequence[str] = files) -> Result:
        named = ["--agent", "worker", "--recipe", "rft", *given, *options, "-C", str(workspace.root)]
        return CliRunner().invoke(app, named, env={"COLUMNS": "200"})

    return run


def refusal(ended: Result, kind: type[Exception]) -> str:
    assert isinstance(ended.exception, kind), ended.output
    return str(ended.exception)


def write_tasks(path: Path, numbers: range) -> None:
    rows = [{"id": f"q{number}", "prompt": str(number), "reference": f"word{number}"} for number in numbers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_plan_says_how_many_runs_there_will_be(run: Train, embedded_model: Path) -> None:
    ended = run("--explain", "--set", "rft.rounds=2", "--set", "rft.tasks=10", "--set", "rft.best_of=4")
    assert ended.exit_code == 0, ended.output
    assert "2 rounds of 40 runs on 10 of 24 tasks" in ended.stdout
    assert "rft.keep" in ended.stdout


def test_held_out_tasks_are_left_out_and_counted(run: Train, workspace: Workspace, embedded_model: Path) -> None:
    write_tasks(workspace.root.parent / "gate.jsonl", range(4))
    write_tasks(workspace.root.parent / "eval.jsonl", range(4, 10))
    workspace.config_file.write_text('[tasks]\ngate = "gate.jsonl"\n')
    ended = run("--explain", "--set", f"eval.tasks={workspace.root.parent / 'eval.jsonl'}")
    assert "on 14 of 14 tasks, 6 tasks held out" in ended.stdout, ended.output
    assert "4 left out (a task of gate)" in ended.stdout
    assert "6 left out (a task of [eval])" in ended.stdout


def test_where_all_tasks_are_held_out_nothing_begins(run: Train, workspace: Workspace, embedded_model: Path) -> None:
    write_tasks(workspace.root.parent / "gate.jsonl", range(24))
    workspace.config_file.write_text('[tasks]\ngate = "gate.jsonl"\n')
    told = refusal(run(), ConfigError)
    assert told.startswith("tasks.jsonl: nobody may learn from any task of it: a task of gate (24)")


def test_a_candidate_isn_t_chosen_by_the_tasks_that_judge_it(run: Train, embedded_model: Path) -> None:
    told = refusal(run("--set", "eval.tasks=gate"), ConfigError)
    assert told == (
        "recipe: eval.tasks = 'gate' would choose a candidate by the tasks that judge it later: name a file of other "
        "tasks"
    )


def test_it_takes_a_crew_and_tasks_and_no_dataset(run: Train, files: list[str]) -> None:
    assert "give --crew and --tasks" in refusal(run(given=files[:2]), ConfigError)
    assert "give --crew and --tasks" in refusal(run("--data", "rows.jsonl"), ConfigError)


def test_an_agent_that_the_crew_has_not_is_refused(run: Train, embedded_model: Path) -> None:
    told = refusal(run("--agent", "planner"), ConfigError)
    assert told == "crew 'echo' has no agent 'planner'; it has: worker"


def test_without_a_server_it_says_how_to_start_one(run: Train, embedded_model: Path) -> None:
    assert "`journeyman server start`" in refusal(run(), ServerError)


@pytest.mark.parametrize(
    ("key", "value"), [("rounds", 0), ("best_of", 0), ("keep", 0), ("min_score", 1.5), ("min_score", 0), ("rate", 1)]
)
def test_a_number_that_means_nothing_is_refused_with_its_key(run: Train, key: str, value: float) -> None:
    assert f"rft.{key}" in refusal(run("--set", f"rft.{key}={value}"), ConfigError)


def served(workspace: Workspace, **table: Any) -> Served:
    return Served(workspace, CREW, "worker", RoundsTable(**table), Path("base"), lambda policy: None)


def test_weights_are_merged_where_that_pays_or_where_it_is_asked_for(workspace: Workspace, url: str) -> None:
    many, few = MERGING_PAYS, MERGING_PAYS - 1
    assert served(workspace).merges("worker@1", many)
    assert not served(workspace).merges("worker@1", few)
    assert not served(workspace).merges("base", many), "the base model is served without the LoRA path"
    assert not served(workspace, merged=False).merges("worker@1", many)
    assert served(workspace, merged=True).merges("base", few)
    attach(workspace, url)
    assert not served(workspace).merges("worker@1", many), "somebody else's server may be quicker than this machine"


def test_the_policy_that_samples_is_loaded_and_proved_in_the_workspace_s_server(
    workspace: Workspace, url: str, make_adapter: MakeAdapter, peer: Any
) -> None:
    make_adapter("worker@1")
    attach(workspace, url)
    with served(workspace)("worker@1", tokens=10) as backend:
        assert list(peer.loaded) == ["worker@1"]
        assert backend.router is None
    with pytest.raises(AdapterError), served(workspace)("worker@7", tokens=10):
        pass


def test_more_rounds_go_on_from_those_that_were_trained() -> None:
    two, four, other = (load_recipe("rft", told) for told in ({"rft.rounds": 2}, {"rft.rounds": 4}, {"lora.r": 4}))
    assert isinstance(two, RFTRecipe) and isinstance(four, RFTRecipe) and isinstance(other, RFTRecipe)
    assert two.digest != four.digest
    assert two.of_a_round.digest == four.of_a_round.digest != other.of_a_round.digest
