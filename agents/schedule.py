"""The scheduler: which assignments can start, given the reports so far. Values in, values out."""

import re
from collections.abc import Mapping

from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.traces.base import Record


class Wave(Record):
    """The next step of a plan; both empty when the plan is done."""

    ready: tuple[Assignment, ...]
    """Assignments to start now, placeholders filled in, fan-outs already one for each value."""
    closed: tuple[Report, ...]
    """Reports of assignments that will never start: something they need failed, or a fan-out is over its limit."""


def next_wave(plan: Plan, reports: Mapping[str, Report], *, max_branches: int) -> Wave:
    """What follows from `reports` (by assignment id; branches of a fan-out are `2.1`, `2.2`, ...).

    A fan-out counts as failed when all its branches failed; what waits for it uses the branches that ended well.
    A fan-out over no values has no branches and is done. What was skipped starts after all once replacements
    have made good what it lacked, and all that it waits for have ended; its new report takes the place of the old one.
    """
    reports = settled(plan, reports)
    awaited = [one for one in plan.assignments if one.replaces is not None and one.id not in reports]
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
        unfinished = any(state[need] is None for need in assignment.waits_for)
        if unfinished or any(_waits_for(plan, assignment, replacement) for replacement in awaited):
            state[assignment.id] = None
            continue
        branches = _branches(assignment, {need: state[need] or () for need in assignment.waits_for})
        for surplus in branches[max_branches:]:
            if surplus.id not in reports:
                closed[surplus.id] = _surplus(surplus, max_branches)
        # One over the limit is among those that are done where a replacement made it good.
        done = [reports[branch.id] for branch in branches if branch.id in reports]
        if missing := [branch for branch in branches[:max_branches] if branch.id not in reports]:
            ready += missing
            state[assignment.id] = None
        elif done and all(report.status != "ok" for report in done):
            failed.add(assignment.id)
        else:
            state[assignment.id] = tuple(value for report in done for value in report.values)
    return Wave(ready=tuple(ready), closed=tuple(closed.values()))


def settled(plan: Plan, reports: Mapping[str, Report]) -> dict[str, Report]:
    """The reports as they count: replaced ones with their replacement's output, skipped ones only while they must be.

    Reports of replacements stay beside what they replaced.
    """
    counted = dict(reports)
    if all(report.status == "ok" for report in counted.values()):
        return counted
    for one in reversed(plan.assignments):  # Backwards, because a replacement may itself have been replaced.
        replacement = counted.get(one.id)
        if one.replaces in counted and replacement is not None and replacement.status == "ok":
            original = counted[one.replaces].assignment
            counted[one.replaces] = replacement.model_copy(update={"assignment": original})
    tried = {report.assignment.number for report in counted.values() if report.status != "skipped"}
    ended_well = {report.assignment.number for report in counted.values() if report.status == "ok"}
    failed: set[str] = set()
    for assignment in plan.assignments:
        if failed.intersection(assignment.waits_for):
            failed.add(assignment.id)
            continue
        if assignment.id in counted and counted[assignment.id].status == "skipped":
            del counted[assignment.id]
        if assignment.id in tried - ended_well:
            failed.add(assignment.id)
    return counted


def lost(plan: Plan, reports: Mapping[str, Report]) -> tuple[Report, ...]:
    """Reports that did not end well, in the order of the plan, but for those that were made good since.

    A replacement that failed is not counted beside what it should have replaced.
    """
    counted = settled(plan, reports)
    replacements = {one.id for one in plan.assignments if one.replaces is not None}
    return tuple(
        report
        for report in sorted(counted.values(), key=lambda report: order(report.assignment.id))
        if report.status != "ok" and report.assignment.id not in replacements
    )


def order(assignment_id: str) -> tuple[int, ...]:
    """A key that sorts ids as a plan does: 2 before 10, 2.2 before 2.10."""
    return tuple(int(part) for part in assignment_id.split("."))


def _waits_for(plan: Plan, assignment: Assignment, replacement: Assignment) -> bool:
    """Whether a replacement is of what `assignment` uses; one further down in the same replan may itself use that."""
    if (replacement.replaces or "").partition(".")[0] not in assignment.waits_for:
        return False
    own, other = int(assignment.id), int(replacement.id)
    return other < own or any(own <= start < other for start in plan.replans)


def _branches(assignment: Assignment, outputs: Mapping[str, tuple[str, ...]]) -> list[Assignment]:
    results = {need: ", ".join(outputs[need]) for need in assignment.needs}
    each = assignment.each
    if each is None:
        goal = _filled(assignment, results)
        return [assignment if goal == assignment.goal else assignment.model_copy(update={"goal": goal})]
    return [
        assignment.model_copy(
            update={
                "id": f"{assignment.id}.{number}",
                "goal": _filled(assignment, results | {each: value}),
                "value": value,
            }
        )
        for number, value in enumerate(outputs[each], start=1)
    ]


def _filled(assignment: Assignment, results: Mapping[str, str]) -> str:
    """The goal with `{id}` replaced, in one pass: braces inside a result are text.

    A worker sees nothing but its goal, so a result that the goal does not mention is put below it.
    """
    goal = assignment.goal
    below = [f"Result of {id}: {result}" for id, result in results.items() if f"{{{id}}}" not in goal]
    return "\n".join([re.sub(r"\{(\d+)\}", lambda match: results.get(match[1], match[0]), goal), *below])


def _skipped(assignment: Assignment, lost: str) -> Report:
    return Report(assignment=assignment, status="skipped", error=f"it needs assignment {lost}, which did not end well")


def _surplus(assignment: Assignment, limit: int) -> Report:
    return Report(assignment=assignment, status="over_budget", error=f"a fan-out may have {limit} branches")
