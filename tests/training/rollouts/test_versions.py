"""The weights of each step answer to a name of their own, one at a time, beside what others have loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.adapters.adapter import CONFIG, WEIGHTS
from journeyman.runtime.adapters.live import swap_in
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.serving.server import ServerState, attach
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError, ServerError
from journeyman.training.rollouts.versions import Versions

MakeAdapter = Callable[..., Path]


def weights(text: str) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        (folder / CONFIG).write_text("{}")
        (folder / WEIGHTS).write_text(text)

    return save


@pytest.fixture
def server(workspace: Workspace, url: str) -> ServerState:
    return attach(workspace, url)


@pytest.fixture
def versions(workspace: Workspace, server: ServerState, tmp_path: Path) -> Versions:
    return Versions(workspace, server, "worker@3", tmp_path)


def test_a_step_s_weights_take_the_place_of_the_last_one_s(versions: Versions, peer: Any) -> None:
    peer.loaded["worker@31.5"] = "another training's"
    versions.keep(0, weights("a"))
    versions.keep(1, weights("b"))
    first, second = versions.bring_in(0), versions.bring_in(1)
    assert (first.policy, second.policy) == ("worker@3.0", "worker@3.1")
    assert first.digest != second.digest and second.swap_ms > 0
    assert sorted(peer.loaded) == ["worker@3.1", "worker@31.5"]
    assert versions.bring_in(1).swap_ms == 0
    versions.clear()
    assert list(peer.loaded) == ["worker@31.5"]


def test_other_weights_of_a_number_never_get_the_same_path(versions: Versions, peer: Any, tmp_path: Path) -> None:
    versions.keep(0, weights("a"))
    versions.bring_in(0)
    path = peer.loaded["worker@3.0"]
    versions.drop(before=1)
    versions.keep(0, weights("b"))
    assert versions.bring_in(0).swap_ms > 0
    assert peer.loaded["worker@3.0"] != path


def test_what_a_kill_cut_short_is_saved_again(versions: Versions, tmp_path: Path) -> None:
    (tmp_path / "versions" / "draft").mkdir(parents=True)
    (tmp_path / "versions" / "draft" / "half").write_text("")
    versions.keep(0, weights("a"))
    assert [path.name.partition("-")[0] for path in (tmp_path / "versions").iterdir()] == ["0"]


def test_weights_that_are_gone_are_named(versions: Versions) -> None:
    with pytest.raises(AdapterError, match=r"the weights of worker@3.7 are gone: remove"):
        versions.bring_in(7)


def test_a_full_server_is_not_made_to_forget_what_others_use(versions: Versions, peer: Any) -> None:
    peer.loaded.update({f"other@{number}": "x" for number in range(1, 5)})
    versions.keep(0, weights("a"))
    with pytest.raises(AdapterError, match=r"room for 4 adapters and serves other@1, .*: raise server.max_loras"):
        versions.bring_in(0)


def test_a_promotion_leaves_the_weights_of_a_training_alone(
    workspace: Workspace, versions: Versions, server: ServerState, peer: Any, make_adapter: MakeAdapter
) -> None:
    versions.keep(0, weights("a"))
    versions.bring_in(0)
    for number in range(1, 5):
        make_adapter(f"worker@{number}")
        swap_in(workspace, server, f"worker@{number}")
    assert sorted(peer.loaded) == ["worker@2", "worker@3", "worker@3.0", "worker@4"]


def test_a_dead_server_is_said_in_one_line(workspace: Workspace, server: ServerState, tmp_path: Path) -> None:
    gone = server.model_copy(update={"url": "http://127.0.0.1:9"})
    versions = Versions(workspace, gone, "worker@3", tmp_path)
    versions.keep(0, weights("a"))
    with pytest.raises(ServerError, match="does not answer"):
        versions.bring_in(0)
    versions.clear()


def test_the_agent_is_answered_by_its_version_and_by_nobody_in_its_place(versions: Versions) -> None:
    versions.keep(0, weights("a"))
    version = versions.bring_in(0)
    table = PolicyTable(
        agents={"worker": "worker@1", "boss": "boss@2"},
        fallbacks={"worker": ("base",), "boss": ("base",)},
        digests={"boss@2": "d"},
    )
    made = version.table(table, "worker")
    assert made.agents == {"worker": "worker@3.0", "boss": "boss@2"}
    assert made.fallbacks == {"boss": ("base",)}
    assert made.digests == {"boss@2": "d", "worker@3.0": version.digest}
