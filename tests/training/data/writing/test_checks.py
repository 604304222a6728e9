"""Checks are named on the command line, and what they name is there."""

import json
from pathlib import Path
from typing import Any

import pytest

from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.data.writing.checks import check_others, parse_checks
from journeyman.training.data.writing.drafts import RefusedError
from journeyman.training.data.writing.golds import gives_away, same

TASK = Task(id="t", prompt="How many?", reference=3)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "number.json").write_text(json.dumps({"type": "integer", "minimum": 2}))
    (tmp_path / "elsewhere.json").write_text(json.dumps({"$ref": "https://example.org/s.json"}))
    (tmp_path / "bad.json").write_text('{"type": "numb"}')
    (tmp_path / "list.json").write_text("[1]")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nothing", "have sql:DATABASE, calculation, schema:FILE, agree:N, or module:function"),
        ("calculation:3", "have sql:DATABASE"),
        ("sql:", "have sql:DATABASE"),
        ("agree:0", "write how often the model is asked again, 1 to 20"),
        ("agree:many", "write how often"),
        ("sql:none.db", "none.db cannot be read"),
        ("schema:none.json", "none.json: cannot be read"),
        ("schema:HERE/bad.json", "bad.json: not a JSON schema: 'numb' is not valid"),
        ("schema:HERE/list.json", "list.json: not a JSON schema"),
        ("no_such_module:check", "check 'no_such_module:check' cannot be imported"),
        (f"{__name__}:nothing", "cannot be imported"),
    ],
)
def test_what_is_no_check_is_told_with_what_is(here: Path, name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_checks([name.replace("HERE", str(here))])


def test_two_computations_of_one_reference_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"SQLite format 3\0")
    with pytest.raises(ConfigError):
        parse_checks(["calculation", f"sql:{tmp_path / 'a.db'}"])


@pytest.mark.parametrize(("reference", "told"), [(3, None), (1, "less than the minimum"), ("3", "not of type")])
def test_a_schema_is_of_the_reference(here: Path, reference: Any, told: str | None) -> None:
    checks, task = parse_checks([f"schema:{here / 'number.json'}"]), TASK.model_copy(update={"reference": reference})
    if told is None:
        check_others(checks, task)
        return
    with pytest.raises(RefusedError, match=told):
        check_others(checks, task)


def test_a_schema_that_points_to_an_address_fetches_nothing(here: Path) -> None:
    with pytest.raises(RefusedError, match="it points elsewhere"):
        check_others(parse_checks([f"schema:{here / 'elsewhere.json'}"]), TASK)


def test_a_function_refuses_and_one_that_breaks_accepts_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "my_checks.py").write_text(
        "def short(task): return None if len(task.prompt) < 10 else 'it is long'\n"
        "def broken(task): raise KeyError(task.id)\n"
        "def odd(task): return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    check_others(parse_checks(["my_checks:short"]), TASK)
    for name, told in (("broken", "it broke: KeyError: 't'"), ("odd", "it broke: it gave 3")):
        with pytest.raises(RefusedError, match=f"my_checks:{name} refuses it: {told}"):
            check_others(parse_checks([f"my_checks:{name}"]), TASK)
    with pytest.raises(RefusedError, match="it is long"):
        check_others(parse_checks(["my_checks:short"]), TASK.model_copy(update={"prompt": "How many are there?"}))


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (3, "3", True),
        (3.0, 3, True),
        ("1,000", 1000, True),
        (["b", "A"], ["a", "B."], True),
        ([["a", 1]], {"a": 1}, False),
        (True, "Yes", True),
        ("Queen", "Abba", False),
        (["a", "a"], ["a"], False),
        (0.1 + 0.2, 0.3, True),
    ],
)
def test_answers_are_compared_by_what_they_say(one: Any, other: Any, equal: bool) -> None:
    assert same(one, other) is equal


@pytest.mark.parametrize(
    ("prompt", "reference", "told"),
    [
        ("Is Queen the one that made Jazz?", "Queen", True),
        ("How many of the 3 are there?", 3, False),
        ("Which one, Queen or Abba?", ["Queen", "Blur"], False),
        ("Which UK city is it?", "UK", False),
        ("Where is it?", None, False),
    ],
)
def test_a_prompt_that_holds_its_reference_gives_it_away(prompt: str, reference: Any, told: bool) -> None:
    assert gives_away(prompt, reference) is told
