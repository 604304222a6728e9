"""Golds: what computes a reference by code, a query of a database or a calculation."""

from collections.abc import Iterator
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from pydantic import JsonValue

from journeyman.tools.calculator import calculator
from journeyman.tools.sql import list_tables, open_database
from journeyman.traces.errors import ToolError
from journeyman.training.data.tasks.near import plain
from journeyman.training.data.writing.drafts import RefusedError

MOST_ROWS = 50
"""Rows of an answer: a longer one is no answer that somebody would give."""
TELLING = 4
"""Letters of a text that tells something where it stands in a prompt."""


class Gold(Protocol):
    """What computes references."""

    name: str
    """As the user named it."""
    key: str
    """Under which a task's `metadata`, and a model's reply, holds what is computed."""
    told: str
    """What a model has to know in order to write that."""

    def result(self, written: str) -> JsonValue:
        """What comes of it; raises `RefusedError`."""
        ...

    def column(self, query: str, most: int) -> list[JsonValue]:
        """The first column of a query, at most so many rows; empty where there is none. Raises `RefusedError`."""
        ...


class SqlGold:
    """A query of a database that is opened for reading only; see `tools/sql.py` for what it can't do."""

    key = "sql"

    def __init__(self, path: Path) -> None:
        """Raises `ConfigError` for a file that is no database."""
        self.name = f"sql:{path}"
        self._database = open_database(path)
        tables = list_tables(path, self._database)
        self.told = f"The database is {self._database.dialect}:\n{tables}\n`sql` is one SELECT that answers it."

    def result(self, written: str) -> JsonValue:
        rows = self._ask(written, MOST_ROWS + 1)
        if not any(value is not None for row in rows for value in row):
            raise RefusedError("its query gives nothing", written)
        if len(rows) > MOST_ROWS:
            raise RefusedError(f"its query gives more than {MOST_ROWS} rows", written)
        values: list[JsonValue] = [row[0] if len(row) == 1 else row for row in rows]
        return values[0] if len(values) == 1 else values

    def column(self, query: str, most: int) -> list[JsonValue]:
        return [row[0] for row in self._ask(query, most)]

    def _ask(self, query: str, most: int) -> list[list[JsonValue]]:
        try:
            _, rows = self._database.ask(query, most)
        except ToolError as error:
            raise RefusedError("its query fails", f"{error}: {query}") from None
        return [[_json(value) for value in row] for row in rows]


class CalculationGold:
    """An arithmetic expression, evaluated by the calculator tool."""

    name = key = "calculation"
    told = (
        "`calculation` is the arithmetic that gives its answer, as in (3 + 4) * 2. Its numbers stand in the question."
    )

    def result(self, written: str) -> JsonValue:
        try:
            text = str(calculator.function(expression=written))
        except ToolError as error:
            raise RefusedError("its calculation fails", str(error)) from None
        return int(text) if text.lstrip("-").isdecimal() else float(text)

    def column(self, query: str, most: int) -> list[JsonValue]:
        raise RefusedError("a calculation has no database to take values from", query)


def same(one: JsonValue, other: JsonValue) -> bool:
    """Whether two answers say the same, whatever the order of a list, and whether 3 is a number or a text."""
    return sorted(_leaves(one)) == sorted(_leaves(other))


def gives_away(prompt: str, reference: JsonValue) -> bool:
    """Whether all texts of the reference stand in the prompt; of short ones and numbers it may be by chance."""
    text, leaves = f" {plain(prompt)} ", [leaf for leaf in _leaves(reference) if not _number(leaf)]
    return any(len(leaf) >= TELLING for leaf in leaves) and all(f" {leaf} " in text for leaf in leaves)


def _leaves(value: JsonValue) -> Iterator[str]:
    match value:
        case None:
            return
        case bool():
            yield "yes" if value else "no"
        case dict() | list():
            for inner in value.values() if isinstance(value, dict) else value:
                yield from _leaves(inner)
        case int():
            yield str(value)
        case float():
            yield str(int(value)) if value.is_integer() else f"{value:.9g}"
        case str():
            yield _number(value) or plain(value)


def _number(text: str) -> str | None:
    """A text that is a number, as one."""
    try:
        return next(_leaves(float(text.replace(",", ""))))
    except ValueError:
        return None


def _json(value: Any) -> JsonValue:
    match value:
        case None | bool() | int() | str():
            return value
        case float() | Decimal():
            if not isfinite(value):
                raise RefusedError("its query gives a number that JSON cannot write")
            return int(value) if value == value // 1 else float(value)
        case bytes():
            raise RefusedError("its query gives bytes")
        case _:  # A date, a time, an interval.
            return str(value)
