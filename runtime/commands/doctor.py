"""`journeyman doctor`: what works here, in one screen."""

import typer
from rich.table import Table

from journeyman.runtime.console import Exit, JsonOption, WorkspaceOption, emit, out
from journeyman.runtime.doctor import Check, Condition, examine
from journeyman.runtime.workspace import find_workspace

STYLES: dict[Condition, str] = {"ok": "green", "warn": "yellow", "missing": "cyan", "broken": "red"}


def doctor(folder: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Show versions, machine, model, server and workspace, and what to do where something is not right.

    Example: journeyman doctor --json
    """
    checks = examine(find_workspace(folder))
    works = all(check.condition != "broken" for check in checks)
    emit({"works": works, "checks": checks}, as_json, lambda: out.print(_table(checks)))
    if not works:
        raise typer.Exit(Exit.FAILED)


def _table(checks: list[Check]) -> Table:
    table = Table.grid(padding=(0, 2))
    for check in checks:
        style = STYLES[check.condition]
        advice = f" [{style}]→ {_escape(check.advice)}[/]" if check.advice else ""
        table.add_row(f"[{style}]{check.condition}[/]", check.name, f"{_escape(check.found)}{advice}")
    return table


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
