"""Plans as a model writes them, and answers as they are joined."""

import json
from typing import Any

import jsonschema
import pytest

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.orchestrator import PlanError, conclude, join, make_plan, plan_schema, read_plan, write_plan
from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.agents.reply import TruncatedReplyError
from journeyman.traces.messages import Message

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
        (
            '{"assignments": [{"worker": "sums", "goal": "x"}, {"worker": "sums", "goal": "x", "needs": [true]}]}',
            "only need an earlier one",
        ),
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


def test_an_answer_names_the_evidence_of_all_that_it_was_made_from() -> None:
    first = report("1", "A", "B").model_copy(update={"evidence": ("s1", "s2")})
    branch = report("2.1", "a", value="A").model_copy(update={"evidence": ("s3",)})
    lost = report("2.2", value="B", status="failed").model_copy(update={"evidence": ("s4",)})
    total = report("3", "1").model_copy(update={"evidence": ("s2",)})
    reports = {one.assignment.id: one for one in (total, lost, branch, first)}
    answer = conclude(FAN_OUT, reports)
    assert (answer.text, answer.evidence) == ("1", ("s1", "s2", "s3"))


def test_what_is_not_in_the_answer_is_not_its_evidence() -> None:
    plan = Plan(assignments=(FAN_OUT.assignments[0], Assignment(id="2", worker="sums", goal="?")))
    found = report("1", "A").model_copy(update={"evidence": ("s1",)})
    empty = report("2").model_copy(update={"evidence": ("s2",)})
    assert conclude(plan, {"1": found, "2": empty}).evidence == ("s1",)


def test_an_orchestrator_may_be_given_room_for_more_or_fewer_assignments() -> None:
    small = CREW.model_copy(update={"orchestrator": Agent(name="boss", instructions="Plan.", assignments=2)})
    with pytest.raises(ValueError, match="1 to 2 assignments"):
        read_plan(write_plan(FAN_OUT), small)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(write_plan(FAN_OUT)), plan_schema(small))


async def ask(desk: Any, *earlier: Message) -> Plan:
    assert CREW.orchestrator is not None
    return await make_plan(CREW, CREW.orchestrator, "Films?", desk, earlier)


async def test_an_unusable_plan_is_repaired_once_with_the_reason(desk: Any) -> None:
    at_work = desk("nonsense", write_plan(FAN_OUT))
    assert await ask(at_work) == FAN_OUT
    assert at_work.seen[1][-1].content == (
        "Films?\n\nYour last plan was not usable: it is not valid JSON (Expecting value)"
    )
    with pytest.raises(PlanError, match="no usable plan: it is not valid JSON"):
        await ask(desk("nonsense", "nonsense", write_plan(FAN_OUT)))


async def test_a_plan_that_was_cut_off_says_so(desk: Any) -> None:
    with pytest.raises(PlanError) as caught:
        await ask(desk(TruncatedReplyError("a reply was cut off at 9 tokens")))
    assert caught.value.status == "truncated"


async def test_what_the_session_said_before_comes_before_the_task(desk: Any) -> None:
    at_work = desk(write_plan(FAN_OUT))
    await ask(at_work, Message(role="user", content="Hello"), Message(role="assistant", content="Hello!"))
    assert [message.content for message in at_work.seen[0]] == ["Plan.", "Hello", "Hello!", "Films?"]
