"""The printed report: its sections as compact tables at a terminal."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from journeyman.traces.reports.report import Report
from journeyman.traces.reports.shown.sections import Section, headline, sections
from journeyman.traces.reports.wording import count, visible

SHOWN = 12
"""Rows of a section; of the rest, how many there are."""


def printed(report: Report) -> RenderableType:
    return Group(Text(headline(report), "bold"), *(part for one in sections(report) for part in _section(one)))


def _section(section: Section) -> Iterator[RenderableType]:
    yield Text(f"\n{section.heading}", "bold cyan")
    yield Text(visible(section.note), "dim")
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in section.columns:
        number = column.startswith(">")
        grid.add_column(column.removeprefix(">"), justify="right" if number else "left", no_wrap=number)
    for row in section.rows[:SHOWN]:
        grid.add_row(*(Text(visible(cell)) for cell in row))
    yield grid
    if len(section.rows) > SHOWN:
        yield Text(f"… {count(len(section.rows) - SHOWN, 'more row')}: --json or --html has them", "dim italic")
