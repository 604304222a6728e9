"""FanOutQA's questions as the installed wheel has them, each with the plan that its human decomposition amounts to.

The data is CC BY-SA 4.0 (Zhu et al. 2024) and is never copied from the wheel.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from pydantic import JsonValue

from journeyman.agents.agent import MAX_ASSIGNMENTS
from journeyman.agents.plan import Assignment, Plan
from journeyman.traces.base import Record
from journeyman.training.demo.wheels import wheel_file

WHEEL = "fanoutqa"
VERSION = "1.1.1"
DATA = "fanoutqa/data/fanout-final-dev.json"
WORKER = "lookup"
"""The worker that plans name."""
MAX_VALUES = 20
"""Widest fan-out; two or three questions that ask for all fifty states or all presidents would cost a split's time."""


class Finding(Record):
    """What a person answered, and where it stands."""

    values: tuple[str, ...]
    document: str
    """The document that says so; without it in sight the honest answer is an empty list."""


class SubQuestion(Record):
    text: str
    values: tuple[str, ...]
    """The human answer as a list of strings: an object's entries as `key: value`, true and false as yes and no."""
    keys: tuple[str, ...]
    """What a plan can fan out over: an object's keys, else the values."""

    @property
    def document(self) -> str:
        """The fact as a look-up returns it."""
        return f"{self.text} {json.dumps(self.values, ensure_ascii=False)}"


class Question(Record):
    id: str
    text: str
    answer: JsonValue
    facts: tuple[SubQuestion, ...]
    """Every answered sub-question, at every level."""
    plan: Plan | None
    """None where the decomposition is neither a fan-out nor a list of independent questions."""
    findings: dict[str, Finding]
    """For each goal that the plan leads to: what people answered. A value nobody asked about has none."""


@cache
def read_questions() -> tuple[Question, ...]:
    """All 310 dev questions, in the wheel's order; raises `ConfigError` if the wheel is not installed."""
    return tuple(_question(row) for row in json.loads(wheel_file(WHEEL, VERSION, DATA).read_text(encoding="utf-8")))


def normalised(text: str) -> str:
    """The words of a question alone, to tell whether two are the same."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower()))


def _question(row: dict[str, Any]) -> Question:
    first, *rest = steps = row["decomposition"]
    pieces = str(first["answer"]).split(", ")
    if isinstance(first["answer"], str) and len(pieces) == len(rest) > 1:
        first["answer"] = pieces  # A few lists were typed as one string.
    plan, findings = None, dict[str, Finding]()
    if all(step["depends_on"] in ([], [first["id"]]) for step in rest):
        plan, findings = _fan_out(_subquestion(first), [_subquestion(step) for step in rest])
    if plan is None and not any(step["depends_on"] for step in steps) and 2 < len(steps) <= MAX_ASSIGNMENTS:
        plan, findings = _independent([_subquestion(step) for step in steps])
    facts = tuple(_subquestion(step) for step in _every(steps))
    return Question(id=row["id"], text=row["question"], answer=row["answer"], facts=facts, plan=plan, findings=findings)


def _every(steps: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for step in steps:
        yield step
        yield from _every(step["decomposition"])


def _subquestion(step: dict[str, Any]) -> SubQuestion:
    answer = step["answer"]
    values = tuple(dict.fromkeys(_spelt_list(answer)))
    keys = tuple(answer) if isinstance(answer, dict) else values
    return SubQuestion(text=step["question"], values=values, keys=keys)


def _spelt_list(answer: JsonValue) -> list[str]:
    match answer:
        case list():
            return [_spelt(value) for value in answer]
        case dict():
            return [f"{key}: {_spelt(value)}" for key, value in answer.items()]
        case _:
            return [_spelt(answer)]


def _spelt(value: JsonValue) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.15g}"
        case list() | dict():
            return ", ".join(_spelt_list(value))
        case _:
            return str(value).strip()


def _independent(steps: Sequence[SubQuestion]) -> tuple[Plan, dict[str, Finding]]:
    assignments = tuple(
        Assignment(id=str(number), worker=WORKER, goal=step.text) for number, step in enumerate(steps, start=1)
    )
    return Plan(assignments=assignments), {step.text: _finding(step) for step in steps}


def _fan_out(first: SubQuestion, rest: Sequence[SubQuestion]) -> tuple[Plan | None, dict[str, Finding]]:
    """The plan "answer one question, then one for each value", if half of the values were asked about alike."""
    asked = {value: step for step in rest if (value := _value_in(step.text, first.keys))}
    wordings = Counter(_template(step.text, value) for value, step in asked.items())
    if not wordings or len(first.keys) > MAX_VALUES:
        return None, {}
    template, alike = wordings.most_common(1)[0]
    if alike * 2 < max(len(rest), len(first.keys)):
        return None, {}
    findings = {first.text: Finding(values=first.keys, document=first.document)}
    for index, value in enumerate(first.keys):
        step = asked.get(value)
        if step is None and len(rest) == len(first.keys) and _alike(value, rest[index].text):
            step = rest[index]
        if step is not None:
            findings[template.replace("{1}", value)] = _finding(step)
    look_up = Assignment(id="1", worker=WORKER, goal=first.text)
    each = Assignment(id="2", worker=WORKER, goal=template, each="1")
    return Plan(assignments=(look_up, each)), findings


def _finding(step: SubQuestion) -> Finding:
    return Finding(values=step.values, document=step.document)


def _value_in(text: str, values: Sequence[str]) -> str | None:
    """The longest of `values` that stands in `text`: "Home Alone 2" before "Home Alone"."""
    return max((value for value in values if _pattern(value).search(text)), key=len, default=None)


def _template(text: str, value: str) -> str:
    return _pattern(value).sub("{1}", text)


def _pattern(value: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(value)}(?!\w)", re.IGNORECASE)


def _alike(value: str, text: str) -> bool:
    """Whether a word of `text` starts as one of `value` does: "Chichén Itzá" was asked about as "Chichen Itza"."""
    starts = {word[:4] for word in _unaccented(value).split() if len(word) >= 4}
    return any(word[:4] in starts for word in _unaccented(text).split())


def _unaccented(text: str) -> str:
    return normalised("".join(mark for mark in unicodedata.normalize("NFD", text) if not unicodedata.combining(mark)))
