"""The `journeyman traces sql` command: anyone's own question to the record."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from journeyman.runtime.config import find_workspace
from journeyman.runtime.console import JsonOption, WorkspaceOption, emit, notes, out

SHORT = 120
"""Characters of a cell that are shown; `--json` has them all."""


def sql_command(
    query: Annotated[
        str,
        typer.Argument(
            metavar="QUERY",
            help="One SELECT, over spans, traces, trajectories, turns, tool_calls, decisions and labels",
        ),
    ],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the record in SQL (DuckDB's): `SELECT agent, count(*) FROM turns GROUP BY agent`."""
    store = find_workspace(workspace).store
    rows = store.sql(query)
    emit(rows.to_pylist() if as_json else None, as_json, lambda: out.print(_table(rows.column_names, rows.to_pylist())))
    if store.damage:
        notes.print(f"left out: {store.damage}", style="yellow", markup=False, soft_wrap=True)


def _table(names: list[str], rows: list[dict[str, object]]) -> Table:
    grid = Table(*names, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        grid.add_row(*(_cell(value) for value in row.values()))
    return grid


def _cell(value: object) -> str:
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split()) if len(text) <= SHORT else " ".join(text[:SHORT].split()) + "…"
    return escape(text)
