"""Counterfactual credit names the agent whose step decided, says how sure it is, and asks no more than it must."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.training.forks.counterfactual import (
    StepCredit,
    choose_steps,
    credit_agents,
    credit_steps,
    culprit,
    replacements,
)

AGENTS = ("planner", "reader", "adder")


def measured(sums: Any, script: Callable[..., str], name: str = "teacher", budget: int = 100) -> list[StepCredit]:
    """Of all agents of all runs."""
    alternatives = sums.alternatives(ScriptedModel(script), budget, purpose="replay")
    found: list[StepCredit] = []
    for agent in AGENTS:
        wanted = choose_steps(sums.forkable(agent), replacements(name), budget)
        found += credit_steps(alternatives.take(wanted))
    return found


@pytest.mark.parametrize(("script", "guilty"), [("misreads", "reader"), ("misadds", "adder")])
def test_the_agent_whose_step_decided_is_named(sums: Any, script: str, guilty: str) -> None:
    run = sums.run(getattr(sums, script))
    steps = measured(sums, getattr(sums, script))
    began = [turn.span_id for turn in sorted(sums.workspace.store.get(run).turns, key=lambda turn: turn.started_ns)]
    named = culprit(steps, began)
    assert named is not None
    assert (named.agent, named.effect, named.reward) == (guilty, 1.0, 0.0)
    assert credit_agents(steps)[0].agent == guilty


def test_in_a_run_that_went_well_what_all_hung_on_is_worth_most(sums: Any) -> None:
    run = sums.run(sums.right)
    steps = measured(sums, lambda request: sums.misreads(request.model_copy(update={"policy": "base"})), "service")
    assert {step.agent: step.reward for step in steps if step.effect} == {"reader": 1.0}
    assert sorted(step.reward for step in steps) == [0.5, 0.5, 0.5, 1.0]
    assert culprit(steps, [turn.span_id for turn in sums.workspace.store.get(run).turns]) is None


@pytest.mark.parametrize(
    ("early", "late", "draws", "guilty"),
    [
        (1.0, 1.0, 1, "late"),
        (1.0, 0.5, 1, "early"),
        (0.5, 0.25, 4, "late"),
        (1.0, 0.25, 4, "early"),
        (0.5, 0.0, 4, "early"),
        (0.0, 0.0, 4, None),
    ],
)
def test_of_steps_that_the_draws_cannot_tell_apart_the_last_to_begin_is_named(
    early: float, late: float, draws: int, guilty: str | None
) -> None:
    steps = [
        StepCredit(trace_id="t", span_id=name, agent=name, recorded=0.0, replaced=replaced, draws=draws)
        for name, replaced in (("early", early), ("late", late))
    ]
    named = culprit(steps, ["early", "late"])
    assert (named and named.agent) == guilty


def test_a_resample_is_drawn_several_times_and_a_greedy_reply_once() -> None:
    assert [(one.temperature, one.seed, one.policy) for one in replacements("resample", 3)] == [
        (1.0, seed, None) for seed in (1, 2, 3)
    ]
    assert [(one.temperature, one.policy) for one in replacements("service")] == [(0.0, None)]
    assert [(one.temperature, one.policy) for one in replacements("teacher")] == [(0.0, "teacher")]


def test_a_small_budget_measures_some_runs_whole_and_the_same_ones_each_time(sums: Any) -> None:
    for number in range(6):
        sums.run(id=f"t{number}", prompt=f"Add one and two, please, for the {number}th time.")
    forkable = sums.forkable("reader")
    wanted = choose_steps(forkable, replacements("teacher"), 4)
    assert [(step.trace.trace_id, step.turn.span_id) for step, _ in wanted] == [
        (step.trace.trace_id, step.turn.span_id) for step, _ in choose_steps(forkable, replacements("teacher"), 4)
    ]
    assert len(wanted) == 4 and len({step.trace.trace_id for step, _ in wanted}) == 2
    others = [choose_steps(forkable, replacements("teacher"), 4, seed=seed) for seed in range(1, 20)]
    assert any(other != wanted for other in others)


def test_each_step_is_drawn_once_before_any_is_drawn_twice(sums: Any) -> None:
    sums.run()
    wanted = choose_steps(sums.forkable("reader"), replacements("resample", 2), 10)
    assert [(step.turn.messages[-1].content, one.seed) for step, one in wanted] == [
        ("one", 1),
        ("two", 1),
        ("one", 2),
        ("two", 2),
    ]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1), st.floats(0, 1), st.integers(1, 9)), min_size=1, max_size=30)
)
def test_an_effect_lies_within_its_bounds_and_a_reward_in_0_to_1(rows: list[tuple[int, float, float, int]]) -> None:
    steps = [
        StepCredit(trace_id=str(run), span_id=str(number), agent="a", recorded=was, replaced=then, draws=draws)
        for number, (run, was, then, draws) in enumerate(rows)
    ]
    assert all(0.0 <= step.reward <= 1.0 for step in steps)
    (agent,) = credit_agents(steps)
    assert -1.0 <= agent.low <= agent.effect + 1e-9 and agent.effect - 1e-9 <= agent.high <= 1.0
    assert agent.high - agent.low > 0.1
