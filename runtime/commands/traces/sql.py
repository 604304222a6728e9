"""The `journeyman traces sql` command: anyone's own question to the record."""

import math
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from journeyman.runtime.console import JsonOption, WorkspaceOption, emit, notes, out
from journeyman.runtime.workspace import find_workspace

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
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the record in SQL, as DuckDB speaks it.

    Example: journeyman traces sql "SELECT agent, count(*) FROM turns GROUP BY agent"
    """
    store = find_workspace(folder).store
    answer = store.sql(query)
    names = list(_distinct(answer.column_names))
    rows = answer.rename_columns(names).to_pylist()
    emit(_plain(rows) if as_json else None, as_json, lambda: out.print(_table(names, rows)))
    if store.damage:
        notes.print(f"left out: {store.damage}", style="yellow", markup=False, soft_wrap=True)


def _distinct(names: Sequence[str]) -> Iterator[str]:
    """The names of columns; one that was there before, as after a join, gets a number, as DuckDB itself gives it."""
    for workspace, name in enumerate(names):
        before = names[:workspace].count(name)
        yield f"{name}:{before}" if before else name


def _table(names: list[str], rows: list[dict[str, object]]) -> Table:
    grid = Table(*names, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        grid.add_row(*(_cell(value) for value in row.values()))
    return grid


def _cell(value: object) -> str:
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split()) if len(text) <= SHORT else " ".join(text[:SHORT].split()) + "…"
    return escape(text)


def _plain(value: Any) -> Any:
    """What DuckDB answered, as far as JSON has it: sums of whole numbers come as decimals, times as objects."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, bool | int | str) else str(value)
