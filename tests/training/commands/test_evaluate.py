"""`journeyman evaluate` from end to end, on a server of the test's own that plays vLLM."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.console import Exit
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError, JourneymanError
from journeyman.traces.labels import LabelLog

MakeAdapter = Callable[..., Path]
Project = Callable[..., None]
TASKS = 24


def test_an_adapter_that_is_not_loaded_is_loaded_and_proved_before_it_is_evaluated(
    run: Any, make_adapter: MakeAdapter, files: list[str], url: str, peer: Any
) -> None:
    make_adapter("worker@1")
    assert peer.loaded == {}
    assert run.json("evaluate", *files, "--policy", "worker=worker@1", "--attach", url)["score"] == 1.0
    assert list(peer.loaded) == ["worker@1"]


def test_an_adapter_that_is_nowhere_is_refused_before_any_run(run: Any, files: list[str], url: str, peer: Any) -> None:
    told = str(run.error("evaluate", *files, "--policy", "worker=worker@7", "--attach", url))
    assert "there is no adapter worker@7" in told and peer.chats == []


def test_a_run_whose_policy_the_server_does_not_know_is_no_episode(
    run: Any, make_adapter: MakeAdapter, files: list[str], url: str, peer: Any, workspace: Workspace
) -> None:
    make_adapter("worker@1")
    peer.forgets = True
    assert "says nothing" in str(run.error("evaluate", *files, "--policy", "worker=worker@1", "--attach", url))
    assert list(LabelLog(workspace.labels)) == []
    peer.forgets = False
    assert run.json("evaluate", *files, "--policy", "worker=worker@1", "--attach", url)["score"] == 1.0


def test_again_measures_anew(run: Any, make_adapter: MakeAdapter, files: list[str], url: str, peer: Any) -> None:
    make_adapter("worker@1")
    for expected in (TASKS, TASKS, 2 * TASKS):
        more = ["--again"] if expected > TASKS else []
        run("evaluate", *files, "--policy", "worker=worker@1", "--attach", url, *more)
        assert len(peer.chats) == expected


def test_again_keeps_what_was_measured_where_nothing_can_be_measured_now(
    run: Any, make_adapter: MakeAdapter, files: list[str], url: str, peer: Any
) -> None:
    folder = make_adapter("worker@1")
    evaluate = ("evaluate", *files, "--policy", "worker=worker@1", "--attach", url)
    assert run.json(*evaluate)["score"] == 1.0
    peer.loaded.clear()
    (folder / "probe.json").rename(folder / "aside")
    run.error(*evaluate, "--again")
    (folder / "aside").rename(folder / "probe.json")
    assert run.json(*evaluate)["score"] == 1.0 and len(peer.chats) == TASKS


def test_an_evaluation_in_which_nothing_was_measured_fails(run: Any, files: list[str], url: str) -> None:
    budget = "\n[budget]\ntokens = 1\n"
    crew = Path(files[1])
    crew.write_text(crew.read_text() + budget)
    evaluated = run("evaluate", *files, "--attach", url)
    assert evaluated.exit_code == Exit.FAILED and "nothing was measured" in evaluated.stderr


def test_evaluate_prints_the_mean_score_of_the_policies_asked_for(
    run: Any, make_adapter: MakeAdapter, files: list[str], url: str
) -> None:
    make_adapter("worker@1")
    run("adapters", "swap", "worker@1", "--attach", url)
    assert run.json("evaluate", *files, "--attach", url)["score"] == 0.5
    best = run("evaluate", *files, "--attach", url, "--policy", "worker=worker@1")
    assert best.stdout.startswith("1.000  mean score over 24 tasks") and "24 solved" in best.stdout


def test_an_endpoint_answers_the_agent_that_names_it_without_any_server(
    run: Any, files: list[str], url: str, project: Project
) -> None:
    project('[agents.worker]\npolicy = "big"\n')
    assert run.json("evaluate", *files)["score"] == 1.0
    project()
    assert run.json("evaluate", *files, "--policy", "worker=big")["score"] == 1.0


def test_an_endpoint_stands_in_where_an_agent_s_own_policy_fails(
    run: Any, files: list[str], url: str, peer: Any, project: Project
) -> None:
    project('[agents.worker]\npolicy = "worker@7"\nfallback = ["big"]\n')
    assert "there is no adapter worker@7" in str(run.error("evaluate", *files, "--attach", url))
    project('[agents.worker]\nfallback = ["big"]\n')
    peer.ailing = True
    assert run.json("evaluate", *files, "--attach", url)["score"] == 1.0


def test_a_server_that_is_down_gives_no_score_and_none_is_kept(
    run: Any, files: list[str], url: str, peer: Any, project: Project
) -> None:
    project('[agents.worker]\npolicy = "big"\n', url=url.rpartition(":")[0] + ":9")
    Path(files[3]).write_text('{"id": "q1", "prompt": "1", "reference": "word1"}\n')
    assert "task 'q1' says nothing: " in str(run.error("evaluate", *files))
    project('[agents.worker]\npolicy = "base"\n')
    peer.ailing = True
    refused = run("evaluate", *files, "--attach", url)
    assert refused.stdout.startswith("0.000  mean score over 1 tasks")
    assert "1 of 1 runs did not end ok; first: q1 failed: " in refused.stderr


def test_an_evaluation_under_other_routes_is_another_one(
    run: Any, files: list[str], url: str, project: Project
) -> None:
    project()
    assert run.json("evaluate", *files, "--attach", url)["score"] == 0.5
    project('[routing]\nlarge = "big"\nrules = [{ to = "large" }]\n')
    assert run.json("evaluate", *files, "--attach", url)["score"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (["evaluate", "--policy", "worker"], ConfigError, "write AGENT=POLICY"),
        (["evaluate", "--policy", "wroker=worker@1"], ConfigError, "no agent 'wroker'; it has: worker"),
        (
            ["evaluate", "--policy", "worker=bgi"],
            ConfigError,
            "unknown policy 'bgi'; have base, and adapters planner@1",
        ),
    ],
)
def test_bad_input_is_one_line(
    run: Any,
    make_adapter: MakeAdapter,
    files: list[str],
    url: str,
    arguments: list[str],
    kind: type[JourneymanError],
    words: str,
) -> None:
    make_adapter("worker@1")
    make_adapter("planner@1")
    error = run.error(*arguments, *files, "--attach", url)
    assert isinstance(error, kind) and words in str(error) and "\n" not in str(error)
