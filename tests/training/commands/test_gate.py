"""`journeyman gate`, and what a promotion makes of its verdict, on a server of the test's own that plays vLLM."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.adapters.current import CurrentPolicies
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.console import Exit
from journeyman.runtime.models.routing import Classifier
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError, ConfigError, JourneymanError
from journeyman.traces.labels import LabelLog
from journeyman.training.evaluation.gate import read_verdict

MakeAdapter = Callable[..., Path]
Project = Callable[..., None]
TASKS = 24


def test_a_better_adapter_passes_the_gate_and_goes_into_service_and_out_again(
    run: Any, make_adapter: MakeAdapter, files: list[str], url: str, peer: Any, workspace: Workspace
) -> None:
    folder = make_adapter("worker@1")
    gate = run("gate", "worker@1", *files, "--attach", url)
    assert gate.exit_code == Exit.OK, gate.output
    assert gate.stdout.startswith("promote  worker@1 against base over 24 tasks\ngain +0.500")
    verdict = read_verdict(folder)
    assert verdict is not None and verdict.mean_delta == 0.5
    assert {label.value for label in LabelLog(workspace.labels)} == {0.0, 1.0}
    assert verdict.setup is not None
    rows = workspace.store.sql("SELECT DISTINCT purpose, task_set FROM traces").to_pylist()
    assert rows == [{"purpose": "gate", "task_set": "tasks.jsonl"}]
    origin = workspace.store.get(workspace.store.ids()[0]).origin
    assert origin is not None and origin.task_set_digest == verdict.setup.tasks_digest
    assert list(peer.loaded) == ["worker@1"] and Journal(workspace.journal).active() == {}

    promotion = run.json("adapters", "promote", "worker@1", "--attach", url)
    assert promotion["entry"]["reason"].startswith("better: gain") and promotion["swap"]["policy"] == "worker@1"
    [row] = run.json("adapters", "list")
    assert (row["policy"], row["state"], row["verdict"], row["mlflow_version"]) == (
        "worker@1",
        "active",
        "promote",
        "1",
    )

    back = run("adapters", "rollback", "worker", "--attach", url)
    assert back.stdout == "base is in service for worker, in place of worker@1\n"
    assert run.json("adapters", "list")[0]["state"] == "retired"


def test_a_worse_adapter_is_rejected_unloaded_and_never_promoted(
    run: Any, make_adapter: MakeAdapter, files: list[str], url: str, peer: Any
) -> None:
    make_adapter("worker@2")
    gate = run("gate", "worker@2", *files, "--attach", url)
    assert gate.exit_code == Exit.FAILED
    assert peer.loaded == {}
    assert "its verdict is reject" in str(run.error("adapters", "promote", "worker@2", "--attach", url))
    assert "rejected: it can't become active" in str(run.error("adapters", "promote", "worker@2", "--force"))
    assert "worker@2 is rejected" in str(run.error("gate", "worker@2", *files, "--attach", url))


def test_a_gate_and_service_say_where_an_adapter_is_shown_another_prompt_than_it_was_trained_on(
    run: Any, make_adapter: MakeAdapter, files: list[str], url: str, workspace: Workspace, caplog: Any
) -> None:
    make_adapter("worker@1", prompt_form="0123456789abcdef")
    gate = run("gate", "worker@1", *files, "--attach", url)
    assert gate.exit_code == Exit.OK, gate.output
    (warning,) = [record.message for record in caplog.records]
    assert warning.startswith("worker@1 was trained on another prompt of worker (0123456789abcdef) than crew echo has")
    run("adapters", "promote", "worker@1", "--attach", url)
    assert CurrentPolicies(workspace)().forms == {"worker@1": "0123456789abcdef"}


def test_too_few_tasks_leave_a_candidate_a_candidate(
    run: Any, make_adapter: MakeAdapter, files: list[str], url: str
) -> None:
    make_adapter("worker@1")
    gate = run("gate", "worker@1", *files, "--attach", url, "--min-tasks", "50")
    assert gate.exit_code == Exit.PARTIAL and "at least 50 are needed" in gate.stderr
    assert run.json("adapters", "list")[0]["state"] == "candidate"
    assert "its verdict is inconclusive" in str(run.error("adapters", "promote", "worker@1", "--attach", url))


def test_what_was_evaluated_is_not_run_again(
    run: Any, make_adapter: MakeAdapter, files: list[str], url: str, peer: Any
) -> None:
    make_adapter("worker@1")
    run("gate", "worker@1", *files, "--attach", url, "--min-tasks", "50")
    asked = len(peer.chats)
    assert asked == 2 * TASKS
    run("gate", "worker@1", *files, "--attach", url)
    assert len(peer.chats) == asked


def test_a_verdict_against_what_is_no_longer_in_service_does_not_count(
    run: Any, make_adapter: MakeAdapter, files: list[str], url: str
) -> None:
    make_adapter("worker@1")
    make_adapter("worker@2")
    run("gate", "worker@1", *files, "--attach", url)
    run("adapters", "promote", "worker@2", "--force", "--attach", url)
    words = str(run.error("adapters", "promote", "worker@1", "--attach", url))
    assert "its verdict is against base, and worker@2 is in service now" in words


def test_the_gate_leaves_to_the_large_model_what_is_routed_to_it(
    run: Any, make_adapter: MakeAdapter, files: list[str], url: str, peer: Any, project: Project
) -> None:
    make_adapter("worker@1")
    project('[routing]\nlarge = "big"\nrules = [{ to = "large", goal = "1" }]\n')
    verdict = run.json("gate", "worker@1", *files, "--attach", url)
    gains = {task for task, delta in verdict["deltas"].items() if delta}
    assert gains == {"q3", "q5", "q7", "q9", "q23"}
    assert peer.chats.count("org/large") == 2 * 12


def test_a_candidate_that_would_never_be_asked_is_not_gated(
    run: Any, make_adapter: MakeAdapter, files: list[str], url: str, workspace: Workspace, project: Project
) -> None:
    make_adapter("worker@1")
    crew = Path(files[1]).read_text()
    Path(files[1]).write_text(crew + 'model = "big"\n')
    assert "unknown policy 'big'" in str(run.error("gate", "worker@1", *files, "--attach", url))
    project()
    assert "gives 'worker' the model 'big'" in str(run.error("gate", "worker@1", *files, "--attach", url))
    Path(files[1]).write_text(crew)
    project('[routing]\nlarge = "big"\nsmall = "base"\nclassifier = true\n')
    classifier = Classifier(intercept=0.0, weights={}, rows=1, held_out=1, accuracy=1.0, majority=0.5)
    workspace.router.write_text(classifier.model_dump_json())
    words = str(run.error("gate", "worker@1", *files, "--attach", url))
    assert "[routing] gives all work of 'worker' to 'base' or 'big'" in words


def test_a_gate_of_what_the_project_overrides_says_so(
    run: Any, make_adapter: MakeAdapter, files: list[str], url: str, project: Project
) -> None:
    make_adapter("worker@1")
    project('[agents.worker]\npolicy = "big"\n')
    Path(files[3]).write_text('{"id": "q1", "prompt": "1", "reference": "word1"}\n')
    gated = run("gate", "worker@1", *files, "--attach", url)
    assert "journeyman.toml has big answer worker; a promotion changes nothing there" in gated.stderr
    assert gated.stdout.startswith("inconclusive  worker@1 against base over 1 tasks\ngain +1.000")


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (["gate", "worker@9"], AdapterError, "there is no adapter worker@9"),
        (["gate", "planner@1"], ConfigError, "planner@1 is for 'planner'; the crew has: worker"),
        (["gate", "worker@1", "--scorer", "nowhere:f"], ConfigError, "scorer 'nowhere:f'"),
        (["gate", "worker@1", "--confidence", "2"], ConfigError, "'confidence'"),
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
