"""The orchestrator: a plan asked for under a schema built from the crew, and an answer joined from reports.

A plan on the wire is `{"assignments": [{"worker": ..., "goal": ..., "needs": [1], "each": 1}, ...]}`. Assignments are
numbered from 1 in their order, and may only refer to earlier ones, so that a cycle cannot be written.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from journeyman.agents.agent import MAX_ASSIGNMENTS, Agent, Crew
from journeyman.agents.calls import Calls, ask_repaired
from journeyman.agents.plan import Answer, Assignment, Plan, Report
from journeyman.agents.prompt import opening, planning_form
from journeyman.agents.reply import TruncatedReplyError, UnreadableReplyError, read_json
from journeyman.agents.schedule import order, settled
from journeyman.traces.errors import JourneymanError
from journeyman.traces.messages import Message
from journeyman.traces.trace import Status

MAX_GOAL_CHARS = 400


class PlanError(JourneymanError):
    """No usable plan came; `status` is how the orchestrator's work ended."""

    def __init__(self, message: str, status: Status = "failed") -> None:
        super().__init__(message)
        self.status: Status = status


async def make_plan(
    crew: Crew, orchestrator: Agent, prompt: str, calls: Calls, earlier: Sequence[Message] = ()
) -> Plan:
    """Asks for a plan; raises `PlanError` or `ModelError`. `earlier` is what the session said before this task."""
    messages = opening(planning_form(orchestrator, crew, calls.prompt), calls.policy, prompt, earlier)
    return await ask_for_plan(messages, plan_schema(crew), lambda text: read_plan(text, crew), calls)


async def ask_for_plan(
    messages: tuple[Message, ...], schema: dict[str, Any], read: Callable[[str], Plan], calls: Calls
) -> Plan:
    """What `read` makes of the reply; one that it refuses is asked for once more, with the reason."""
    try:
        return await ask_repaired(calls, messages, schema, read, "plan")
    except TruncatedReplyError as cut:
        raise PlanError(f"no plan: {cut}", "truncated") from None
    except UnreadableReplyError as error:
        raise PlanError(f"no usable plan: {error}") from None


def single_assignment(crew: Crew, prompt: str) -> Plan:
    """The plan of a crew without an orchestrator: the first worker gets the whole task."""
    return Plan(assignments=(Assignment(id="1", worker=crew.workers[0].name, goal=prompt),))


def most_assignments(crew: Crew) -> int:
    """How many assignments one plan, and one replan, may have."""
    return MAX_ASSIGNMENTS if crew.orchestrator is None else crew.orchestrator.assignments


def plan_schema(crew: Crew) -> dict[str, Any]:
    """JSON schema of a plan for `crew`: neither a worker nor a reference to a later assignment can be written."""
    return _plan_schema(crew.worker_names, most_assignments(crew))


def assignments_schema(schemas: Sequence[dict[str, Any]], *, least: int) -> dict[str, Any]:
    """JSON schema of a list with at most one assignment for each of `places`, and at least `least` of them."""
    assignments = {
        "type": "array",
        "prefixItems": list(schemas),
        "items": False,
        "minItems": least,
        "maxItems": len(schemas),
    }
    return {
        "type": "object",
        "properties": {"assignments": assignments},
        "required": ["assignments"],
        "additionalProperties": False,
    }


@lru_cache(maxsize=64)
def _plan_schema(workers: tuple[str, ...], most: int) -> dict[str, Any]:
    numbers = range(1, most + 1)
    return assignments_schema([assignment_schema(workers, range(1, number)) for number in numbers], least=1)


def assignment_schema(workers: Iterable[str], earlier: Sequence[int]) -> dict[str, Any]:
    """JSON schema of an assignment of one of `workers` that may need those numbered `earlier`."""
    properties: dict[str, Any] = {
        "worker": {"type": "string", "enum": [*workers]},
        "goal": {"type": "string", "minLength": 1, "maxLength": MAX_GOAL_CHARS},
    }
    if earlier:
        number = {"type": "integer", "enum": list(earlier)}
        properties["needs"] = {"type": "array", "items": number, "maxItems": len(earlier)}
        properties["each"] = number
    return {
        "type": "object",
        "properties": properties,
        "required": ["worker", "goal"],
        "additionalProperties": False,
    }


def read_plan(text: str, crew: Crew) -> Plan:
    """The plan that a reply holds; raises `UnreadableReplyError` with a reason the model can act on."""
    rows = read_rows(text, 1, most_assignments(crew))
    return Plan(
        assignments=tuple(
            read_assignment(row, crew, number, range(1, number)) for number, row in enumerate(rows, start=1)
        )
    )


def read_rows(text: str, least: int, most: int) -> list[Any]:
    """The assignments that a reply lists, unread; raises `UnreadableReplyError`."""
    try:
        rows = read_json(text)["assignments"]
    except (KeyError, TypeError):
        raise UnreadableReplyError('it must be a JSON object {"assignments": [...]}') from None
    if not isinstance(rows, list) or not least <= len(rows) <= most:
        raise UnreadableReplyError(f"it must have {least} to {most} assignments")
    return rows


def read_assignment(row: Any, crew: Crew, number: int, earlier: Sequence[int]) -> Assignment:
    """One row of a plan, which may need those numbered `earlier`; raises `UnreadableReplyError`."""
    if not isinstance(row, dict) or not isinstance(row.get("goal"), str) or not row["goal"].strip():
        raise UnreadableReplyError(f"assignment {number} has no goal")
    workers = sorted(crew.worker_names)
    if row.get("worker") not in workers:
        raise UnreadableReplyError(
            f"assignment {number} names worker {row.get('worker')!r}; there are: {', '.join(workers)}"
        )
    needs, each = row.get("needs", []), row.get("each")
    if not isinstance(needs, list):
        raise UnreadableReplyError(f"needs of assignment {number} must be a list of numbers")
    for need in [*needs, *([] if each is None else [each])]:
        if type(need) is not int or need not in earlier:  # For Python, true is the integer 1.
            raise UnreadableReplyError(f"assignment {number} needs {need!r}; it can only need an earlier one")
    return Assignment(
        id=str(number),
        worker=row["worker"],
        goal=row["goal"],
        needs=tuple(str(need) for need in dict.fromkeys(needs)),
        each=None if each is None else str(each),
    )


def write_plan(plan: Plan) -> str:
    """The plan as an orchestrator writes it; ids must be places (`1`, `2`, ...)."""
    rows = []
    for assignment in plan.assignments:
        row: dict[str, Any] = {"worker": assignment.worker, "goal": assignment.goal}
        if assignment.needs:
            row["needs"] = [int(need) for need in assignment.needs]
        if assignment.each:
            row["each"] = int(assignment.each)
        if assignment.replaces:
            row["replaces"] = assignment.replaces
        rows.append(row)
    return json.dumps({"assignments": rows}, ensure_ascii=False)


def join(plan: Plan, reports: Mapping[str, Report]) -> str:
    """The answer, joined without paraphrase: the outputs of the assignments that nothing else waits for.

    A branch of a fan-out is written `value: output`. A failed report adds nothing: its error is not an answer.
    """
    return conclude(plan, reports).text


def conclude(plan: Plan, reports: Mapping[str, Report]) -> Answer:
    """The joined answer, and the tool calls behind the outputs in it and behind all that these were made from."""
    counted = sorted(settled(plan, reports).values(), key=lambda report: order(report.assignment.id))
    leaves = {leaf.id for leaf in plan.leaves}
    given = [report for report in counted if report.assignment.number in leaves and report.values]
    used = _behind(plan, {report.assignment.number for report in given})
    evidence = [
        span
        for report in counted
        if report.status == "ok" and report.assignment.number in used
        for span in report.evidence
    ]
    return Answer(text="; ".join(map(_part, given)), evidence=tuple(dict.fromkeys(evidence)))


def _part(report: Report) -> str:
    output = ", ".join(report.values)
    value = report.assignment.value
    return output if value is None else f"{value}: {output}"


def _behind(plan: Plan, numbers: set[str]) -> set[str]:
    """`places` and all that they wait for, directly or not."""
    for assignment in reversed(plan.assignments):
        if numbers & {assignment.id, (assignment.replaces or "").partition(".")[0]}:
            numbers = numbers.union(assignment.waits_for)
    return numbers
