"""Success: what counts as solved, and by what runs are grouped."""

from typing import Any

from journeyman.traces.reports.scope import Scope
from journeyman.traces.reports.success import (
    Success,
    success_by_agent,
    success_by_day,
    success_by_family,
    success_by_policy,
    success_overall,
)

CHAT = {"operation": "chat"}
DAY_S = 86_400.0


def overall(runs: Any, **scope: Any) -> Success:
    found = success_overall(runs.store, Scope(**scope))
    assert found is not None
    return found


def test_a_scored_run_is_solved_at_one_and_an_unscored_one_where_it_ended_ok(runs: Any) -> None:
    runs.add(CHAT, score=1.0)
    runs.add(CHAT, score=True)
    runs.add(CHAT, score=0.99)
    runs.add(CHAT)
    runs.add(CHAT, status="failed")
    runs.add(CHAT, status=None)
    found = overall(runs)
    assert (found.runs, found.ended_ok, found.scored, found.solved) == (6, 4, 3, 3)
    assert found.score is not None and round(found.score, 4) == round(2.99 / 3, 4)
    assert found.solved_rate == 0.5


def test_the_newest_score_counts(runs: Any) -> None:
    trace_id = runs.add(CHAT, score=0.0)
    runs.label(trace_id, "score", 1.0)
    assert overall(runs).solved == 1


def test_no_run_is_no_success(runs: Any) -> None:
    assert success_overall(runs.store, Scope()) is None
    assert success_by_family(runs.store, Scope()) == ()


def test_families_agents_and_policies_have_their_own_runs(runs: Any) -> None:
    runs.add(CHAT, CHAT, family="rivers", score=1.0)
    runs.add({"gen_ai.request.model": "lookup@1"}, family="lakes", worker="reader", worker_status="failed", score=0.0)
    store, scope = runs.store, Scope()
    assert [(row.name, row.runs, row.solved) for row in success_by_family(store, scope)] == [
        ("lakes", 1, 0),
        ("rivers", 1, 1),
    ]
    assert [(row.name, row.runs, row.solved, row.works_ok, row.works) for row in success_by_agent(store, scope)] == [
        ("boss", 2, 1, 2, 2),
        ("lookup", 1, 1, 1, 1),
        ("reader", 1, 0, 0, 1),
    ]
    assert [(row.name, row.runs, row.solved) for row in success_by_policy(store, scope)] == [
        ("base", 1, 1),
        ("lookup@1", 1, 0),
    ]


def test_days_are_those_of_the_start_in_utc(runs: Any) -> None:
    runs.add(CHAT, start_s=0.0)
    runs.add({"seconds": 10.0}, start_s=DAY_S - 5)
    runs.add(CHAT, start_s=DAY_S)
    days = success_by_day(runs.store, Scope())
    assert [(day.name, day.runs) for day in days] == [("1970-01-01", 2), ("1970-01-02", 1)]


def test_a_scope_leaves_out_the_other_runs(runs: Any) -> None:
    runs.add(CHAT, family="rivers", start_s=100.0)
    runs.add(CHAT, family="lakes", status="failed", start_s=200.0)
    runs.add({"gen_ai.request.model": "lookup@1"}, family="lakes", worker="reader", start_s=300.0, score=0.5)
    cases: list[tuple[dict[str, Any], int]] = [
        ({}, 3),
        ({"family": "lakes"}, 2),
        ({"family": "lakes", "status": "failed"}, 1),
        ({"agent": "reader"}, 1),
        ({"policy": ("base",)}, 2),
        ({"since_ns": 200 * 10**9}, 2),
        ({"until_ns": 200 * 10**9}, 1),
        ({"label": "score", "min_value": 0.5}, 1),
    ]
    for scope, expected in cases:
        assert overall(runs, **scope).runs == expected, scope
    assert success_overall(runs.store, Scope(family="seas")) is None
