"""Alarms: planted series ring the right one, at the right step, and quiet ones ring none."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.training.methods.alarms import Alarm, AlarmsTable, StepMetrics, ring

QUIET: dict[str, Any] = {
    "loss": 0.0,
    "grad_norm": 0.1,
    "learning_rate": 1e-4,
    "kl": 0.01,
    "entropy": 1.0,
    "clip_share": 0.0,
    "ratio_mean": 1.0,
    "ratio_truncated": 0.0,
    "reward_mean": 0.5,
    "reward_std": 0.2,
    "length": 20.0,
    "rows": 64,
    "seconds": 1.0,
}
TABLE = AlarmsTable()


def watched(series: Sequence[dict[str, Any]], table: AlarmsTable = TABLE) -> list[StepMetrics]:
    """Steps of those numbers, each with the alarms that it rang."""
    history: list[StepMetrics] = []
    for number, told in enumerate(series, 1):
        step = StepMetrics(step=number, **{**QUIET, **told})
        history.append(step.model_copy(update={"alarms": ring((*history, step), table)}))
    return history


def rung(history: Sequence[StepMetrics]) -> list[tuple[int, str, str]]:
    return [(step.step, alarm.name, alarm.action) for step in history for alarm in step.alarms]


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "entropy": st.floats(0.5, 1.5),
                "kl": st.one_of(st.none(), st.floats(0, 0.3)),
                "ratio_mean": st.floats(0.9, 1.1),
                "reward_mean": st.floats(0, 1),
                "held_out": st.one_of(st.none(), st.floats(0.5, 0.6)),
            }
        ),
        max_size=30,
    )
)
def test_a_series_within_its_limits_rings_nothing(series: list[dict[str, Any]]) -> None:
    assert rung(watched(series)) == []


PLANTED: dict[str, Callable[[], tuple[dict[str, Any], dict[str, Any]]]] = {
    "entropy": lambda: ({}, {"entropy": 0.1}),
    "kl": lambda: ({}, {"kl": 0.9}),
    "ratio": lambda: ({}, {"ratio_mean": 0.6}),
    "hacking": lambda: ({"held_out": 0.6}, {"held_out": 0.2, "reward_mean": 0.9}),
}


@pytest.mark.parametrize("name", PLANTED)
@given(quiet=st.integers(3, 12), loud=st.integers(3, 5))
def test_a_planted_fault_rings_its_own_alarm_and_no_other(name: str, quiet: int, loud: int) -> None:
    before, after = PLANTED[name]()
    alarms = rung(watched([before] * quiet + [after] * loud))
    action = getattr(TABLE, name)
    assert [(number > quiet, rang, does) for number, rang, does in alarms] == [(True, name, action)] * len(alarms)
    assert alarms and alarms[0][0] <= quiet + TABLE.window


@given(st.integers(1, 5))
def test_no_alarm_rings_before_there_are_steps_enough_to_judge(window: int) -> None:
    loud = {"kl": 9.0, "ratio_mean": 0.1, "entropy": 0.0}
    assert rung(watched([loud] * (window - 1), AlarmsTable(window=window))) == []


def test_one_loud_step_is_noise() -> None:
    assert rung(watched([{}] * 5 + [{"kl": 0.8}] + [{}] * 5)) == []


def test_an_alarm_is_silent_for_a_window_and_the_fourth_time_it_stops() -> None:
    assert rung(watched([{}] * 3 + [{"kl": 0.9}] * 20)) == [
        (4, "kl", "lower"),
        (8, "kl", "lower"),
        (12, "kl", "lower"),
        (16, "kl", "stop"),
        (20, "kl", "stop"),
    ]


def test_a_recipe_says_what_an_alarm_does() -> None:
    history = watched([{"ratio_mean": 0.5}] * 3, AlarmsTable(ratio="tell"))
    assert rung(history) == [(3, "ratio", "tell")]
    assert not history[-1].stops


def test_held_out_tasks_that_get_worse_while_the_reward_falls_too_are_no_hacking() -> None:
    assert rung(watched([{"held_out": 0.6}] * 4 + [{"held_out": 0.2, "reward_mean": 0.1}] * 4)) == []


def test_hacking_is_judged_only_where_held_out_tasks_were_tried() -> None:
    history = watched([{"held_out": 0.6}] + [{"reward_mean": 0.9}] * 4 + [{"held_out": 0.3, "reward_mean": 0.9}])
    assert rung(history) == [(6, "hacking", "stop")]
    assert history[-1].stops


def test_an_alarm_says_what_was_measured_and_the_limit() -> None:
    alarm = Alarm(name="entropy", action="lower", value=0.0412, limit=0.087)
    assert str(alarm) == "alarm entropy: 0.0412 nats a token, less than 0.087"


def test_a_log_has_a_steps_numbers_and_its_alarms() -> None:
    (step,) = watched([{"kl": None}])
    rang = step.model_copy(update={"alarms": (Alarm(name="kl", action="stop", value=1.0, limit=0.3),)})
    assert "kl" not in step.logged
    assert rang.logged["entropy"] == 1.0 and rang.logged["alarm_kl"] == 1.0
