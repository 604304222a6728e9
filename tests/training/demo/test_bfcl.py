"""BFCL as a task set: gold calls score 1, and our check agrees with the set's own on right and on spoiled calls."""

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from journeyman.agents.agent import Crew
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.data.demonstrations import read_demonstration
from journeyman.training.demo import bfcl
from journeyman.training.demo.bfcl import Category, call_score, caller_crew, parts, read_call

pytest.importorskip("bfcl_eval", reason="the task set's wheel is optional")

CATEGORIES: tuple[Category, ...] = ("simple", "multiple")
Spoil = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """The set's own checker; importing it would load every vendor's SDK for a table that is of no use here."""
    table = ModuleType("bfcl_eval.constants.model_config")
    vars(table)["MODEL_CONFIG_MAPPING"] = {"ours": SimpleNamespace(underscore_to_dot=False)}
    monkeypatch.setitem(sys.modules, table.__name__, table)
    checker: Any = import_module("bfcl_eval.eval_checker.ast_eval.ast_checker")

    def right(task: Task, name: str, arguments: dict[str, Any]) -> bool:
        told = checker.ast_checker(
            task.metadata["functions"],
            [{name: arguments}],
            [task.reference],
            checker.Language.PYTHON,
            task.family.removeprefix("bfcl-"),
            "ours",
        )
        return bool(told["valid"])

    return right


def gold(task: Task) -> tuple[str, dict[str, Any]]:
    assert isinstance(task.demonstration, dict)
    call = read_call(str(task.demonstration["answer"]))
    assert call is not None
    return call


def spoiled(arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same call with one thing changed, each in turn."""
    yield arguments
    yield arguments | {"unheard_of": 1}
    for name, value in arguments.items():
        yield {other: one for other, one in arguments.items() if other != name}
        others: list[Any] = [str(value), [value], None, True, 3, 2.5, "", [], {}, [{}], {"a": "b"}]
        if isinstance(value, str):
            others += [value.upper(), f" {value}. ", f"{value}x"]
        if isinstance(value, int | float):
            others += [float(value), value + 1]
        if isinstance(value, list):
            others += [value[::-1], value[:-1], [str(one) for one in value], tuple(value)]
        if isinstance(value, dict):
            others += [{k: str(v).upper() for k, v in value.items()}, dict(list(value.items())[:-1]), value | {"z": 1}]
        for other in others:
            yield arguments | {name: other}


def written(name: str, arguments: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_call_that_each_task_shows_is_right(category: Category) -> None:
    every = bfcl.tasks(category)
    assert len(every) == {"simple": 400, "multiple": 200}[category]
    assert {call_score(task, written(*gold(task))) for task in every} == {1.0}


@pytest.mark.parametrize("category", CATEGORIES)
def test_right_and_spoiled_calls_are_judged_as_the_set_judges_them(
    category: Category, judged: Callable[..., bool]
) -> None:
    outcomes = {True: 0, False: 0}
    for task in bfcl.tasks(category):
        name, arguments = gold(task)
        for other in spoiled(arguments):
            try:
                theirs = judged(task, name, other)
            except (AttributeError, TypeError, IndexError, KeyError):
                theirs = False  # It stumbles over some values of another type, and no model gets credit for that.
            assert call_score(task, written(name, other)) == theirs, (task.id, other)
            outcomes[theirs] += 1
    assert min(outcomes.values()) > 300


@pytest.mark.parametrize(
    "text",
    ["", "10", "calculate_triangle_area", "calculate_triangle_area(10, 5)", "f(x=open('a'))", "f(x=1", "f(x='\\d')()"],
)
def test_what_is_no_call_with_named_values_scores_nothing(text: str) -> None:
    assert call_score(bfcl.tasks("simple")[0], text) == 0.0


def test_a_dotted_name_is_a_name() -> None:
    assert read_call("math.hypot(x=4, y=-5.5)") == ("math.hypot", {"x": 4, "y": -5.5})


def test_parts_share_no_function_and_keep_every_task() -> None:
    every = bfcl.tasks("simple")
    made = parts(every, (0.4, 0.35, 0.25))
    assert sum(map(len, made)) == len(every)
    assert all(len(part) > 60 for part in made)
    names = [{next(iter(task.reference)) for task in part if isinstance(task.reference, dict)} for part in made]
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
    assert made != parts(every, (0.4, 0.35, 0.25), seed=1)


def test_its_demonstrations_can_be_taught_to_its_crew() -> None:
    crew: Crew = caller_crew()
    task = bfcl.tasks("simple")[0]
    (work,) = read_demonstration(task, crew).work.values()
    assert work.answer == "calculate_triangle_area(base=10, height=5)"


def test_another_sets_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="isn't one of BFCL's"):
        call_score(Task(id="q", prompt="?", reference="42"), "f(x=1)")
    with pytest.raises(ConfigError, match=r"shows no function 'f': write it in metadata\.functions"):
        call_score(Task(id="q", prompt="?", reference={"f": {"x": [1]}}), "f(x=1)")
