"""Steps: their accuracy by position, the product of it, and the gap to what was observed."""

from typing import Any

import pytest

from journeyman.traces.reports.scope import Scope
from journeyman.traces.reports.steps import Compounding, compounding

CHAT = {"operation": "chat"}
TOOL = {"operation": "execute_tool"}
BAD = {"operation": "chat", "error": "UnreadableReplyError"}


def measured(runs: Any) -> Compounding:
    return compounding(runs.store, Scope())


def test_accuracies_multiply_over_the_positions_of_a_run(runs: Any) -> None:
    runs.add(CHAT, TOOL, CHAT)
    runs.add(CHAT, {**TOOL, "error": "failed"}, CHAT, score=0.0)
    runs.add(BAD, CHAT)
    runs.add(CHAT)
    found = measured(runs)
    assert [(one.position, one.steps, one.right, one.last) for one in found.positions] == [
        (1, 4, 3, 1),
        (2, 3, 2, 1),
        (3, 2, 2, 2),
    ]
    assert [one.product for one in found.positions] == pytest.approx([0.75, 0.5, 0.5])
    # Two runs of three steps at 0.5, one of two at 0.5, one of one at 0.75.
    assert found.expected == pytest.approx((0.5 + 0.5 + 0.5 + 0.75) / 4)
    assert found.observed == pytest.approx(3 / 4)
    assert found.gap == pytest.approx(3 / 4 - 2.25 / 4)


def test_a_step_that_a_label_calls_wrong_is_not_right(runs: Any) -> None:
    trace_id = runs.add(CHAT, CHAT)
    runs.label(trace_id, "score", 0.0, span_id=f"{2:016d}")
    runs.label(trace_id, "thumbs", False, span_id=f"{1:016d}")
    assert [one.accuracy for one in measured(runs).positions] == [1.0, 0.0]


def test_runs_that_never_finished_are_left_out(runs: Any) -> None:
    runs.add(CHAT, status=None)
    assert measured(runs) == Compounding(runs=0, positions=(), expected=None, observed=None, gap=None)
    runs.add(CHAT)
    assert measured(runs).runs == 1


def test_steps_that_look_right_and_do_not_solve_leave_a_gap_below(runs: Any) -> None:
    runs.add(CHAT, CHAT, score=0.0)
    assert measured(runs).gap == -1.0
