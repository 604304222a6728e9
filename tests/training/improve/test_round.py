"""A round of the loop from Python: compare, settle, promote, roll back, without any command."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.batch import read_tasks
from journeyman.runtime.serving.server import ServerState, attach
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError, ConfigError
from journeyman.training.evaluation.bench import Bench
from journeyman.training.evaluation.gate import GateConfig, read_verdict
from journeyman.training.improve.compare import compare
from journeyman.training.improve.promote import promote, rollback
from journeyman.training.improve.settle import settle

MakeAdapter = Callable[..., Path]
SCORER = "journeyman.training.rewards:answer_in_text"


@pytest.fixture
def server(workspace: Workspace, url: str) -> ServerState:
    (workspace.root.parent / "journeyman.toml").write_text(f'mlflow = "sqlite:///{workspace.root}/mlflow.db"\n')
    return attach(workspace, url)


@pytest.fixture
def bench(workspace: Workspace, server: ServerState, files: list[str]) -> Bench:
    tasks, _ = read_tasks(Path(files[3]))
    return Bench.open(workspace, Path(files[1]), tasks, SCORER, source="tasks.jsonl")


def test_a_winner_goes_into_service_and_out_again(
    workspace: Workspace, server: ServerState, bench: Bench, make_adapter: MakeAdapter, peer: Any
) -> None:
    folder = make_adapter("worker@1")
    told: list[str] = []
    verdict = compare(
        workspace, server, bench, "worker@1", GateConfig(), on_episode=lambda policy, _: told.append(policy)
    )
    assert (verdict.decision, verdict.incumbent) == ("promote", "base")
    assert told == ["base"] * len(bench.tasks) + ["worker@1"] * len(bench.tasks)
    assert read_verdict(folder) == verdict
    assert verdict.setup is not None
    told_of = verdict.setup.model_dump(exclude={"tasks_digest"})
    assert told_of == {"crew": "echo", "tasks": "tasks.jsonl", "scorer": SCORER, "seed": 0}
    settle(workspace, server, verdict)
    assert list(peer.loaded) == ["worker@1"]
    assert promote(workspace, "worker@1", server=server).entry.reason.startswith("better: gain")
    assert Journal(workspace.journal).in_service("worker") == "worker@1"
    rollback(workspace, "worker", reason="a test", server=server)
    assert Journal(workspace.journal).in_service("worker") == "base"


def test_a_loser_leaves_the_server_and_is_rejected_for_good(
    workspace: Workspace, server: ServerState, bench: Bench, make_adapter: MakeAdapter, peer: Any
) -> None:
    make_adapter("worker@2")
    verdict = compare(workspace, server, bench, "worker@2", GateConfig())
    settle(workspace, server, verdict)
    assert (verdict.decision, peer.loaded) == ("reject", {})
    with pytest.raises(AdapterError, match="its verdict is reject"):
        promote(workspace, "worker@2", server=server)
    with pytest.raises(AdapterError, match="rejected"):
        compare(workspace, server, bench, "worker@2", GateConfig())


def test_an_adapter_of_an_agent_that_the_crew_has_not_is_never_compared(
    workspace: Workspace, server: ServerState, bench: Bench, make_adapter: MakeAdapter, peer: Any
) -> None:
    make_adapter("planner@1")
    with pytest.raises(ConfigError, match="planner@1 is for 'planner'; the crew has: worker"):
        compare(workspace, server, bench, "planner@1", GateConfig())
    assert peer.chats == []
