"""`journeyman gate`, `evaluate` and `adapters` from end to end, on a server of the test's own that plays vLLM."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.console import Exit
from journeyman.runtime.models.routing import Classifier
from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces.errors import AdapterError, ConfigError, JourneymanError, ServerError
from journeyman.traces.labels import LabelLog
from journeyman.training.commands import adapters
from journeyman.training.commands.evaluate import evaluate_command
from journeyman.training.commands.gate import gate_command
from journeyman.training.evaluation.gate import VERDICT, read_verdict

MakeAdapter = Callable[..., Path]

TASKS = 24


def project(workspace: Workspace, url: str, more: str = "") -> None:
    """A journeyman.toml that names the endpoint `big`."""
    (workspace.root.parent / PROJECT_FILE).write_text(
        f'{more}\n[models.big]\nurl = "{url}/v1"\nmodel = "org/large"\nretries = 0\n'
    )


class Commands:
    """The commands of the loop's end, in one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._app = typer.Typer()
        self._app.add_typer(adapters.app, name="adapters")
        self._app.command("gate")(gate_command)
        self._app.command("evaluate")(evaluate_command)

    def __call__(self, *arguments: str) -> Result:
        options = [*arguments, "-C", str(self._workspace.root)]
        return CliRunner().invoke(self._app, options, env={"COLUMNS": "120"})

    def json(self, *arguments: str) -> Any:
        result = self(*arguments, "--json")
        assert not isinstance(result.exception, JourneymanError), result.exception
        return json.loads(result.stdout)

    def error(self, *arguments: str) -> JourneymanError:
        result = self(*arguments)
        assert isinstance(result.exception, JourneymanError), result.output
        return result.exception


@pytest.fixture
def run(workspace: Workspace) -> Commands:
    (workspace.root.parent / "journeyman.toml").write_text(f'mlflow = "sqlite:///{workspace.root}/mlflow.db"\n')
    return Commands(workspace)


def test_a_better_adapter_passes_the_gate_and_goes_into_service_and_out_again(
    run: Commands, make_adapter: MakeAdapter, files: list[str], url: str, peer: Any, workspace: Workspace
) -> None:
    folder = make_adapter("worker@1")
    gate = run("gate", "worker@1", *files, "--attach", url)
    assert gate.exit_code == Exit.OK, gate.output
    assert gate.stdout.startswith("promote  worker@1 against base over 24 tasks\ngain +0.500")
    verdict = read_verdict(folder)
    assert verdict is not None and verdict.mean_delta == 0.5
    assert {label.value for label in LabelLog(workspace.labels)} == {0.0, 1.0}
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
    run: Commands, make_adapter: MakeAdapter, files: list[str], url: str, peer: Any
) -> None:
    make_adapter("worker@2")
    gate = run("gate", "worker@2", *files, "--attach", url)
    assert gate.exit_code == Exit.FAILED
    assert peer.loaded == {}
    assert "its verdict is reject" in str(run.error("adapters", "promote", "worker@2", "--attach", url))
    assert "rejected: it can't become active" in str(run.error("adapters", "promote", "worker@2", "--force"))
    assert "worker@2 is rejected" in str(run.error("gate", "worker@2", *files, "--attach", url))


def test_too_few_tasks_leave_a_candidate_a_candidate(
    run: Commands, make_adapter: MakeAdapter, files: list[str], url: str
) -> None:
    make_adapter("worker@1")
    gate = run("gate", "worker@1", *files, "--attach", url, "--min-tasks", "50")
    assert gate.exit_code == Exit.PARTIAL and "at least 50 are needed" in gate.stderr
    assert run.json("adapters", "list")[0]["state"] == "candidate"
    assert "its verdict is inconclusive" in str(run.error("adapters", "promote", "worker@1", "--attach", url))


def test_what_was_evaluated_is_not_run_again(
    run: Commands, make_adapter: MakeAdapter, files: list[str], url: str, peer: Any
) -> None:
    make_adapter("worker@1")
    run("gate", "worker@1", *files, "--attach", url, "--min-tasks", "50")
    asked = len(peer.chats)
    assert asked == 2 * TASKS
    run("gate", "worker@1", *files, "--attach", url)
    assert len(peer.chats) == asked


def test_a_verdict_against_what_is_no_longer_in_service_does_not_count(
    run: Commands, make_adapter: MakeAdapter, files: list[str], url: str
) -> None:
    make_adapter("worker@1")
    make_adapter("worker@2")
    run("gate", "worker@1", *files, "--attach", url)
    run("adapters", "promote", "worker@2", "--force", "--attach", url)
    words = str(run.error("adapters", "promote", "worker@1", "--attach", url))
    assert "its verdict is against base, and worker@2 is in service now" in words


def test_without_a_verdict_only_force_promotes(run: Commands, make_adapter: MakeAdapter, workspace: Workspace) -> None:
    folder = make_adapter("worker@1")
    assert "it has no verdict; run `journeyman gate worker@1`" in str(run.error("adapters", "promote", "worker@1"))
    promoted = run("adapters", "promote", "worker@1", "--force")
    assert promoted.exit_code == Exit.OK and "no server is running" in promoted.stderr
    assert Journal(workspace.journal).entries()[0].reason == "forced: it has no verdict"
    assert not (folder / VERDICT).exists()


def test_swap_loads_without_promoting(
    run: Commands, make_adapter: MakeAdapter, url: str, peer: Any, workspace: Workspace
) -> None:
    make_adapter("worker@1")
    assert isinstance(run.error("adapters", "swap", "worker@1"), ServerError)
    assert run.json("adapters", "swap", "worker@1", "--attach", url)["distance"]["adapter"] == 0.0
    assert list(peer.loaded) == ["worker@1"] and Journal(workspace.journal).entries() == []


def test_a_damaged_adapter_is_listed_with_what_is_wrong(run: Commands, make_adapter: MakeAdapter) -> None:
    make_adapter("worker@1")
    (make_adapter("worker@2") / "adapter_model.safetensors").unlink()
    whole, damaged = run.json("adapters", "list")
    assert whole["error"] is None and "no such file" in damaged["error"]
    assert "no such file" in run("adapters", "list").stderr


def test_an_adapter_that_is_not_loaded_is_loaded_and_proved_before_it_is_evaluated(
    run: Commands, make_adapter: MakeAdapter, files: list[str], url: str, peer: Any
) -> None:
    make_adapter("worker@1")
    assert peer.loaded == {}
    assert run.json("evaluate", *files, "--policy", "worker=worker@1", "--attach", url)["score"] == 1.0
    assert list(peer.loaded) == ["worker@1"]


def test_an_adapter_that_is_nowhere_is_refused_before_any_run(
    run: Commands, files: list[str], url: str, peer: Any
) -> None:
    told = str(run.error("evaluate", *files, "--policy", "worker=worker@7", "--attach", url))
    assert "there is no adapter worker@7" in told and peer.chats == []


def test_a_run_whose_policy_the_server_does_not_know_is_no_episode(
    run: Commands, make_adapter: MakeAdapter, files: list[str], url: str, peer: Any, workspace: Workspace
) -> None:
    make_adapter("worker@1")
    peer.forgets = True
    assert "says nothing" in str(run.error("evaluate", *files, "--policy", "worker=worker@1", "--attach", url))
    assert list(LabelLog(workspace.labels)) == []
    peer.forgets = False
    assert run.json("evaluate", *files, "--policy", "worker=worker@1", "--attach", url)["score"] == 1.0


def test_again_measures_anew(run: Commands, make_adapter: MakeAdapter, files: list[str], url: str, peer: Any) -> None:
    make_adapter("worker@1")
    for expected in (TASKS, TASKS, 2 * TASKS):
        more = ["--again"] if expected > TASKS else []
        run("evaluate", *files, "--policy", "worker=worker@1", "--attach", url, *more)
        assert len(peer.chats) == expected


def test_an_evaluation_in_which_nothing_was_measured_fails(
    run: Commands, files: list[str], url: str, workspace: Workspace
) -> None:
    budget = "\n[budget]\ntokens = 1\n"
    crew = Path(files[1])
    crew.write_text(crew.read_text() + budget)
    evaluated = run("evaluate", *files, "--attach", url)
    assert evaluated.exit_code == Exit.FAILED and "nothing was measured" in evaluated.stderr


def test_evaluate_prints_the_mean_score_of_the_policies_asked_for(
    run: Commands, make_adapter: MakeAdapter, files: list[str], url: str
) -> None:
    make_adapter("worker@1")
    run("adapters", "swap", "worker@1", "--attach", url)
    assert run.json("evaluate", *files, "--attach", url)["score"] == 0.5
    best = run("evaluate", *files, "--attach", url, "--policy", "worker=worker@1")
    assert best.stdout.startswith("1.000  mean score over 24 tasks") and "24 solved" in best.stdout


def test_an_endpoint_answers_the_agent_that_names_it_without_any_server(
    run: Commands, files: list[str], url: str, workspace: Workspace
) -> None:
    project(workspace, url, '[agents.worker]\npolicy = "big"\n')
    assert run.json("evaluate", *files)["score"] == 1.0
    project(workspace, url)
    assert run.json("evaluate", *files, "--policy", "worker=big")["score"] == 1.0


def test_an_endpoint_stands_in_where_an_agent_s_own_policy_fails(
    run: Commands, files: list[str], url: str, workspace: Workspace, peer: Any
) -> None:
    project(workspace, url, '[agents.worker]\npolicy = "worker@7"\nfallback = ["big"]\n')
    assert "there is no adapter worker@7" in str(run.error("evaluate", *files, "--attach", url))
    project(workspace, url, '[agents.worker]\nfallback = ["big"]\n')
    peer.ailing = True
    assert run.json("evaluate", *files, "--attach", url)["score"] == 1.0


def test_the_gate_leaves_to_the_large_model_what_is_routed_to_it(
    run: Commands, make_adapter: MakeAdapter, files: list[str], url: str, workspace: Workspace, peer: Any
) -> None:
    make_adapter("worker@1")
    project(workspace, url, '[routing]\nlarge = "big"\nrules = [{ to = "large", goal = "1" }]\n')
    verdict = run.json("gate", "worker@1", *files, "--attach", url)
    gains = {task for task, delta in verdict["deltas"].items() if delta}
    assert gains == {"q3", "q5", "q7", "q9", "q23"}
    assert peer.chats.count("org/large") == 2 * 12


def test_a_server_that_is_down_gives_no_score_and_none_is_kept(
    run: Commands, files: list[str], url: str, workspace: Workspace, peer: Any
) -> None:
    project(workspace, url.rpartition(":")[0] + ":9", '[agents.worker]\npolicy = "big"\n')
    Path(files[3]).write_text('{"id": "q1", "prompt": "1", "reference": "word1"}\n')
    assert "task 'q1' says nothing: " in str(run.error("evaluate", *files))
    project(workspace, url, '[agents.worker]\npolicy = "base"\n')
    peer.ailing = True
    refused = run("evaluate", *files, "--attach", url)
    assert refused.stdout.startswith("0.000  mean score over 1 tasks")
    assert "1 of 1 runs did not end ok; first: q1 failed: " in refused.stderr


def test_an_evaluation_under_other_routes_is_another_one(
    run: Commands, files: list[str], url: str, workspace: Workspace
) -> None:
    project(workspace, url)
    assert run.json("evaluate", *files, "--attach", url)["score"] == 0.5
    project(workspace, url, '[routing]\nlarge = "big"\nrules = [{ to = "large" }]\n')
    assert run.json("evaluate", *files, "--attach", url)["score"] == 1.0


def test_a_candidate_that_would_never_be_asked_is_not_gated(
    run: Commands, make_adapter: MakeAdapter, files: list[str], url: str, workspace: Workspace
) -> None:
    make_adapter("worker@1")
    crew = Path(files[1]).read_text()
    Path(files[1]).write_text(crew + 'model = "big"\n')
    assert "unknown policy 'big'" in str(run.error("gate", "worker@1", *files, "--attach", url))
    project(workspace, url)
    assert "gives 'worker' the model 'big'" in str(run.error("gate", "worker@1", *files, "--attach", url))
    Path(files[1]).write_text(crew)
    project(workspace, url, '[routing]\nlarge = "big"\nsmall = "base"\nclassifier = true\n')
    classifier = Classifier(intercept=0.0, weights={}, rows=1, held_out=1, accuracy=1.0, majority=0.5)
    workspace.router.write_text(classifier.model_dump_json())
    words = str(run.error("gate", "worker@1", *files, "--attach", url))
    assert "[routing] gives all work of 'worker' to 'base' or 'big'" in words


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (["gate", "worker@9"], AdapterError, "there is no adapter worker@9"),
        (["gate", "planner@1"], ConfigError, "planner@1 is for 'planner'; the crew has: worker"),
        (["gate", "worker@1", "--scorer", "nowhere:f"], ConfigError, "scorer 'nowhere:f'"),
        (["gate", "worker@1", "--confidence", "2"], ConfigError, "'confidence'"),
        (["evaluate", "--policy", "worker"], ConfigError, "write AGENT=POLICY"),
        (["evaluate", "--policy", "wroker=worker@1"], ConfigError, "no agent 'wroker'; it has: worker"),
        (["evaluate", "--policy", "worker=bgi"], ConfigError, "unknown policy 'bgi'; have base, and adapters"),
    ],
)
def test_bad_input_is_one_line(
    run: Commands,
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


def test_a_gate_of_what_the_project_overrides_says_so(
    run: Commands, make_adapter: MakeAdapter, files: list[str], url: str, workspace: Workspace
) -> None:
    make_adapter("worker@1")
    project(workspace, url, '[agents.worker]\npolicy = "big"\n')
    Path(files[3]).write_text('{"id": "q1", "prompt": "1", "reference": "word1"}\n')
    gated = run("gate", "worker@1", *files, "--attach", url)
    assert "journeyman.toml has big answer worker; a promotion changes nothing there" in gated.stderr
    assert gated.stdout.startswith("inconclusive  worker@1 against base over 1 tasks\ngain +1.000")


def test_a_promotion_that_the_project_overrides_says_so(
    run: Commands, make_adapter: MakeAdapter, workspace: Workspace
) -> None:
    make_adapter("worker@1")
    (workspace.root.parent / PROJECT_FILE).write_text('[agents.worker]\npolicy = "base"\n')
    promoted = run("adapters", "promote", "worker@1", "--force")
    assert "journeyman.toml has base answer worker; a promotion changes nothing there" in promoted.stderr
