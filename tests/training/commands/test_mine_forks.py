"""`journeyman mine` with credit and with draws, on a server that plays vLLM, of which base knows even numbers only."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.console import Exit
from journeyman.runtime.serving.server import attach
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError, ServerError
from journeyman.training.data.samples import read_samples

Mine = Callable[..., tuple[str, ...]]
RUNS = 4


@pytest.fixture
def served(run: Any, files: list[str], url: str, workspace: Workspace) -> Mine:
    """Four tasks were run in service; gives the arguments of `mine` for them."""
    rows = [{"id": f"q{number}", "prompt": str(number), "reference": f"word{number}"} for number in range(RUNS)]
    tasks = workspace.root.parent / "service.jsonl"
    tasks.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run("run", *files[:2], "--tasks", str(tasks), "--out", f"{tasks}.out", "--attach", url)
    assert result.exit_code == Exit.OK, result.output
    attach(workspace, url)
    return lambda *more: ("mine", "--agent", "worker", *files[:2], *more)


def test_credit_by_the_rule_weighs_rows_and_refuses_what_is_worth_too_little(run: Any, served: Mine) -> None:
    told = run.json(*served("--credit", "rule"))
    assert (told["rows"], told["credit"]["calls_credited"]) == (RUNS, RUNS)
    assert set(told["credit"]["means"]) == {"outcome", "report", "verifier", "tools", "first_error", "cost"}
    weights = {sample.weight for sample in read_samples(Path(told["path"]))}
    assert all(0.9 < weight < 1.0 for weight in weights)
    assert "credit below 1 (4)" in str(run.error(*served("--credit", "rule", "--min-credit", "1")))
    shown = run(*served("--credit", "rule")).output
    assert "first_error" in shown and "0.15" in shown


def test_counterfactual_credit_says_which_calls_another_policy_would_have_answered_better(
    run: Any, served: Mine, project: Callable[..., None], peer: Any
) -> None:
    project()
    asked = served("--credit", "counterfactual", "--replace", "big", "--budget", "20")
    told = run.json(*asked)
    (agent,) = told["credit"]["agents"]
    assert (agent["agent"], agent["effect"], agent["runs"], told["credit"]["calls"]) == ("worker", 0.5, 4, 4)
    assert -1 <= agent["low"] < 0.5 < agent["high"] <= 1
    assert told["refused"] == {"made for replay": 4, "credit is 0": 2}
    assert {sample.weight for sample in read_samples(Path(told["path"]))} == {0.5}
    before = len(peer.chats)
    assert run.json(*asked)["digest"] == told["digest"]
    assert len(peer.chats) == before
    assert "replacing worker by big: +0.500 of score a call" in run(*asked).output


def test_without_a_measurement_there_is_no_credit(run: Any, served: Mine, project: Callable[..., None]) -> None:
    project()
    told = run.json(*served("--credit", "counterfactual", "--replace", "service", "--budget", "1"))
    assert told["refused"] == {"no credit measured": 3, "made for replay": 1}
    assert (told["credit"]["calls"], told["credit"]["budget"]) == (1, 1)


def test_alternatives_are_drawn_once_scored_and_mined_like_other_runs(
    run: Any, served: Mine, peer: Any, workspace: Workspace
) -> None:
    asked = served("--sample", "2", "--budget", "6", "--min-score", "1")
    told = run.json(*asked)
    drawn = told["sampled"]
    assert (drawn["alternatives"], drawn["at_calls"], drawn["calls"]) == (6, 3, 6)
    assert told["turns"] == drawn["solved"] > 0
    rollouts = workspace.store.ids(purpose="rollout")
    assert len(rollouts) == 6
    before = len(peer.chats)
    assert run.json(*asked)["sampled"] == drawn
    assert len(peer.chats) == before and workspace.store.ids(purpose="rollout") == rollouts
    assert "6 alternatives to 3 model calls" in run(*asked).output


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--sample", "2"), "--sample makes model calls: say how many it may with --budget, such as --budget 200"),
        (("--sample", "2", "--budget", "0"), "a budget of 0 model calls measures nothing: give --budget 1 or more"),
        (
            ("--sample", "1", "--budget", "1", "--credit", "luck"),
            "--credit luck: there is no such credit; have rule, counterfactual",
        ),
        (
            ("--min-credit", "0.5"),
            "--min-credit needs --credit, one of rule, counterfactual: nothing else gives any",
        ),
        (("--sample", "1", "--budget", "2", "--scorer", "none:such"), "none:such"),
        (("--credit", "counterfactual", "--budget", "2", "--replace", "bog"), "unknown policy 'bog'; have base"),
    ],
)
def test_what_cannot_be_done_is_one_line(run: Any, served: Mine, options: tuple[str, ...], line: str) -> None:
    refused = run.error(*served(*options))
    assert isinstance(refused, ConfigError)
    assert line in str(refused) and "\n" not in str(refused)


def test_a_server_that_is_down_is_one_line(run: Any, served: Mine, peer: Any, workspace: Workspace) -> None:
    peer.ailing = True
    (workspace.root / "server.json").unlink()
    refused = run.error(*served("--sample", "2", "--budget", "4"))
    assert isinstance(refused, ServerError)
    assert "\n" not in str(refused)


def test_without_its_crew_no_run_is_taken_up_again(run: Any, served: Mine) -> None:
    refused = run.error("mine", "--agent", "worker", "--sample", "2", "--budget", "4")
    assert str(refused) == "--sample needs --crew FILE: only its crew can take a run up again"
