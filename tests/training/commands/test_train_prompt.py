"""`journeyman train --recipe prompt`, on a server of the test's own that plays vLLM."""

from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.console import Exit
from journeyman.runtime.workspace import Workspace

SEARCH = ("train", "--recipe", "prompt", "--agent", "worker")


@pytest.fixture
def attached(run: Any, files: list[str], url: str) -> None:
    run("evaluate", *files, "--attach", url)


def test_a_prompt_is_looked_for_and_the_candidate_told(
    run: Any, attached: None, files: list[str], workspace: Workspace, embedded_model: Path
) -> None:
    found = run(*SEARCH, *files, "--reflect", "base", "--set", "prompt.examples=0")
    assert found.exit_code == Exit.OK, found.output
    assert "24 tasks for worker: 14 to learn from, 10 to choose on" in found.stderr
    assert "at most 160 runs to make, about" in found.stderr
    assert "seldom writes a better instruction" in found.stderr
    assert found.stdout.startswith("worker@1: score 0.") and "→ 1.000" in found.stdout
    [row] = run.json("adapters", "list")
    assert (row["policy"], row["method"], row["state"], row["start"]) == ("worker@1", "prompt", "candidate", "base")


def test_a_dry_run_tells_the_price_and_keeps_nothing(
    run: Any, attached: None, files: list[str], workspace: Workspace, embedded_model: Path, peer: Any
) -> None:
    asked = len(peer.chats)
    told = run.json(*SEARCH, *files, "--reflect", "base", "--dry-run")
    assert told["estimate"]["runs"] == 160 and told["job"]["start"] == "base"
    assert len(peer.chats) == asked and not list(workspace.adapters.glob("*"))


def test_a_search_that_found_nothing_better_ends_with_1_and_says_so(
    run: Any, attached: None, files: list[str], workspace: Workspace, embedded_model: Path, peer: Any, make_adapter: Any
) -> None:
    make_adapter("worker@2")
    found = run(*SEARCH, *files, "--reflect", "base", "--from", "worker@2", "--set", "prompt.examples=0")
    assert found.exit_code == Exit.FAILED
    assert "none scored above the present one's 0.000 on 10 tasks" in found.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--crew", "crew.toml"), "--recipe prompt learns from tasks: name --crew and --tasks"),
        (("--data", "some"), "--recipe prompt learns from tasks: name --crew and --tasks"),
    ],
)
def test_what_a_search_needs_is_told(run: Any, options: tuple[str, ...], words: str) -> None:
    assert words in str(run.error(*SEARCH, *options))


def test_tasks_are_of_no_use_to_a_method_that_learns_from_a_dataset(run: Any, files: list[str]) -> None:
    assert "--recipe sft learns from a dataset" in str(run.error("train", "--agent", "worker", *files))
