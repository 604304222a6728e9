"""Replanning: what an orchestrator adds to its plan once something failed, or the answer was found insufficient.

On the wire it is a plan of the missing assignments alone, `{"assignments": []}` if nothing more can be done. They are
numbered on from those there are. One with `"replaces": "2"` stands in for a failed assignment or branch: what waited
for that goes on. What ended well is never done again.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Any

from journeyman.agents.agent import Agent, Crew, default_instructions
from journeyman.agents.calls import Calls, told
from journeyman.agents.orchestrator import (
    ask_for_plan,
    assignment_schema,
    assignments_schema,
    conclude,
    most_assignments,
    read_assignment,
    read_rows,
    write_plan,
)
from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.agents.prompt import opening, planning_form
from journeyman.agents.reply import UnreadableReplyError
from journeyman.agents.review import Problem
from journeyman.agents.schedule import lost, order, settled
from journeyman.traces.messages import Message

MAX_TOLD = 40
"""Reports that the orchestrator is told of: all failures come first."""
MAX_TOLD_CHARS = 300
BEYOND_PLANNING = {"skipped", "cancelled", "over_budget"}
"""Statuses that are no reason to replan: another plan would end in the same way."""


def may_replan(orchestrator: Agent, plan: Plan, reports: Mapping[str, Report], problems: Sequence[Problem]) -> bool:
    """Whether to ask for a replan: there is something to make good, the limit is not reached, and the last one helped.

    A report without values is no failure, and nothing to make good.
    """
    wanting = [report for report in lost(plan, reports) if report.status not in BEYOND_PLANNING]
    return bool(problems or wanting) and len(plan.replans) < orchestrator.replans and not stalled(plan, reports)


def stalled(plan: Plan, reports: Mapping[str, Report]) -> bool:
    """Whether the last replan brought nothing: no assignment of it ended well with anything that was not known before.

    The first plan never counts as stalled: that nothing of it went well is a reason to replan.
    """
    if not plan.replans:
        return False
    old = {one.id for one in plan.assignments[: plan.replans[-1]]}
    ended_well = [report for report in reports.values() if report.status == "ok"]
    known = [(report.assignment.goal, report.values) for report in ended_well if report.assignment.number in old]
    new = [report for report in ended_well if report.assignment.number not in old]
    return all((report.assignment.goal, report.values) in known for report in new)


async def replan(
    crew: Crew,
    orchestrator: Agent,
    prompt: str,
    plan: Plan,
    reports: Mapping[str, Report],
    calls: Calls,
    problems: Sequence[Problem] = (),
    earlier: Sequence[Message] = (),
) -> Plan | None:
    """`plan` with more assignments, None where the orchestrator has none to add; raises `PlanError` or `ModelError`.

    Ask `may_replan` first. `problems` are what a review found wrong with the answer so far.
    """
    schema = replan_schema(crew, plan, reports)
    messages = (
        *opening(planning_form(orchestrator, crew, calls.prompt), calls.policy, prompt, earlier),
        Message(role="assistant", content=write_plan(plan)),
    )
    messages = told(messages, _state(plan, reports, problems))
    more = await ask_for_plan(messages, schema, lambda text: read_replan(text, crew, plan, reports), calls)
    return None if more == plan else more


def replan_schema(crew: Crew, plan: Plan, reports: Mapping[str, Report]) -> dict[str, Any]:
    """JSON schema of a replan: only what ended well can be needed, only what failed and still counts be replaced."""
    usable, replaceable = _usable(plan, reports), [report.assignment.id for report in _replaceable(plan, reports)]
    start = len(plan.assignments) + 1
    schemas = []
    for number in range(start, start + most_assignments(crew)):
        schema = assignment_schema(crew.worker_names, [*usable, *range(start, number)])
        schemas.append({"anyOf": [schema, _replacing(schema, replaceable)]} if replaceable else schema)
    return assignments_schema(schemas, least=0)


def read_replan(text: str, crew: Crew, plan: Plan, reports: Mapping[str, Report]) -> Plan:
    """`plan` with the assignments of a reply behind its own; raises `UnreadableReplyError` with a reason."""
    rows = read_rows(text, 0, most_assignments(crew))
    if not rows:
        return plan
    usable, replaceable = _usable(plan, reports), [report.assignment.id for report in _replaceable(plan, reports)]
    start = len(plan.assignments) + 1
    added: list[Assignment] = []
    for number, row in enumerate(rows, start=start):
        assignment = read_assignment(row, crew, number, [*usable, *range(start, number)])
        if _twin(assignment, plan, reports):
            raise UnreadableReplyError(f"assignment {number} asks again for what ended well before")
        if "replaces" in row:
            assignment = _replacement(assignment, row["replaces"], replaceable)
            replaceable.remove(row["replaces"])
        added.append(assignment)
    return Plan(assignments=(*plan.assignments, *added), replans=(*plan.replans, len(plan.assignments)))


def _replacing(schema: dict[str, Any], replaceable: list[str]) -> dict[str, Any]:
    """The schema of an assignment that takes the place of another: it has one output, so it cannot fan out."""
    properties = {key: value for key, value in schema["properties"].items() if key != "each"}
    properties["replaces"] = {"type": "string", "enum": replaceable}
    return {**schema, "properties": properties, "required": [*schema["required"], "replaces"]}


def _replacement(assignment: Assignment, replaces: Any, replaceable: Sequence[str]) -> Assignment:
    if replaces not in replaceable:
        can = ", ".join(replaceable) or "none"
        raise UnreadableReplyError(f"assignment {assignment.id} cannot replace {replaces!r}; it can replace: {can}")
    if assignment.each is not None:
        raise UnreadableReplyError(f"assignment {assignment.id} cannot fan out and replace another")
    return assignment.model_copy(update={"replaces": replaces})


def _twin(assignment: Assignment, plan: Plan, reports: Mapping[str, Report]) -> bool:
    same = {"id": "", "replaces": None}
    done = [one for one in plan.assignments if one.id in reports and reports[one.id].status == "ok"]
    return assignment.model_copy(update=same) in [one.model_copy(update=same) for one in done]


def _usable(plan: Plan, reports: Mapping[str, Report]) -> list[int]:
    """Numbers of the assignments that ended well, in whole or in part."""
    counted = settled(plan, reports).values()
    ended_well = {report.assignment.number for report in counted if report.status == "ok"}
    failed = {report.assignment.number for report in counted} - ended_well
    # A fan-out over nothing has no report, and ended well.
    return [int(one.id) for one in plan.assignments if one.id not in failed]


def _replaceable(plan: Plan, reports: Mapping[str, Report]) -> list[Report]:
    """Failures that a replacement can make good: nothing that waited for them has gone on without them."""
    gone_on = _gone_on_without(plan, {id for id, one in settled(plan, reports).items() if one.status == "skipped"})
    return [
        report
        for report in lost(plan, reports)
        if report.status != "skipped" and report.assignment.number not in gone_on
    ]


def _gone_on_without(plan: Plan, skipped: Set[str]) -> set[str]:
    """What something that waited for it has used as it is; also by way of replacements that were skipped themselves,
    and would change it after all if they could start."""
    gone_on = {need for one in plan.assignments if one.id not in skipped for need in one.waits_for}
    waiting = [one for one in plan.assignments if one.id in skipped]
    while late := [one for one in waiting if gone_on & {one.id, (one.replaces or "").partition(".")[0]}]:
        gone_on.update(*(one.waits_for for one in late))
        waiting = [one for one in waiting if one not in late]
    return gone_on


def _state(plan: Plan, reports: Mapping[str, Report], problems: Sequence[Problem]) -> str:
    """What the orchestrator is told of its plan: how each assignment ended, the answer so far, and what is asked."""
    counted = sorted(settled(plan, reports).values(), key=lambda report: order(report.assignment.id))
    counted = sorted(counted, key=lambda report: report.status == "ok")[:MAX_TOLD]
    lines = ["What came of your plan:", *map(_line, counted)]
    if answer := conclude(plan, reports).text:
        lines.append(f"The answer so far: {_cut(answer)}")
    lines += [f"What is wrong with it: {_cut(problem.reason)}" for problem in problems]
    asked = default_instructions("replan").replace("{next}", str(len(plan.assignments) + 1))
    return "\n".join([*lines, asked])


def _line(report: Report) -> str:
    said = ", ".join(report.values) or "nothing found" if report.status == "ok" else report.error or ""
    return f"{report.assignment.id} ({report.assignment.worker}) {report.status}: {_cut(said)}"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_TOLD_CHARS else f"{line[:MAX_TOLD_CHARS]}..."
