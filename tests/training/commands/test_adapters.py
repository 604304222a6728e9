"""`journeyman adapters` from end to end, on a server of the test's own that plays vLLM."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.console import Exit
from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces.errors import ServerError
from journeyman.training.evaluation.gate import VERDICT

MakeAdapter = Callable[..., Path]


def test_without_a_verdict_only_force_promotes(run: Any, make_adapter: MakeAdapter, workspace: Workspace) -> None:
    folder = make_adapter("worker@1")
    assert "it has no verdict; run `journeyman gate worker@1`" in str(run.error("adapters", "promote", "worker@1"))
    promoted = run("adapters", "promote", "worker@1", "--force")
    assert promoted.exit_code == Exit.OK and "no server is running" in promoted.stderr
    assert Journal(workspace.journal).entries()[0].reason == "forced: it has no verdict"
    assert not (folder / VERDICT).exists()


def test_swap_loads_without_promoting(
    run: Any, make_adapter: MakeAdapter, url: str, peer: Any, workspace: Workspace
) -> None:
    make_adapter("worker@1")
    assert isinstance(run.error("adapters", "swap", "worker@1"), ServerError)
    assert run.json("adapters", "swap", "worker@1", "--attach", url)["distance"]["adapter"] == 0.0
    assert list(peer.loaded) == ["worker@1"] and Journal(workspace.journal).entries() == []


def test_an_export_is_told_and_is_refused_where_it_would_write_over_something(
    run: Any, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    make_adapter("worker@1")
    out = tmp_path / "out"
    assert run.json("adapters", "export", "worker@1", str(out)) == {"policy": "worker@1", "folder": str(out)}
    assert "exists already: name a folder that doesn't" in str(run.error("adapters", "export", "worker@1", str(out)))
    assert "--merged" in str(run.error("adapters", "export", "worker@1", str(tmp_path / "b"), "--model", "m"))


def test_a_damaged_adapter_is_listed_with_what_is_wrong(run: Any, make_adapter: MakeAdapter) -> None:
    make_adapter("worker@1")
    (make_adapter("worker@2") / "adapter_model.safetensors").unlink()
    whole, damaged = run.json("adapters", "list")
    assert (whole["parent"], whole["start"]) == ("base", "base")
    assert whole["error"] is None and "no such file" in damaged["error"]
    assert "no such file" in run("adapters", "list").stderr


def test_a_promotion_that_the_project_overrides_says_so(
    run: Any, make_adapter: MakeAdapter, workspace: Workspace
) -> None:
    make_adapter("worker@1")
    (workspace.root.parent / PROJECT_FILE).write_text('[agents.worker]\npolicy = "base"\n')
    promoted = run("adapters", "promote", "worker@1", "--force")
    assert "journeyman.toml has base answer worker; a promotion changes nothing there" in promoted.stderr
