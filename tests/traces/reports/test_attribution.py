"""Attribution: the first failure of every unsolved run, and what kind it is."""

import random
from typing import Any

import pytest

from journeyman.traces.reports.attribution import Attribution, attribute, failure_kind
from journeyman.traces.reports.scope import Scope

CHAT = {"operation": "chat"}
TOOL = {"operation": "execute_tool"}


def broke(runs: Any) -> list[tuple[str, str | None, int | None, int, int]]:
    return [(one.kind, one.agent, one.step, one.runs, one.recovered) for one in attributed(runs).breaks]


def attributed(runs: Any) -> Attribution:
    return attribute(runs.store, Scope())


def test_a_run_that_failed_broke_in_the_call_that_failed_first(runs: Any) -> None:
    trace_id = runs.add(
        CHAT,
        {**CHAT, "error": "UnreadableReplyError"},
        {**CHAT, "error": "ModelError"},
        status="failed",
        worker_status="failed",
    )
    (found,) = attributed(runs).breaks
    assert (found.kind, found.agent, found.step, found.runs) == ("reply not usable", "lookup", 2, 1)
    assert (found.recovered, found.example) == (0, trace_id)


def test_a_tool_call_belongs_to_the_turn_that_asked_for_it(runs: Any) -> None:
    runs.add(CHAT, TOOL, CHAT, {**TOOL, "error": "invalid"}, CHAT, status="failed", worker_status="failed")
    (found,) = attributed(runs).breaks
    assert (found.kind, found.agent, found.step, found.tool) == ("tool given invalid arguments", "lookup", 2, "search")


def test_an_agent_that_got_over_its_first_failure_is_said_to_have_recovered(runs: Any) -> None:
    runs.add({**CHAT, "error": "UnreadableReplyError"}, CHAT, score=0.0)
    assert broke(runs) == [("reply not usable", "lookup", 1, 1, 1)]


def test_solved_runs_are_left_out_whatever_failed_in_them(runs: Any) -> None:
    runs.add({**CHAT, "error": "ModelError"}, CHAT, score=1.0)
    runs.add({**CHAT, "error": "ModelError"}, CHAT)
    assert attributed(runs) == Attribution(runs=2, unsolved=0, breaks=())


def test_runs_in_which_no_step_failed_are_told_apart(runs: Any) -> None:
    runs.add(CHAT, score=0.5)
    runs.add(CHAT, status=None, worker_status=None)
    assert sorted(broke(runs)) == [
        ("never finished", None, None, 1, 0),
        ("wrong answer, no step failed", None, None, 1, 0),
    ]


def test_an_agent_that_failed_though_its_calls_did_not_is_named_as_a_whole(runs: Any) -> None:
    runs.add(CHAT, CHAT, status="failed", worker_status="timeout")
    assert broke(runs) == [("agent timed out", "lookup", 2, 1, 0)]


def test_runs_that_broke_alike_are_counted_together_and_the_most_come_first(runs: Any) -> None:
    for _ in range(3):
        runs.add(CHAT, {**TOOL, "error": "timeout"}, status="failed", worker_status="failed")
    runs.add({**CHAT, "error": "ModelError"}, worker="reader", status="failed", worker_status="failed")
    found = attributed(runs)
    assert broke(runs) == [("tool timed out", "lookup", 1, 3, 0), ("model call failed", "reader", 1, 1, 0)]
    assert found.by_agent() == {"lookup": 3, "reader": 1}
    assert (found.runs, found.unsolved) == (4, 4)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_unsolved_run_is_attributed_once_to_its_earliest_failed_step(runs: Any, seed: int) -> None:
    chance = random.Random(seed)
    expected: dict[tuple[str | None, str | None], int] = {}
    for _ in range(40):
        steps: list[dict[str, Any]] = [
            chance.choice([CHAT, TOOL]) | {"seconds": chance.random()} for _ in range(chance.randint(1, 5))
        ]
        failing = [place for place in range(len(steps)) if chance.random() < 0.3]
        for place in failing:
            steps[place] = steps[place] | {"error": "failed"}
        worker = chance.choice(["lookup", "reader"])
        runs.add(*steps, worker=worker, score=0.0)
        key = (worker, steps[failing[0]]["operation"]) if failing else (None, None)
        expected[key] = expected.get(key, 0) + 1
    found: dict[tuple[str | None, str | None], int] = {}
    kinds = {"model call failed": "chat", "tool failed": "execute_tool", "wrong answer, no step failed": None}
    for one in attributed(runs).breaks:
        found[one.agent, kinds[one.kind]] = found.get((one.agent, kinds[one.kind]), 0) + one.runs
    assert found == expected


@pytest.mark.parametrize(
    ("operation", "error_type", "finish_reason", "kind"),
    [
        ("execute_tool", "failed", None, "tool failed"),
        ("execute_tool", "timeout", None, "tool timed out"),
        ("execute_tool", "CancelledError", None, "tool timed out"),
        ("chat", "TruncatedReplyError", "length", "reply cut off"),
        ("chat", "UnreadableReplyError", "stop", "reply not usable"),
        ("chat", "ModelError", None, "model call failed"),
        ("chat", "503", None, "model call failed"),
        ("chat", "rate_limited", None, "model call failed"),
        ("chat", "timeout", None, "model call timed out"),
        ("plan", "timeout", None, "agent timed out"),
        ("plan", "over_budget", None, "over budget"),
        ("plan", "blocked", None, "blocked"),
        ("plan", "failed", None, "no plan"),
        ("chat", "CancelledError", None, "model call timed out"),
        ("plan", "PlanError", None, "no plan"),
        ("invoke_agent", "failed", None, "agent failed"),
        ("invoke_agent", "over_budget", None, "over budget"),
        ("invoke_workflow", "StoreError", None, "run failed"),
        ("execute_tool", "invalid", None, "tool given invalid arguments"),
        ("execute_tool", "denied", None, "tool call refused"),
        ("execute_tool", "unknown", None, "tool call of unknown effect"),
        ("invoke_agent", "blocked", None, "blocked"),
        ("invoke_agent", "cancelled", None, "cancelled"),
        ("invoke_workflow", "blocked", None, "blocked"),
        ("embeddings", None, None, "run failed"),
    ],
)
def test_kinds_of_failure(operation: str, error_type: str | None, finish_reason: str | None, kind: str) -> None:
    assert failure_kind(operation=operation, error_type=error_type, finish_reason=finish_reason) == kind


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("ok", "wrong answer, no step failed"),
        ("failed", "run failed"),
        ("blocked", "blocked"),
        ("cancelled", "cancelled"),
        ("needs_input", "waits to be taken up again"),
        ("paused", "waits to be taken up again"),
        ("unfinished", "never finished"),
    ],
)
def test_a_run_in_which_no_step_failed_is_told_by_how_it_ended(status: str, kind: str) -> None:
    assert failure_kind(operation=None, error_type=None, status=status) == kind


def test_what_was_in_flight_when_a_run_was_cancelled_did_not_time_out(runs: Any) -> None:
    runs.add({"error": "CancelledError"}, status="cancelled", worker_status=None)
    (found,) = attributed(runs).breaks
    assert found.kind == "cancelled"


def test_a_run_that_waits_broke_nowhere(runs: Any) -> None:
    runs.add({}, status="needs_input", worker_status="needs_input")
    (found,) = attributed(runs).breaks
    assert (found.kind, found.agent) == ("waits to be taken up again", None)
