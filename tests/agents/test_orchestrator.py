"""Plans as a model writes them, and answers as they are joined."""

import json

import jsonschema
import pytest

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.orchestrator import join, plan_schema, read_plan, write_plan
from journeyman.agents.plan import Assignment, Plan, Report

CREW = Crew(
    name="crew",
    orchestrator=Agent(name="orchestrator", instructions="Plan."),
    workers=(Agent(name="lookup", instructions="Look up."), Agent(name="sums", instructions="Add.")),
)
FAN_OUT = Plan(
    assignments=(
        Assignment(id="1", worker="lookup", goal="Which films?"),
        Assignment(id="2", worker="lookup", goal="Who directed {1}?", each="1"),
        Assignment(id="3", worker="sums", goal="Count {2}", needs=("2",)),
    )
)


def test_a_plan_survives_writing_and_reading() -> None:
    assert read_plan(write_plan(FAN_OUT), CREW) == FAN_OUT
    jsonschema.validate(json.loads(write_plan(FAN_OUT)), plan_schema(CREW))


@pytest.mark.parametrize(
    ("place", "change"),
    [(0, {"worker": "pilot"}), (0, {"each": 1}), (1, {"each": 2}), (1, {"each": 3}), (2, {"needs": [3]})],
)
def test_the_schema_lets_neither_a_worker_be_invented_nor_a_later_assignment_be_needed(
    place: int, change: dict[str, object]
) -> None:
    plan = json.loads(write_plan(FAN_OUT))
    plan["assignments"][place] |= change
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plan, plan_schema(CREW))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nonsense", "not valid JSON"),
        ("[]", "JSON object"),
        (r'{"assignments": [{"worker": "lookup", "goal": "\ud83d"}]}', "surrogate"),
        ('{"assignments": []}', "1 to 12"),
        ('{"assignments": [{"worker": "pilot", "goal": "fly"}]}', "there are: lookup, sums"),
        ('{"assignments": [{"worker": "lookup", "goal": " "}]}', "no goal"),
        ('{"assignments": [{"worker": "lookup", "goal": "x", "each": 1}]}', "only need an earlier one"),
        ('{"assignments": [{"worker": "lookup", "goal": "x", "needs": [2]}]}', "only need an earlier one"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_plan(text, CREW)


def report(id: str, *values: str, value: str | None = None, status: str = "ok", error: str | None = None) -> Report:
    assignment = Assignment(id=id, worker="lookup", goal="?", value=value)
    return Report.model_validate({"assignment": assignment, "status": status, "output": list(values), "error": error})


def test_the_answer_is_joined_from_the_leaves_in_plan_order() -> None:
    plan = Plan(assignments=FAN_OUT.assignments[:2])
    reports = [
        report("2.10", "c", value="C"),
        report("1", "A", "B"),
        report("2.2", "b", value="B"),
        report("2.1", "a1", "a2", value="A"),
    ]
    assert join(plan, {r.assignment.id: r for r in reports}) == "A: a1, a2; B: b; C: c"


def test_the_text_of_a_failure_never_reaches_the_answer() -> None:
    plan = Plan(assignments=FAN_OUT.assignments[:2])
    reports = [report("1", "A"), report("2.1", value="A", status="failed", error="connection refused")]
    assert join(plan, {r.assignment.id: r for r in reports}) == ""
