"""The rule gives each model call a reward from 0 to 1 out of the trace alone, and a better outcome never lowers one."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from journeyman.traces.labels import Label
from journeyman.traces.messages import Message, Usage
from journeyman.traces.trace import CallStatus, Outcome, Status, ToolResult, Trace, Trajectory, Turn
from journeyman.training.data.credit import TERMS, CreditRule, credit_turns

ONLY = dict.fromkeys(TERMS, 0.0)


def call(status: CallStatus, at: int) -> ToolResult:
    return ToolResult(
        span_id=f"tool{at}", tool="look", arguments={}, status=status, content="", started_ns=at, ended_ns=at + 1
    )


def turn(name: str, agent: str, at: int, *, calls: Sequence[CallStatus] = (), **more: Any) -> Turn:
    return Turn(
        span_id=name,
        agent=agent,
        policy="base",
        served_by="base",
        messages=(Message(role="user", content="?"),),
        response=Message(role="assistant", content="!"),
        tool_results=tuple(call(status, at + number) for number, status in enumerate(calls)),
        started_ns=at,
        ended_ns=at + 1,
        **more,
    )


def work(agent: str, *turns: Turn, status: Status | None = "ok", assignment: str | None = "1") -> Trajectory:
    """Under the orchestrator, unless it is the orchestrator."""
    return Trajectory(
        span_id=f"{agent}{assignment}",
        agent=agent,
        parent=None if assignment is None else "bossNone",
        assignment=assignment,
        status=status,
        turns=turns,
        started_ns=turns[0].started_ns,
        ended_ns=turns[-1].ended_ns + 5,
    )


def trace(*trajectories: Trajectory, status: Status = "ok", **labels: bool | float | str) -> Trace:
    return Trace(
        trace_id="t",
        task=None,
        trajectories=trajectories,
        outcome=Outcome(task_id="t", trace_id="t", status=status),
        labels=tuple(
            Label(trace_id="t", name=name, source="s", value=value, at_ns=number)
            for number, (name, value) in enumerate(labels.items())
        ),
        started_ns=0,
        ended_ns=100,
    )


def terms(made: Trace, term: str) -> dict[str, float]:
    return {name: credit.terms[term] for name, credit in credit_turns(made).items()}


BOSS = work("boss", turn("plan", "boss", 0), assignment=None)


def test_orchestrator_and_workers_get_different_rewards_for_one_run() -> None:
    good, bad = (
        work("good", turn("a", "good", 10), assignment="1"),
        work("bad", turn("b", "bad", 20), assignment="2", status="failed"),
    )
    made = trace(BOSS, good, bad, score=0.5)
    assert terms(made, "report") == {"plan": 0.5, "a": 1.0, "b": 0.0}
    rewards = {name: credit.reward for name, credit in credit_turns(made).items()}
    assert rewards["a"] > rewards["plan"] > rewards["b"]


@pytest.mark.parametrize(
    ("labels", "status", "outcome"),
    [
        ({"score": 0.25, "thumbs": True}, "ok", 0.25),
        ({"score": 7.0}, "ok", 1.0),
        ({"score": -1.0}, "ok", 0.0),
        ({"score": "fine", "thumbs": False}, "ok", 0.0),
        ({"thumbs": True}, "failed", 1.0),
        ({}, "ok", 1.0),
        ({}, "timeout", 0.0),
    ],
)
def test_the_outcome_is_the_score_else_a_thumb_else_how_the_run_ended(
    labels: dict[str, Any], status: Status, outcome: float
) -> None:
    assert terms(trace(BOSS, status=status, **labels), "outcome") == {"plan": outcome}


def test_a_refused_reply_and_calls_that_went_wrong_count_against_their_own_turn() -> None:
    worker = work(
        "worker",
        turn("looks", "worker", 10, calls=["ok", "failed"]),
        turn("refused", "worker", 20, error="it is not a number"),
        turn("answers", "worker", 30),
    )
    made = trace(worker)
    assert terms(made, "tools") == {"looks": 0.5, "refused": 1.0, "answers": 1.0}
    assert terms(made, "verifier") == {"looks": 1.0, "refused": 0.0, "answers": 1.0}
    assert terms(made, "first_error") == {"looks": 0.0, "refused": 1.0, "answers": 1.0}


def test_the_first_error_is_the_earliest_of_all_agents_and_what_was_skipped_is_none() -> None:
    late = work("late", turn("l", "late", 50), status="failed", assignment="1")
    early = work("early", turn("e", "early", 10), status="timeout", assignment="2")
    skipped = work("skipped", turn("s", "skipped", 1), status="skipped", assignment="3")
    assert terms(trace(late, early, skipped), "first_error") == {"l": 1.0, "e": 0.0, "s": 1.0}
    assert set(terms(trace(BOSS), "first_error").values()) == {1.0}


def test_cost_falls_with_the_tokens_of_a_call() -> None:
    cheap = turn("cheap", "w", 1)
    dear = turn("dear", "w", 2, usage=Usage(input_tokens=1500, output_tokens=500))
    assert terms(trace(work("w", cheap, dear)), "cost") == {"cheap": 1.0, "dear": 0.5}


def test_weights_are_named_and_need_not_add_up_to_one() -> None:
    made = trace(BOSS, score=0.25)
    assert credit_turns(made, CreditRule(**(ONLY | {"outcome": 3.0})))["plan"].reward == 0.25
    assert sum(getattr(CreditRule(), term) for term in TERMS) == pytest.approx(1.0)
    with pytest.raises(ValidationError, match="every weight is 0"):
        CreditRule(**ONLY)


STATUSES = st.sampled_from(["ok", "failed", "timeout", "skipped", "blocked", None])
TURNS = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["ok", "failed", "denied"]), max_size=3),
        st.sampled_from([None, "refused"]),
        st.integers(0, 9000),
    ),
    min_size=1,
    max_size=4,
)
WORK = st.lists(st.tuples(STATUSES, TURNS), min_size=1, max_size=4)
WEIGHTS = st.fixed_dictionaries({term: st.floats(0, 10) for term in TERMS}).filter(lambda all: sum(all.values()) > 0)


def made_of(rows: list[Any], score: float) -> Trace:
    at = iter(range(0, 10_000, 10))
    trajectories = [
        work(
            f"w{number}",
            *(
                turn(f"{number}.{k}", f"w{number}", next(at), calls=c, error=e, usage=Usage(output_tokens=n))
                for k, (c, e, n) in enumerate(turns)
            ),
            status=status,
            assignment=str(number),
        )
        for number, (status, turns) in enumerate(rows)
    ]
    return trace(BOSS, *trajectories, score=score)


@given(WORK, WEIGHTS, st.floats(-2, 2), st.floats(-2, 2))
def test_a_reward_is_bounded_and_the_same_each_time_and_a_better_outcome_never_lowers_it(
    rows: list[Any], weights: dict[str, float], one: float, other: float
) -> None:
    rule = CreditRule(**weights)
    worse, better = (made_of(rows, score) for score in sorted((one, other)))
    low, high = credit_turns(worse, rule), credit_turns(better, rule)
    assert low == credit_turns(worse, rule)
    assert set(low) == {turn.span_id for turn in worse.turns}
    for name, credit in low.items():
        assert 0.0 <= credit.reward <= high[name].reward <= 1.0
        assert all(0.0 <= value <= 1.0 for value in credit.terms.values())
