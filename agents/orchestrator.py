"""The orchestrator: a plan asked for under a schema built from the crew, and an answer joined from reports.

A plan on the wire is `{"assignments": [{"worker": ..., "goal": ..., "needs": [1], "each": 1}, ...]}`. Assignments are
numbered from 1 by their place, and may only refer to earlier ones, so that a cycle cannot be written.
"""

import json
from collections.abc import Mapping
from typing import Any

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.calls import Calls, opening
from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.agents.reply import TruncatedReplyError, UnreadableReplyError, read_json
from journeyman.traces.errors import JourneymanError
from journeyman.traces.messages import Message
from journeyman.traces.trace import Status

MAX_ASSIGNMENTS = 12
MAX_GOAL_CHARS = 400


class PlanError(JourneymanError):
    """No usable plan came; `status` is how the orchestrator's work ended."""

    def __init__(self, message: str, status: Status = "failed") -> None:
        super().__init__(message)
        self.status: Status = status


async def make_plan(crew: Crew, orchestrator: Agent, prompt: str, calls: Calls) -> Plan:
    """Asks for a plan, and once more with the reason if it is not usable; raises `PlanError` or `ModelError`."""
    messages = opening(_briefed(orchestrator, crew), calls.policy, prompt)
    schema = plan_schema(crew)
    reason = ""
    for _ in range(2):
        try:
            return await calls.ask(messages, schema, lambda reply: read_plan(reply.content, crew))
        except TruncatedReplyError as cut:
            raise PlanError(f"no plan: {cut}", "truncated") from None
        except UnreadableReplyError as error:
            reason = str(error)
            messages = (*messages, Message(role="user", content=f"Your last plan was not usable: {reason}"))
    raise PlanError(f"no usable plan: {reason}")


def single_assignment(crew: Crew, prompt: str) -> Plan:
    """The plan of a crew without an orchestrator: the first worker gets the whole task."""
    return Plan(assignments=(Assignment(id="1", worker=crew.workers[0].name, goal=prompt),))


def plan_schema(crew: Crew) -> dict[str, Any]:
    """JSON schema of a plan for `crew`: neither a worker nor a reference to a later assignment can be written."""
    places = [_assignment_schema(crew, place) for place in range(1, MAX_ASSIGNMENTS + 1)]
    assignments = {"type": "array", "prefixItems": places, "items": False, "minItems": 1, "maxItems": MAX_ASSIGNMENTS}
    return {
        "type": "object",
        "properties": {"assignments": assignments},
        "required": ["assignments"],
        "additionalProperties": False,
    }


def _briefed(orchestrator: Agent, crew: Crew) -> Agent:
    """The orchestrator with its instructions followed by what each worker does, where its crew says so."""
    told = [f"- {worker.name}: {worker.description}" for worker in crew.workers if worker.description]
    if not told:
        return orchestrator
    instructions = "\n".join([orchestrator.instructions, "Workers:", *told])
    return orchestrator.model_copy(update={"instructions": instructions})


def _assignment_schema(crew: Crew, place: int) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "worker": {"type": "string", "enum": [worker.name for worker in crew.workers]},
        "goal": {"type": "string", "minLength": 1, "maxLength": MAX_GOAL_CHARS},
    }
    if place > 1:
        earlier = {"type": "integer", "enum": list(range(1, place))}
        properties["needs"] = {"type": "array", "items": earlier, "maxItems": place - 1}
        properties["each"] = earlier
    return {
        "type": "object",
        "properties": properties,
        "required": ["worker", "goal"],
        "additionalProperties": False,
    }


def read_plan(text: str, crew: Crew) -> Plan:
    """The plan that a reply holds; raises `UnreadableReplyError` with a reason the model can act on."""
    try:
        rows = read_json(text)["assignments"]
    except (KeyError, TypeError):
        raise UnreadableReplyError('it must be a JSON object {"assignments": [...]}') from None
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_ASSIGNMENTS:
        raise UnreadableReplyError(f"it must have 1 to {MAX_ASSIGNMENTS} assignments")
    workers = {worker.name for worker in crew.workers}
    return Plan(assignments=tuple(_assignment(row, place, workers) for place, row in enumerate(rows, start=1)))


def write_plan(plan: Plan) -> str:
    """The plan as an orchestrator writes it; ids must be places (`1`, `2`, ...)."""
    rows = []
    for assignment in plan.assignments:
        row: dict[str, Any] = {"worker": assignment.worker, "goal": assignment.goal}
        if assignment.needs:
            row["needs"] = [int(need) for need in assignment.needs]
        if assignment.each:
            row["each"] = int(assignment.each)
        rows.append(row)
    return json.dumps({"assignments": rows}, ensure_ascii=False)


def join(plan: Plan, reports: Mapping[str, Report]) -> str:
    """The answer, joined without paraphrase: the outputs of the assignments that nothing else waits for.

    A branch of a fan-out is written `value: output`. A failed report adds nothing: its error is not an answer.
    """
    leaves = {leaf.id for leaf in plan.leaves}
    parts = []
    for report in sorted(reports.values(), key=lambda report: _order(report.assignment.id)):
        if report.assignment.id.split(".")[0] in leaves and report.values:
            output = ", ".join(report.values)
            value = report.assignment.value
            parts.append(output if value is None else f"{value}: {output}")
    return "; ".join(parts)


def _assignment(row: Any, place: int, workers: set[str]) -> Assignment:
    if not isinstance(row, dict) or not isinstance(row.get("goal"), str) or not row["goal"].strip():
        raise UnreadableReplyError(f"assignment {place} has no goal")
    if row.get("worker") not in workers:
        raise UnreadableReplyError(
            f"assignment {place} names worker {row.get('worker')!r}; there are: {', '.join(sorted(workers))}"
        )
    needs, each = row.get("needs", []), row.get("each")
    if not isinstance(needs, list):
        raise UnreadableReplyError(f"needs of assignment {place} must be a list of numbers")
    for need in [*needs, *([] if each is None else [each])]:
        if not isinstance(need, int) or not 1 <= need < place:
            raise UnreadableReplyError(f"assignment {place} needs {need!r}; it can only need an earlier one")
    return Assignment(
        id=str(place),
        worker=row["worker"],
        goal=row["goal"],
        needs=tuple(str(need) for need in dict.fromkeys(needs)),
        each=None if each is None else str(each),
    )


def _order(assignment_id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in assignment_id.split("."))
