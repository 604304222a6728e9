"""The doctor: one line for each thing, and an exit code."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from journeyman.runtime.commands.doctor import doctor
from journeyman.runtime.doctor import Check, examine
from journeyman.runtime.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("JOURNEYMAN_CACHE", str(tmp_path / "cache"))
    return Workspace(tmp_path / ".journeyman")


def named(workspace: Workspace) -> dict[str, Check]:
    return {check.name: check for check in examine(workspace)}


def test_a_new_workspace_is_fine_and_says_what_is_missing(workspace: Workspace) -> None:
    checks = named(workspace)
    assert checks["python"].condition == checks["langgraph"].condition == checks["workspace"].condition == "ok"
    assert (checks["model"].condition, checks["model"].advice) == ("missing", "journeyman model pull")
    assert (checks["server"].condition, checks["server"].advice) == ("missing", "journeyman server start")
    assert not workspace.root.exists()


def test_contents_are_counted(workspace: Workspace) -> None:
    (workspace.create().adapters / "worker@1").mkdir(parents=True)
    (workspace.adapters / ".worker@2.partial").mkdir()
    workspace.journal.write_text("{}\n{}\n")
    found = named(workspace)["workspace"].found
    assert "1 adapters" in found and "2 journal entries" in found


def test_a_server_that_is_gone_or_unreadable_is_a_warning(workspace: Workspace) -> None:
    workspace.create().server.write_text("{")
    assert named(workspace)["server"].condition == "warn"


def test_a_password_in_the_mlflow_address_is_not_shown(workspace: Workspace) -> None:
    (workspace.root.parent / "journeyman.toml").write_text('mlflow = "http://user:secret@127.0.0.1:9"\n')
    check = named(workspace)["mlflow uri"]
    assert check.condition == "warn" and "secret" not in check.model_dump_json()


@pytest.mark.parametrize("text", ["nonsense = 1\n", "[server\n"])
def test_a_broken_project_file_is_broken_and_ends_with_one(workspace: Workspace, text: str) -> None:
    (workspace.root.parent / "journeyman.toml").write_text(text)
    app = typer.Typer()
    app.command()(doctor)
    result = CliRunner().invoke(app, ["-C", str(workspace.root), "--json"])
    report = json.loads(result.stdout)
    assert result.exit_code == 1 and report["works"] is False
    assert "journeyman.toml" in next(check["found"] for check in report["checks"] if check["name"] == "workspace")


def test_a_workspace_that_is_a_file_is_broken(workspace: Workspace) -> None:
    workspace.root.touch()
    assert named(workspace)["workspace"].condition == "broken"


def test_the_screen_shows_every_check(workspace: Workspace) -> None:
    app = typer.Typer()
    app.command()(doctor)
    result = CliRunner().invoke(app, ["-C", str(workspace.root)])
    assert result.exit_code == 0
    assert all(
        name in result.stdout for name in ("python", "langgraph", "cpu", "memory", "disk", "workspace", "server")
    )
