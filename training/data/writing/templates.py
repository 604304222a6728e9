"""Templates: tasks whose question and query, or calculation, share values; code puts others in their stead."""

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from math import prod

from pydantic import JsonValue

from journeyman.traces.trace import Task
from journeyman.training.data.tasks.leaks import SUB_QUESTIONS
from journeyman.training.data.writing.drafts import RefusedError
from journeyman.training.data.writing.golds import Gold, same

VALUES = "values"
"""Key of a task's `metadata`: of a text in its prompt, the values that may stand there, or a query that gives them."""
MOST_VALUES = 1_000
MOST_FILLED = 10_000
"""Tasks that one template may give."""
MOST_LETTERS = 100
"""Of a value."""

LITERAL = re.compile(r"'((?:[^']|'')*)'|(?<![\w.])(\d+(?:\.\d+)?)(?![\w.])")
COMPARED = re.compile(rf"([\w.\"]+)\s*(?:=|<>|!=|<=?|>=?|\bLIKE\b)\s*(?:{LITERAL.pattern})", re.IGNORECASE)
TABLE = re.compile(r"(?:\bFROM\b|\bJOIN\b|,)\s*([\w.\"]+)", re.IGNORECASE)


class Template:
    """A task and, for each text that its prompt shares with its gold, the values that may stand there."""

    def __init__(self, task: Task, gold: Gold, seed: int) -> None:
        """Raises `RefusedError` for a task that is none, or whose own gold doesn't give its reference."""
        written = task.metadata.get(gold.key)
        if not isinstance(written, str) or not written.strip():
            raise RefusedError(f"it has no `{gold.key}` in its metadata")
        result = gold.result(written)
        if task.reference is not None and not same(result, task.reference):
            raise RefusedError(f"its `{gold.key}` doesn't give its reference", f"{json.dumps(result)}: {written}")
        self._task, self._gold, self._written = task, gold, written
        self._slots = _slots(task, gold, written)
        sizes = [len(values) for values in self._slots.values()]
        draw = random.Random(f"{seed}\0{task.id}")
        self._numbers = draw.sample(range(prod(sizes)), min(prod(sizes), MOST_FILLED))

    def __len__(self) -> int:
        """How many tasks it gives."""
        return len(self._numbers)

    def filled(self, turn: int) -> Task:
        """The task with the values of that turn, each turn with others; raises `RefusedError`."""
        number, values = self._numbers[turn], dict[str, JsonValue]()
        for text, choices in self._slots.items():
            number, position = divmod(number, len(choices))
            values[text] = choices[position]
        gold = LITERAL.sub(lambda literal: _filled_literal(literal, values), self._written)
        metadata = {key: value for key, value in self._task.metadata.items() if key not in (SUB_QUESTIONS, VALUES)}
        return Task(
            id=self._task.id,
            prompt=_filled(self._task.prompt, values),
            reference=_shaped(self._gold.result(gold), self._task.reference),
            family=self._task.family,
            metadata={**metadata, self._gold.key: gold},
        )


def _slots(task: Task, gold: Gold, written: str) -> dict[str, list[JsonValue]]:
    named = task.metadata.get(VALUES)
    if named is None:
        slots = dict(_compared(task.prompt, gold, written))
    elif isinstance(named, dict):
        slots = {text: _choices(text, choices, gold) for text, choices in named.items()}
    else:
        raise RefusedError('its metadata.values is no object such as {"Queen": ["Abba"]}')
    for text in slots:
        if _filled(task.prompt, {text: ""}) == task.prompt or not _stands_in(text, written):
            raise RefusedError(f"a text of metadata.values isn't in its prompt and its `{gold.key}`", text)
    if not slots:
        raise RefusedError(f"no value of its `{gold.key}` stands in its prompt")
    return slots


def _choices(text: str, choices: JsonValue, gold: Gold) -> list[JsonValue]:
    if isinstance(choices, str):
        choices = gold.column(choices, MOST_VALUES)
    if not isinstance(choices, list) or not (others := _others(text, [*_usable(choices)])):
        raise RefusedError("its metadata.values gives no other value", text)
    return others


def _others(text: str, values: Sequence[JsonValue]) -> list[JsonValue]:
    return [value for value in values if str(value) != text]


def _compared(prompt: str, gold: Gold, written: str) -> Iterator[tuple[str, list[JsonValue]]]:
    """Literals that a column is compared with, if they stand in the prompt, with what else the column holds."""
    tables = [*dict.fromkeys(TABLE.findall(written))]
    for column, text, number in COMPARED.findall(written):
        value = text.replace("''", "'") or number
        if value and _filled(prompt, {value: ""}) != prompt:
            own = column.rpartition(".")[2]
            for table in tables:
                choices = _column(gold, own, table)
                if value in map(str, choices) and (others := _others(value, choices)):
                    yield value, others
                    break


def _column(gold: Gold, column: str, table: str) -> list[JsonValue]:
    query = f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL ORDER BY 1"
    try:
        return [*_usable(gold.column(query, MOST_VALUES))]
    except RefusedError:  # It is the column of another table.
        return []


def _usable(values: Sequence[JsonValue]) -> Iterator[JsonValue]:
    for value in values:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            text = str(value)
            if text.strip() and text.isprintable() and len(text) <= MOST_LETTERS:
                yield value


def _filled(text: str, values: Mapping[str, JsonValue]) -> str:
    """The text with other values, all at once, wherever they stand as whole words."""
    words = "|".join(re.escape(word) for word in sorted(values, key=len, reverse=True))
    return re.sub(rf"(?<!\w)(?:{words})(?!\w)", lambda match: str(values[match[0]]), text)


def _stands_in(text: str, gold: str) -> bool:
    return any(_filled(_unquoted(literal), {text: ""}) != _unquoted(literal) for literal in LITERAL.finditer(gold))


def _unquoted(literal: re.Match[str]) -> str:
    return literal[2] or literal[1].replace("''", "'")


def _filled_literal(literal: re.Match[str], values: Mapping[str, JsonValue]) -> str:
    old, new = _unquoted(literal), _filled(_unquoted(literal), values)
    if literal[2] is None:
        return "'" + new.replace("'", "''") + "'"
    if old != new and not re.fullmatch(r"-?\d+(?:\.\d+)?", new):
        raise RefusedError("a value isn't a number, as the one in its stead", new)
    return new


def _shaped(result: JsonValue, like: JsonValue) -> JsonValue:
    """The result in the form of another reference: a text where that is a text, a list where it is a list."""
    if isinstance(like, str) and isinstance(result, int | float):
        return str(result)
    return [result] if isinstance(like, list) and not isinstance(result, list) else result
