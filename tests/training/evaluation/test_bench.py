"""The bench from Python: what may be named, and what is run before it is believed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.adapters.live import current_policies
from journeyman.runtime.batch import read_tasks
from journeyman.runtime.serving.server import attach
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError, ConfigError, ServerError
from journeyman.training.evaluation.bench import Bench, with_policies

MakeAdapter = Callable[..., Path]
SCORER = "journeyman.training.rewards:answer_in_text"


@pytest.fixture
def bench(workspace: Workspace, url: str, files: list[str]) -> Bench:
    attach(workspace, url)
    tasks, _ = read_tasks(Path(files[3]))
    return Bench.open(workspace, Path(files[1]), tasks[:4], SCORER, source="tasks.jsonl")


def test_a_policy_that_is_not_there_is_refused_with_those_that_are(bench: Bench, make_adapter: MakeAdapter) -> None:
    with pytest.raises(ConfigError, match="unknown policy 'worker-1'; have base, and no adapter yet"):
        bench.named({"worker": "worker-1"})
    make_adapter("worker@1")
    with pytest.raises(ConfigError, match="unknown policy 'worker-1'; have base, and adapters worker@1"):
        bench.named({"worker": "worker-1"})
    with pytest.raises(AdapterError, match=r"there is no adapter worker@7 in .*; have: worker@1"):
        bench.named({"worker": "worker@7"})
    assert bench.named({"worker": "worker@1"}) == {"worker": "worker@1"}


def test_an_adapter_is_brought_in_before_it_is_measured_and_measured_once(
    workspace: Workspace, bench: Bench, make_adapter: MakeAdapter, peer: Any
) -> None:
    make_adapter("worker@1")
    table = with_policies(workspace, current_policies(workspace), {"worker": "worker@1"})
    assert [episode.score for episode in bench.episodes(table)] == [1.0] * 4
    assert list(peer.loaded) == ["worker@1"] and len(peer.chats) == 4
    peer.loaded.clear()
    assert [episode.score for episode in bench.episodes(table)] == [1.0] * 4
    assert len(peer.chats) == 4
    bench.episodes(table, again=True)
    assert list(peer.loaded) == ["worker@1"] and len(peer.chats) == 8


def test_a_policy_that_leaves_the_server_in_the_middle_gives_no_score(
    workspace: Workspace, bench: Bench, make_adapter: MakeAdapter, peer: Any
) -> None:
    make_adapter("worker@1")
    peer.forgets = True
    table = with_policies(workspace, current_policies(workspace), {"worker": "worker@1"})
    with pytest.raises(ServerError, match=r"says nothing: .* answered 404"):
        bench.episodes(table)
    peer.forgets = False
    assert [episode.score for episode in bench.episodes(table)] == [1.0] * 4
