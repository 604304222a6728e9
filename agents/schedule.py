"""The scheduler: which assignments can start, given the reports so far. Values in, values out."""

import re
from collections.abc import Mapping

from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.traces.record import Record


class Wave(Record):
    """The next step of a plan; both empty when the plan is done."""

    ready: tuple[Assignment, ...]
    """Assignments to start now, placeholders filled in, fan-outs already one for each value."""
    closed: tuple[Report, ...]
    """Reports of assignments that will never start: something they need failed, or a fan-out is over its limit."""


def next_wave(plan: Plan, reports: Mapping[str, Report], *, max_branches: int) -> Wave:
    """What follows from `reports` (by assignment id; branches of a fan-out are `2.1`, `2.2`, ...).

    A fan-out counts as failed when all its branches failed; what waits for it uses the branches that ended well.
    A fan-out over no values has no branches and is done.
    """
    ready: list[Assignment] = []
    closed: dict[str, Report] = {}
    state: dict[str, tuple[str, ...] | None] = {}  # Output values by assignment; None while it is not done.
    failed: set[str] = set()
    for assignment in plan.assignments:
        if lost := [need for need in assignment.waits_for if need in failed]:
            failed.add(assignment.id)
            if assignment.id not in reports:
                closed[assignment.id] = _skipped(assignment, lost[0])
            continue
        if any(state[need] is None for need in assignment.waits_for):
            state[assignment.id] = None
            continue
        branches = _branches(assignment, {need: state[need] or () for need in assignment.waits_for})
        for surplus in branches[max_branches:]:
            if surplus.id not in reports:
                closed[surplus.id] = _surplus(surplus, max_branches)
        branches = branches[:max_branches]
        ready += [branch for branch in branches if branch.id not in reports]
        done = [reports[branch.id] for branch in branches if branch.id in reports]
        if len(done) < len(branches):
            state[assignment.id] = None
        elif done and all(report.status != "ok" for report in done):
            failed.add(assignment.id)
        else:
            state[assignment.id] = tuple(value for report in done for value in report.values)
    return Wave(ready=tuple(ready), closed=tuple(closed.values()))


def _branches(assignment: Assignment, outputs: Mapping[str, tuple[str, ...]]) -> list[Assignment]:
    results = {need: ", ".join(outputs[need]) for need in assignment.needs}
    each = assignment.each
    if each is None:
        return [assignment.model_copy(update={"goal": _filled(assignment.goal, results)})]
    return [
        assignment.model_copy(
            update={
                "id": f"{assignment.id}.{number}",
                "goal": _filled(assignment.goal, results | {each: value}),
                "value": value,
            }
        )
        for number, value in enumerate(outputs[each], start=1)
    ]


def _filled(goal: str, results: Mapping[str, str]) -> str:
    """`goal` with `{id}` replaced, in one pass: braces inside a result are text."""
    return re.sub(r"\{(\d+)\}", lambda match: results.get(match[1], match[0]), goal)


def _skipped(assignment: Assignment, lost: str) -> Report:
    return Report(assignment=assignment, status="skipped", error=f"it needs assignment {lost}, which did not end well")


def _surplus(assignment: Assignment, limit: int) -> Report:
    return Report(assignment=assignment, status="over_budget", error=f"a fan-out may have {limit} branches")
