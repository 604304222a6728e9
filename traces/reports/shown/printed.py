"""The printed report: its sections as compact tables at a terminal."""

from collections.abc import Iterator, Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from journeyman.traces.reports.report import Report
from journeyman.traces.reports.shown.sections import Section, headline, sections
from journeyman.traces.reports.wording import count, line, visible

SHOWN = 12
"""Rows of a section; of the rest, how many there are."""

WORD = 16
"""Cells of the terminal beyond which a word may be broken."""

GAP = 2
"""Cells between columns."""


def printed(report: Report) -> RenderableType:
    return Group(Text(headline(report), "bold"), *(part for one in sections(report) for part in _section(one)))


def _section(section: Section) -> Iterator[RenderableType]:
    yield Text(f"\n{section.heading}", "bold cyan")
    yield Text(visible(section.note), "dim")
    shown = [tuple(map(line, row)) for row in section.rows[:SHOWN]]
    yield _Grid([_Column(name, cells) for name, *cells in zip(section.columns, *shown, strict=True)])
    if len(section.rows) > SHOWN:
        yield Text(f"… {count(len(section.rows) - SHOWN, 'more row')}: --json or --html has them", "dim italic")


class _Column:
    """One column, and the fewest and most cells of the terminal that it takes: numbers are never broken."""

    def __init__(self, name: str, cells: Sequence[str]) -> None:
        self.number = name.startswith(">")
        self.cells = (name.removeprefix(">"), *cells)
        self.most = max(map(cell_len, self.cells))
        self.least = self.most if self.number else min(WORD, max(map(cell_len, " ".join(self.cells).split())))


class _Grid:
    """A table no wider than the terminal: numbers that don't fit go into further tables, each with all the texts."""

    def __init__(self, columns: Sequence[_Column]) -> None:
        self._columns = columns

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        for position, numbers in enumerate(self._parts(options.max_width)):
            if position:
                yield Text("")
            yield self._table(numbers, options.max_width)

    def _parts(self, width: int) -> Iterator[list[_Column]]:
        """The columns of numbers, so many at once as fit beside the texts."""
        part = list[_Column]()
        for column in (column for column in self._columns if column.number):
            if part and self._least([*part, column]) > width:
                yield part
                part = []
            part.append(column)
        yield part

    def _with_texts(self, numbers: Sequence[_Column]) -> list[_Column]:
        return [column for column in self._columns if not column.number or column in numbers]

    def _least(self, numbers: Sequence[_Column]) -> int:
        return sum(column.least + GAP for column in self._with_texts(numbers)) - GAP

    def _table(self, numbers: Sequence[_Column], width: int) -> Table:
        columns, spare = self._with_texts(numbers), width - self._least(numbers)
        grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
        for column in columns:
            more = max(0, min(spare, column.most - column.least))
            spare -= more
            side: Literal["left", "right"] = "right" if column.number else "left"
            grid.add_column(Text(column.cells[0]), width=column.least + more, justify=side, overflow="fold")
        for row in zip(*(column.cells[1:] for column in columns), strict=True):
            grid.add_row(*map(Text, row))
        return grid
