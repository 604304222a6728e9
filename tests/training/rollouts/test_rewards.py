"""A turn's reward is what its run was right in; form only takes away from it, unless somebody wants otherwise."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from journeyman.traces.errors import TrainingError
from journeyman.training.rollouts.rewards import FORM, RewardTable, turn_rewards


def test_without_more_words_a_turn_is_worth_the_score_of_its_run(turn: Any, run: Any) -> None:
    trace = run("a", turn("x"), turn("y", at=2, error="not usable"))
    assert turn_rewards(trace, 0.25, None, RewardTable()) == {"x": 0.25, "y": 0.25}


@pytest.mark.parametrize("term", FORM)
def test_form_alone_earns_nothing(term: str, turn: Any, run: Any) -> None:
    table = RewardTable.model_validate({term: 1.0})
    assert turn_rewards(run("a", turn("x")), 0.0, None, table) == {"x": 0.0}


def test_what_went_wrong_takes_its_share_away(turn: Any, run: Any) -> None:
    trace = run("a", turn("good"), turn("bad", at=2, error="not usable"))
    rewards = turn_rewards(trace, 0.8, None, RewardTable(verifier=0.5))
    assert rewards == pytest.approx({"good": 0.8, "bad": 0.4})


def test_a_longer_reply_is_worth_less_where_length_counts(turn: Any, run: Any) -> None:
    table = RewardTable(length=0.5, reply_tokens=100)
    rewards = turn_rewards(run("a", turn("short"), turn("long", at=2, reply=range(100))), 1.0, None, table)
    assert rewards["long"] == pytest.approx(0.75) and rewards["short"] > 0.98


def test_form_alone_earns_its_share_where_somebody_asks_for_it(turn: Any, run: Any) -> None:
    table = RewardTable(verifier=0.25, form_alone=True)
    trace = run("a", turn("good"), turn("bad", at=2, error="not usable"))
    assert turn_rewards(trace, 0.0, None, table) == pytest.approx({"good": 0.25, "bad": 0.0})
    assert turn_rewards(trace, 1.0, None, table) == pytest.approx({"good": 1.0, "bad": 0.75})


def test_a_judge_s_share_is_weighed_beside_the_score(turn: Any, run: Any) -> None:
    table = RewardTable(score=1.0, judge=3.0)
    assert turn_rewards(run("a", turn("x")), 0.0, 1.0, table) == {"x": 0.75}


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.1, 1.1])
def test_a_reward_that_is_no_number_from_0_to_1_is_refused(score: float, turn: Any, run: Any) -> None:
    with pytest.raises(TrainingError, match="not a number from 0 to 1: mend the scorer"):
        turn_rewards(run("a", turn("x")), score, None, RewardTable())


@pytest.mark.parametrize(
    "table, words",
    [
        ({"score": 0.0}, "nothing says what is right"),
        ({"report": 0.6, "verifier": 0.6}, "add up to 1.2"),
        ({"score": math.nan}, "finite"),
        ({"tools": -0.1}, "greater than or equal to 0"),
    ],
)
def test_a_table_that_can_t_reward_is_refused(table: dict[str, float], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RewardTable.model_validate(table)
