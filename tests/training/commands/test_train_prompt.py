"""`journeyman train --recipe prompt`, on a server of the test's own that plays vLLM."""

from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.console import Exit
from journeyman.runtime.workspace import Workspace

SEARCH = ("train", "--recipe", "prompt", "--agent", "worker", "--set", "prompt.metric_calls=60")


@pytest.fixture
def attached(run: Any, files: list[str], url: str) -> None:
    run("evaluate", *files, "--attach", url)


def test_a_prompt_is_looked_for_and_the_candidate_told(
    run: Any, attached: None, files: list[str], workspace: Workspace, embedded_model: Path, peer: Any
) -> None:
    asked = len(peer.chats)
    options = [*files, "--reflect", "base", "--set", "prompt.examples=0"]
    plan = run.json(*SEARCH, *options, "--dry-run")
    assert plan["runs"] == 60 and plan["summary"].startswith("a prompt of worker on the weights of base: 14 tasks to")
    assert len(peer.chats) == asked and not list(workspace.adapters.glob("*"))

    found = run(*SEARCH, *options)
    assert found.exit_code == Exit.OK, found.output
    assert "planned: a prompt of worker" in found.stderr and "can seldom say what was wrong" in found.stderr
    assert "→ 1.000 on the 10 tasks that it was chosen on" in found.stderr
    assert found.stdout.startswith("worker@1: 24 rows")
    [row] = run.json("adapters", "list")
    assert (row["policy"], row["method"], row["state"], row["start"]) == ("worker@1", "prompt", "candidate", "base")


def test_a_search_that_found_nothing_better_says_so(
    run: Any, attached: None, files: list[str], embedded_model: Path, make_adapter: Any
) -> None:
    make_adapter("worker@2")
    options = ["--reflect", "base", "--from", "worker@2", "--set", "prompt.examples=0"]
    assert "none scored above the present one's 0.000 on 10 tasks" in str(run.error(*SEARCH, *files, *options))


def test_a_search_needs_tasks(run: Any) -> None:
    assert "method prompt learns from tasks: give --crew and --tasks" in str(run.error(*SEARCH, "--data", "some"))
