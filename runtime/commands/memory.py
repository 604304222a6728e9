"""`journeyman memory`: what is remembered of users and sessions, and forgetting it."""

import asyncio
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from journeyman.runtime.console import Exit, JsonOption, WorkspaceOption, emit, notes, out
from journeyman.runtime.store.memory import Memory, Remembered
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.reports.wording import line

app = typer.Typer(no_args_is_help=True, help="Show and delete what agents remember of users and sessions.")

UserOption = Annotated[str | None, typer.Option(help="Of this user")]
SessionOption = Annotated[str | None, typer.Option(help="Of this session")]


@app.command("list")
def list_memory(
    user: UserOption = None,
    session: SessionOption = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the turns of sessions and the notes of agents, oldest first.

    Example: journeyman memory list --user ada
    """
    workspace = find_workspace(folder)
    found = asyncio.run(_find(workspace, user, session))
    emit(found, as_json, lambda: out.print(_table(found)) if found else None)
    if not found:
        notes.print(f"nothing is remembered in {workspace.root}", markup=False)


@app.command("forget")
def forget(
    user: UserOption = None,
    session: SessionOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete what is remembered of a user, of a session, or of a user in a session; the record of runs stays.

    Example: journeyman memory forget --user ada
    """
    if user is None and session is None:
        raise ConfigError("say whose memory: --user or --session")
    workspace = find_workspace(folder)
    known = len(asyncio.run(_find(workspace, user, session)))
    if known and not yes:
        _confirm(known)
    forgotten = asyncio.run(_forget(workspace, user, session)) if known else 0
    emit({"forgotten": forgotten}, as_json, lambda: out.print(f"forgotten: {forgotten} turns and notes"))


async def _forget(workspace: Workspace, user: str | None, session: str | None) -> int:
    runs = workspace.runs
    try:
        return await Memory(runs).forget(user=user, session=session)
    finally:
        await runs.aclose()


async def _find(workspace: Workspace, user: str | None, session: str | None) -> list[Remembered]:
    if not workspace.has_runs:
        return []
    runs = workspace.runs
    try:
        return await Memory(runs).find(user=user, session=session)
    finally:
        await runs.aclose()


def _confirm(entries: int) -> None:
    if not sys.stdin.isatty():
        notes.print(f"{entries} turns and notes would be deleted for good: say --yes")
        raise typer.Exit(Exit.NEEDS_INPUT)
    typer.confirm(f"Delete {entries} turns and notes for good?", abort=True, err=True)


def _table(found: list[Remembered]) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), expand=True)
    for name in ("WHEN", "WHAT", "USER", "SESSION"):
        grid.add_column(name, no_wrap=True, max_width=24, overflow="ellipsis")
    grid.add_column("TEXT", no_wrap=True, ratio=1, min_width=16, overflow="ellipsis")
    for entry in found:
        when = datetime.fromtimestamp(entry.at_ns / 1e9, UTC).astimezone()
        text = entry.text if entry.answer is None else f"{entry.text} → {entry.answer}"
        cells = (f"{when:%Y-%m-%d %H:%M}", entry.kind, entry.user or "-", entry.session or "-", text)
        grid.add_row(*(Text(line(cell)) for cell in cells))
    return grid
