"""`journeyman traces delete` and `lineage`: nobody deletes by accident, and what came of the runs is told."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from journeyman.agents.agent import MemoryConfig
from journeyman.runtime.adapters.adapter import RECORD
from journeyman.runtime.commands.traces.app import app
from journeyman.runtime.console import Exit
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.store.memory import Memory
from journeyman.runtime.store.run_store import RunRecord
from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces import attributes as a
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.tombstones import Tombstones
from journeyman.traces.trace import Task

SPANS = Path(__file__).parents[3] / "data" / "spans"
MakeAdapter = Callable[..., Path]

LEARNED, TAUGHT, CRASHED = "a" * 32, "b" * 32, "c" * 32


@pytest.fixture
def recorded(workspace: Workspace) -> Workspace:
    """A workspace with the golden runs and a dataset made from one of them."""
    shutil.copytree(SPANS, workspace.spans)
    workspace.datasets.mkdir()
    row = {"trace_id": TAUGHT, "span_ids": ["1234567890abcdef"], "policy": "teacher"}
    (workspace.datasets / "lookup.jsonl").write_text(json.dumps(row) + "\n")
    return workspace


def traces(workspace: Workspace, *arguments: str, asked: str | None = None) -> Result:
    return CliRunner().invoke(app, [*arguments, "-C", str(workspace.root)], input=asked, env={"COLUMNS": "100"})


def deleted(workspace: Workspace, *arguments: str) -> dict[str, Any]:
    result = traces(workspace, "delete", "--json", *arguments)
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def test_off_a_terminal_nothing_is_deleted_without_yes(recorded: Workspace) -> None:
    result = traces(recorded, "delete", "--trace", "bbbb")
    assert result.exit_code == Exit.NEEDS_INPUT
    assert "1 run with 20 spans" in result.stderr and "--yes" in result.stderr
    assert len(recorded.store.ids()) == 3
    assert Tombstones(recorded.spans).trace_ids() == frozenset()


def test_a_dry_run_says_what_would_go_and_leaves_it(recorded: Workspace) -> None:
    before = {path: path.read_bytes() for path in recorded.root.rglob("*") if path.is_file()}
    answer = deleted(recorded, "--trace", "bbbb", "--trace", "aaaa", "--dry-run")
    assert (set(answer["traces"]), answer["deleted"]) == ({LEARNED, TAUGHT}, None)
    assert {path: path.read_bytes() for path in recorded.root.rglob("*") if path.is_file()} == before


def test_what_was_made_from_deleted_runs_is_told(recorded: Workspace, make_adapter: MakeAdapter) -> None:
    path = make_adapter("lookup@1") / RECORD
    digest = json.loads(traces(recorded, "lineage", TAUGHT, "--json").stdout)["datasets"][0]["digest"]
    path.write_text(path.read_text().replace("d" * 64, digest))
    result = traces(recorded, "delete", "--trace", "bbbb", "--yes")
    assert result.exit_code == 0
    assert "deleted: 1 run with 20 spans and 0 labels" in result.stdout
    assert "dataset lookup.jsonl · 1 row from it" in result.stdout and "lookup@1 · trained on it" in result.stdout
    assert set(recorded.store.ids()) == {LEARNED, CRASHED}
    assert TAUGHT not in "".join(path.read_text() for path in recorded.spans.glob("*.jsonl"))
    assert "deleted" in traces(recorded, "lineage", "bbbb").stdout
    shown = traces(recorded, "lineage", "lookup@1").stdout
    assert "trace bbbbbbbbbbbb · 1 span · deleted" in shown


def test_deleting_again_finishes_and_is_no_error(recorded: Workspace) -> None:
    Tombstones(recorded.spans).add([TAUGHT], reason="by trace")
    answer = deleted(recorded, "--trace", TAUGHT, "--yes")
    assert (answer["traces"], answer["deleted"]["finished"]) == ([], True)
    assert not list(recorded.spans.glob("taught.jsonl"))
    assert Tombstones(recorded.spans).trace_ids() == {TAUGHT}


def test_what_is_kept_and_remembered_of_a_user_goes_with_the_runs(recorded: Workspace) -> None:
    async def keep() -> None:
        runs = await recorded.runs.open()
        for name, user in (("a", "anna"), ("b", "ben")):
            task = Task(id=name, prompt="?", user=user, session=f"of {user}")
            await runs.put(RunRecord(id=name, trace_id=name * 32, crew="c", task=task))
            await Memory(runs, MemoryConfig()).add(task, "an answer", run_id=name)
        await runs.aclose()

    async def left() -> tuple[list[str], int]:
        runs = await recorded.runs.open()
        found = [record.id for record in await runs.find()], len(await Memory(runs).find())
        await runs.aclose()
        return found

    asyncio.run(keep())
    assert deleted(recorded, "--user", "ben", "--yes")["forgotten"] == {"kept_runs": 1, "memories": 1}
    assert deleted(recorded, "--trace", LEARNED[:4], "--yes")["forgotten"] == {"kept_runs": 1, "memories": 0}
    assert asyncio.run(left()) == ([], 1)


def test_conditions_narrow_each_other(recorded: Workspace) -> None:
    assert set(deleted(recorded, "--older-than", "1d", "--dry-run")["traces"]) == {LEARNED, TAUGHT, CRASHED}
    assert deleted(recorded, "--older-than", "1d", "--trace", "aaaa", "--dry-run")["traces"] == [LEARNED]
    assert deleted(recorded, "--older-than", "5000w", "--dry-run")["traces"] == []
    assert len(deleted(recorded, "--beyond-gb", "0", "--dry-run")["traces"]) == 3
    assert deleted(recorded, "--beyond-gb", "1", "--yes")["traces"] == []


def test_a_user_is_found_also_under_the_name_that_stands_for_him(workspace: Workspace) -> None:
    (workspace.root.parent / PROJECT_FILE).write_text('[traces]\nredact = ["email"]\n')
    with Recording(workspace) as recording:
        for user in ("ann@example.com", "bob@example.com"):
            attributes = {a.USER_ID: user, a.CONVERSATION_ID: "s1"}
            with recording.tracer.span("run", parent=None, attributes=attributes) as span:
                pass
    answer = deleted(workspace, "--session", "s1", "--user", "bob@example.com", "--yes")
    assert answer["traces"] == [span.trace_id]
    (stone,) = Tombstones(workspace.spans)
    assert stone.reason == "by session and user"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((), ConfigError, "say which runs"),
        (("--older-than", "soon"), ConfigError, "isn't a time"),
        (("--trace", "feed"), StoreError, "no trace 'feed'"),
        (("--trace", ""), StoreError, "more than one trace"),
    ],
)
def test_what_names_no_runs_is_an_error_of_one_line(
    recorded: Workspace, arguments: tuple[str, ...], error: type[Exception], words: str
) -> None:
    raised = traces(recorded, "delete", *arguments, "--yes").exception
    assert isinstance(raised, error)
    assert words in str(raised) and "\n" not in str(raised)


def test_lineage_of_a_run_that_nobody_learned_from(recorded: Workspace) -> None:
    assert traces(recorded, "lineage", "aaaa").stdout.splitlines() == [f"trace {LEARNED}", "└── in no dataset"]
