"""The diff as a table: a row for each field that differs, the two runs side by side."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from journeyman.traces.reports.diff import Change, Diff, Step
from journeyman.traces.reports.wording import count, duration, line, plain, shortened, visible

PARTED = "▶"
"""Stands by the step in which the runs parted."""


def diff_table(diff: Diff, *, full: bool = False) -> RenderableType:
    """With `full` also the steps that are the same, and every text whole."""
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), expand=True)
    grid.add_column("STEP", ratio=2, overflow="fold")
    grid.add_column("DIFFERS", no_wrap=True)
    grid.add_column(f"A {diff.a[:8]}", ratio=3, overflow="fold")
    grid.add_column(f"B {diff.b[:8]}", ratio=3, overflow="fold")
    same = sum(step.same for step in diff.steps)
    differing = len(diff.steps) - same
    above: list[Step] = []
    for step in diff.steps:
        above = [*(one for one in above if one.depth < step.depth), step]
        if full:
            _add(grid, step, parted=step is diff.first, full=True)
        elif not step.same:
            # The agents that it was done by come first, so that a turn says whose it is.
            for one in above:
                _add(grid, one, parted=one is diff.first, full=False)
            above = []
    end = Text(f"{count(same, 'step')} the same, {differing} not", "dim")
    if diff.first is not None:
        end.append(f"; {PARTED} is where the runs parted", "dim")
    return Group(grid, end) if differing or full else end


def _add(grid: Table, step: Step, *, parted: bool, full: bool) -> None:
    name = Text("  " * step.depth + line(step.name), "bold cyan" if step.kind in ("run", "agent") else "")
    if parted:
        name.append(f" {PARTED}", "bold yellow")
    if step.side != "both":
        there, missing = Text("there"), Text("missing", "red")
        grid.add_row(name, Text(step.kind, "dim"), *((there, missing) if step.side == "a" else (missing, there)))
    elif not step.changes:
        grid.add_row(name, Text("same", "dim"), "", "")
    for change in step.changes:
        grid.add_row(name, Text(change.field, "dim"), _value(change, change.a, full), _value(change, change.b, full))
        name = Text("")


def _value(change: Change, value: object, full: bool) -> Text:
    if value is None:
        return Text("-", "dim")
    if change.field == "seconds" and isinstance(value, float):
        return Text(duration(value))
    if change.field == "tokens" and isinstance(value, int):
        return Text(f"{value:,}")
    text = plain(value)
    return Text(visible(text) if full else shortened(line(text)), "red" if change.field == "error" else "")
