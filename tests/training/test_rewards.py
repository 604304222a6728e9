"""The score of an answer: recall of the reference's strings, times a factor against rambling."""

from typing import Any

import pytest
from pydantic import JsonValue

from journeyman.traces.errors import ConfigError, TrainingError
from journeyman.traces.trace import Task
from journeyman.training.rewards import answer_in_text, score_of, solved


def score(reference: JsonValue, answer: str) -> float:
    return answer_in_text(Task(id="1", prompt="?", reference=reference), answer)


def test_recall_is_the_fraction_of_reference_strings_found() -> None:
    capitals: JsonValue = {"China": "Beijing", "India": "New Delhi"}
    assert score(capitals, "China: Beijing; India: New Delhi") == 1.0
    assert score(capitals, "China: Beijing; India: Old Delhi") == 0.75
    assert score(capitals, "beijing") == 0.25
    assert score(["Oak", "Elm"], "An ELM.") == 0.5
    assert score({"Nick": {"born": [1961, "Utah"]}}, "nick, born 1961 in utah") == 1.0


def test_doing_nothing_is_worth_nothing() -> None:
    assert score(["Oak", "Elm"], "") == 0.0
    assert score(3, " ") == 0.0


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (680000, "680,000 people"),
        ("8,848.86 m", "8848.86 m"),
        (0.5, "about .50"),
        (5.0, "5"),
        ("5", "5.0"),
        (True, "Yes, it is"),
        (False, "No."),
        ("$1.027 billion", "it made $1.027 billion."),
        ("B.V. Doshi", "BV Doshi"),
        ("Avengers:Endgame", "Avengers: Endgame"),
        ("1949\u20131951", "from 1949-1951"),
        ("D\u2019Arcy", "D'Arcy"),
        ("Washington, D.C.", "washington DC"),
    ],
)
def test_the_same_thing_written_differently_is_found(reference: JsonValue, answer: str) -> None:
    assert score(reference, answer) == 1.0


@pytest.mark.parametrize(
    ("reference", "answer"),
    [("Ida", "Florida"), (5, "15"), (2.5, "25"), (2.5, "12.5"), (1000, "1,0001"), ("no", "not")],
)
def test_a_part_of_a_word_or_number_is_not_found(reference: JsonValue, answer: str) -> None:
    assert score(reference, answer) == 0.0


def test_rambling_costs_in_proportion_to_its_length() -> None:
    # 1 word of reference: 2 * 1 + 8 = 10 words are free.
    assert score("Oak", "Oak" + " and" * 9) == 1.0
    assert score("Oak", "Oak" + " and" * 19) == 0.5
    assert score(["Oak", "Elm"], "Oak" + " and" * 23) == 0.25


def test_solved_means_that_nothing_is_missing_and_nothing_rambles() -> None:
    assert solved(score(["Oak", "Elm"], "oak, elm"))
    assert not solved(score(["Oak", "Elm"], "oak"))
    assert not solved(score("Oak", "Oak" + " and" * 19))


def test_a_task_without_a_reference_cannot_be_scored() -> None:
    with pytest.raises(ConfigError, match="'1' has no reference"):
        score(None, "Oak")


def broken(task: Task, answer: str) -> Any:
    raise KeyError("gold")


@pytest.mark.parametrize(
    ("scorer", "words"),
    [
        (broken, "the scorer broke on task 'q1': KeyError: 'gold'; mend it"),
        (lambda task, answer: None, "the scorer broke on task 'q1': TypeError"),
        (lambda task, answer: "good", "the scorer broke on task 'q1': ValueError"),
        (lambda task, answer: float("nan"), "the scorer gave nan for task 'q1': it must give a number from 0 to 1"),
        (lambda task, answer: 5, "the scorer gave 5 for task 'q1'"),
        (lambda task, answer: -0.1, "the scorer gave -0.1 for task 'q1'"),
    ],
)
def test_a_scorer_that_breaks_or_gives_no_score_is_told_in_one_line(scorer: Any, words: str) -> None:
    with pytest.raises(TrainingError) as refused:
        score_of(scorer, Task(id="q1", prompt="?"), "1")
    assert words in str(refused.value) and "\n" not in str(refused.value)
    assert score_of(lambda task, answer: True, Task(id="q1", prompt="?"), "1") == 1.0
