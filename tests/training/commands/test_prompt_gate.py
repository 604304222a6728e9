"""A prompt candidate through evaluate, gate, promotion and rollback, on a server of the test's own that plays vLLM."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from journeyman.agents.agent import Example
from journeyman.agents.worker import write_answer
from journeyman.runtime.adapters.current import CurrentPolicies
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.console import Exit
from journeyman.runtime.workspace import Workspace

MakeAdapter = Callable[..., Path]
MakePrompt = Callable[..., Path]
KEY = "Think of a word."


def test_a_better_prompt_passes_the_gate_and_goes_into_service_and_out_again(
    run: Any, make_prompt: MakePrompt, files: list[str], url: str, peer: Any, workspace: Workspace
) -> None:
    make_prompt("worker@1", KEY)
    gate = run("gate", "worker@1", *files, "--attach", url)
    assert gate.exit_code == Exit.OK, gate.output
    assert gate.stdout.startswith("promote  worker@1 against base over 24 tasks\ngain +0.500")
    assert set(peer.chats) == {"base"} and peer.loaded == {}

    promotion = run.json("adapters", "promote", "worker@1", "--attach", url)
    assert promotion["swap"] is None
    assert Journal(workspace.journal).active() == {"worker": "worker@1"}
    assert CurrentPolicies(workspace)().prompts["worker@1"].instructions == KEY
    [row] = run.json("adapters", "list")
    assert (row["state"], row["method"], row["start"], row["mlflow_version"]) == ("active", "prompt", "base", "1")

    crew = files[1]
    assert run("run", "--crew", crew, "--attach", url, "7").stdout.strip().startswith("word7")
    back = run("adapters", "rollback", "worker", "--attach", url)
    assert back.stdout == "base is in service for worker, in place of worker@1\n"
    assert CurrentPolicies(workspace)().prompts == {}


def test_a_prompt_on_an_adapter_brings_its_weights_into_the_server_and_leaves_what_serves(
    run: Any, make_adapter: MakeAdapter, make_prompt: MakePrompt, files: list[str], url: str, peer: Any
) -> None:
    make_adapter("worker@1")
    make_prompt("worker@2", "Answer at once.", weights="worker@1")
    swap = run("adapters", "swap", "worker@2", "--attach", url)
    assert swap.stdout.startswith("worker@1, whose weights worker@2 has, is loaded")
    run("adapters", "promote", "worker@1", "--force", "--attach", url)
    gate = run("gate", "worker@2", *files, "--attach", url)
    assert gate.stdout.startswith("inconclusive") or gate.stdout.startswith("reject"), gate.output
    assert list(peer.loaded) == ["worker@1"]


def test_a_prompt_that_lost_takes_its_weights_out_of_the_server(
    run: Any, make_adapter: MakeAdapter, make_prompt: MakePrompt, files: list[str], url: str, peer: Any
) -> None:
    make_adapter("worker@2")
    make_prompt("worker@3", "Answer at once.", weights="worker@2")
    gate = run("gate", "worker@3", *files, "--attach", url)
    assert gate.exit_code == Exit.FAILED, gate.output
    assert peer.loaded == {}


def test_examples_of_a_prompt_are_shown_and_its_runs_are_not_evaluated_twice(
    run: Any, make_prompt: MakePrompt, files: list[str], url: str, peer: Any
) -> None:
    make_prompt("worker@1", "Answer.", examples=(Example(user="98", assistant=write_answer("word98")),))
    options = ["--policy", "worker=worker@1", "--attach", url]
    assert run.json("evaluate", *files, *options)["score"] == 1.0
    asked = len(peer.chats)
    assert run.json("evaluate", *files, *options)["score"] == 1.0
    assert len(peer.chats) == asked


def test_a_prompt_for_another_base_model_is_not_served(
    run: Any, make_prompt: MakePrompt, files: list[str], url: str, workspace: Workspace
) -> None:
    run("evaluate", *files, "--attach", url)
    state = json.loads(workspace.server.read_text())
    workspace.server.write_text(json.dumps({**state, "model_digest": "c" * 64}))
    make_prompt("worker@1", KEY)
    assert "was trained on base model" in str(run.error("adapters", "swap", "worker@1"))


def test_rows_of_its_runs_are_in_its_prompt_while_it_is_in_service(
    run: Any, make_prompt: MakePrompt, files: list[str], url: str, workspace: Workspace
) -> None:
    make_prompt("worker@1", KEY)
    run("adapters", "promote", "worker@1", "--force", "--attach", url)
    crew = files[1]
    run("run", "--crew", crew, "--attach", url, "7")
    mined = run.json("mine", "--agent", "worker", "--crew", crew)
    assert mined["refused"] == {}
    [row] = [json.loads(line) for line in Path(mined["path"]).read_text().splitlines()]
    assert row["policy"] == "worker@1" and row["messages"][0]["content"] == KEY
    form = row["prompt_form"]
    run("adapters", "rollback", "worker", "--attach", url)
    run("run", "--crew", crew, "--attach", url, "8")
    again = run.json("mine", "--agent", "worker", "--crew", crew)
    assert again["refused"] == {"another prompt than the agent has now": 1}
    [row] = [json.loads(line) for line in Path(again["path"]).read_text().splitlines()]
    assert row["prompt_form"] != form
