"""`journeyman memory`: what is remembered is shown, and forgotten only on purpose."""

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from journeyman.agents.agent import MemoryConfig
from journeyman.runtime.commands.memory import app
from journeyman.runtime.console import Exit
from journeyman.runtime.store.memory import Memory
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task


@pytest.fixture
def remembered(workspace: Workspace) -> Workspace:
    """A turn and a note of ann, a note of bob."""
    asyncio.run(_remember(workspace))
    return workspace


async def _remember(workspace: Workspace) -> None:
    runs = workspace.runs
    memory = Memory(runs, MemoryConfig())
    ann, bob = (Task(id="t", prompt="Who\x1b[31m made Jaws?", session="s1", user=user) for user in ("ann", "bob"))
    await memory.add(ann, "Spielberg", run_id="r1")
    await memory.note(ann, "Ann likes [bold]sharks.")
    await memory.note(bob, "Bob does not.")
    await runs.aclose()


def memory(workspace: Workspace, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "-C", str(workspace.root)], env={"COLUMNS": "120"})


def listed(workspace: Workspace, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(memory(workspace, "list", "--json", *arguments).stdout)
    return found


def test_what_is_remembered_is_listed_as_text_that_does_nothing(remembered: Workspace) -> None:
    shown = memory(remembered, "list", "--user", "ann")
    assert shown.exit_code == 0, shown.output
    assert "made Jaws? → Spielberg" in shown.stdout
    assert "Ann likes [bold]sharks." in shown.stdout
    assert "\x1b[31m" not in shown.stdout
    assert "Bob" not in shown.stdout


def test_a_long_text_leaves_room_for_whose_it_is(workspace: Workspace) -> None:
    async def remember() -> None:
        runs = workspace.runs
        await Memory(runs).note(Task(id="t", prompt="p", session="s1", user="ann"), "word " * 100)
        await runs.aclose()

    asyncio.run(remember())
    head, row = memory(workspace, "list").stdout.splitlines()
    assert head.split() == ["WHEN", "WHAT", "USER", "SESSION", "TEXT"]
    assert row.split()[2:6] == ["note", "ann", "s1", "word"]


def test_nothing_is_forgotten_without_yes(remembered: Workspace) -> None:
    result = memory(remembered, "forget", "--user", "ann")
    assert result.exit_code == Exit.NEEDS_INPUT
    assert "2 turns and notes would be deleted" in result.stderr
    assert len(listed(remembered)) == 3


def test_a_user_is_forgotten_and_the_others_stay(remembered: Workspace) -> None:
    assert json.loads(memory(remembered, "forget", "--user", "ann", "--yes", "--json").stdout) == {"forgotten": 2}
    assert [entry["text"] for entry in listed(remembered)] == ["Bob does not."]


def test_it_must_be_said_whose_memory(workspace: Workspace) -> None:
    result = memory(workspace, "forget", "--yes")
    assert isinstance(result.exception, ConfigError)
    assert "--user or --session" in str(result.exception)


def test_an_empty_memory_says_so(workspace: Workspace) -> None:
    result = memory(workspace, "list")
    assert result.exit_code == 0
    assert "nothing is remembered" in result.stderr


def test_where_nothing_is_remembered_nothing_is_asked_and_nothing_made(workspace: Workspace) -> None:
    assert memory(workspace, "list").exit_code == 0
    assert json.loads(memory(workspace, "forget", "--user", "ann", "--json").stdout) == {"forgotten": 0}
    assert not workspace.has_runs
