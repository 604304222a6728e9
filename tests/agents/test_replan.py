"""Replanning: what may be added to a plan, and when an orchestrator is asked for it."""

import json
from typing import Any

import jsonschema
import pytest

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.orchestrator import PlanError, conclude
from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.agents.replan import may_replan, read_replan, replan, replan_schema, stalled
from journeyman.agents.reply import UnreadableReplyError
from journeyman.agents.review import Problem
from journeyman.agents.schedule import lost, next_wave
from journeyman.traces.errors import ModelError

BOSS = Agent(name="boss", instructions="Plan.", replans=2)
CREW = Crew(
    name="crew",
    orchestrator=BOSS,
    workers=(Agent(name="lookup", instructions="Look up."), Agent(name="sums", instructions="Add.")),
)
PLAN = Plan(
    assignments=(
        Assignment(id="1", worker="lookup", goal="Which films?"),
        Assignment(id="2", worker="lookup", goal="Who directed {1}?", each="1"),
        Assignment(id="3", worker="lookup", goal="When was the first?"),
        Assignment(id="4", worker="sums", goal="Add 5 to {3}", needs=("3",)),
    )
)
REPLACEMENT = {"worker": "sums", "goal": "The year of Alien?", "needs": [1], "replaces": "3"}


def run(plan: Plan, reports: dict[str, Report], **outputs: str | list[str]) -> dict[str, Report]:
    """Does all that can be done: an assignment gives the output of its id (`_2_1` for 2.1), or fails without one."""
    while (wave := next_wave(plan, reports, max_branches=9)).ready or wave.closed:
        for report in wave.closed:
            reports = reports | {report.assignment.id: report}
        for one in wave.ready:
            output = outputs.get("_" + one.id.replace(".", "_"))
            status = "failed" if output is None else "ok"
            error = "broke" if output is None else None
            fields = {"assignment": one, "status": status, "output": output, "error": error}
            reports = reports | {one.id: Report.model_validate(fields)}
    return reports


HALF_DONE = run(PLAN, {}, _1=["Alien", "Jaws"], _2_1="Scott", _2_2="Spielberg")


def wire(*rows: dict[str, Any]) -> str:
    return json.dumps({"assignments": rows})


def extended(*rows: dict[str, Any]) -> Plan:
    return read_replan(wire(*rows), CREW, PLAN, HALF_DONE)


def test_a_replacement_makes_a_failure_good_and_what_waited_for_it_goes_on() -> None:
    assert [(report.assignment.id, report.status) for report in lost(PLAN, HALF_DONE)] == [
        ("3", "failed"),
        ("4", "skipped"),
    ]
    plan = extended(REPLACEMENT)
    reports = run(plan, HALF_DONE, _5="1979", _4="1984")
    assert lost(plan, reports) == ()
    assert reports["4"].assignment.goal == "Add 5 to 1979"
    assert conclude(plan, reports).text == "Alien: Scott; Jaws: Spielberg; 1984"


def test_what_ended_well_is_not_done_again() -> None:
    plan = extended(REPLACEMENT)
    assert [one.id for one in next_wave(plan, HALF_DONE, max_branches=9).ready] == ["5"]
    reports = run(plan, HALF_DONE, _5="1979", _4="1984")
    assert [one for one in HALF_DONE if reports[one] != HALF_DONE[one]] == ["4"]


def test_a_replacement_that_fails_can_be_replaced_in_turn() -> None:
    plan = extended(REPLACEMENT)
    reports = run(plan, HALF_DONE)
    assert [report.assignment.id for report in lost(plan, reports)] == ["3", "4"]
    again = wire({"worker": "lookup", "goal": "Its year?", "replaces": "3"})
    plan = read_replan(again, CREW, plan, reports)
    assert lost(plan, run(plan, reports, _6="1979", _4="1984")) == ()


def test_a_failed_branch_of_a_fan_out_is_replaced_under_its_value() -> None:
    reports = run(PLAN, {}, _1=["Alien", "Jaws"], _2_1="Scott", _3="1979", _4="1984")
    row = {"worker": "lookup", "goal": "Jaws, by whom?", "replaces": "2.2"}
    plan = read_replan(wire(row), CREW, PLAN, reports)
    assert conclude(plan, run(plan, reports, _5="Spielberg")).text == "Alien: Scott; Jaws: Spielberg; 1984"


def test_a_failure_that_others_went_on_without_cannot_be_replaced() -> None:
    plan = Plan(assignments=(*PLAN.assignments[:2], Assignment(id="3", worker="sums", goal="Count {2}", needs=("2",))))
    reports = run(plan, {}, _1=["Alien", "Jaws"], _2_1="Scott", _3="1")
    with pytest.raises(UnreadableReplyError, match=r"cannot replace '2.2'; it can replace: none"):
        read_replan(wire({"worker": "lookup", "goal": "x", "replaces": "2.2"}), CREW, plan, reports)


def test_what_would_change_something_that_others_went_on_with_cannot_be_replaced_either() -> None:
    plan = Plan(
        assignments=(
            Assignment(id="1", worker="lookup", goal="Which films?"),
            Assignment(id="2", worker="lookup", goal="Who directed {1}?", each="1"),
            Assignment(id="3", worker="lookup", goal="Which year?"),
            Assignment(id="4", worker="sums", goal="Which of {2} worked in {3}?", needs=("2", "3")),
        )
    )
    reports = run(plan, {}, _1=["Alien", "Jaws"], _2_2="Spielberg")
    hint = {"worker": "lookup", "goal": "Where to look?"}
    again = {"worker": "lookup", "goal": "Who directed Alien, by {5}?", "needs": [5], "replaces": "2.1"}
    year = {"worker": "lookup", "goal": "The year of Jaws?", "replaces": "3"}
    plan = read_replan(wire(hint, again, year), CREW, plan, reports)
    # Without the hint nobody looks again, while the year is found: 4 goes on with one director.
    reports = run(plan, reports, _7="1975", _4="Spielberg")
    assert {id: report.status for id, report in reports.items() if id in "456"} == {
        "4": "ok",
        "5": "failed",
        "6": "skipped",
    }
    with pytest.raises(UnreadableReplyError, match="cannot replace '5'; it can replace: none"):
        read_replan(wire({**hint, "goal": "Where else?", "replaces": "5"}), CREW, plan, reports)


def test_a_fan_out_over_nothing_has_gone_on_too() -> None:
    """Else a replacement could wait for it, and it for the replacement."""
    over_nothing = Assignment(id="4", worker="lookup", goal="{3} of {2}", needs=("2",), each="3")
    plan = Plan(assignments=(*PLAN.assignments[:3], over_nothing))
    reports = run(plan, {}, _1=["Alien", "Jaws"], _2_1="Scott", _3=[])
    row = {"worker": "lookup", "goal": "Jaws, by whom?", "needs": [4], "replaces": "2.2"}
    with pytest.raises(UnreadableReplyError, match=r"cannot replace '2.2'; it can replace: none"):
        read_replan(wire(row), CREW, plan, reports)


def test_new_assignments_may_need_what_ended_well_and_replace_it_in_the_answer() -> None:
    plan = Plan(assignments=PLAN.assignments[:2])
    reports = run(plan, {}, _1=["Alien"], _2_1="Scott")
    plan = read_replan(wire({"worker": "sums", "goal": "Count {2}", "needs": [2]}), CREW, plan, reports)
    assert conclude(plan, run(plan, reports, _3="1")).text == "1"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"worker": "lookup", "goal": "x", "needs": [3]}, "assignment 5 needs 3; it can only need an earlier one"),
        ({"worker": "lookup", "goal": "x", "needs": [5]}, "only need an earlier one"),
        ({"worker": "lookup", "goal": "x", "needs": [True]}, "only need an earlier one"),
        ({"worker": "lookup", "goal": "x", "replaces": "1"}, "cannot replace '1'; it can replace: 3"),
        ({"worker": "lookup", "goal": "x", "replaces": "4"}, "cannot replace '4'"),
        ({"worker": "lookup", "goal": "x", "replaces": 3}, "cannot replace 3"),
        ({"worker": "lookup", "goal": "x {1}", "each": 1, "replaces": "3"}, "cannot fan out"),
        ({"worker": "lookup", "goal": "Which films?"}, "asks again for what ended well before"),
        ({"worker": "pilot", "goal": "x"}, "names worker 'pilot'"),
    ],
)
def test_a_replan_that_cannot_be_followed_is_refused_by_its_reader_and_by_its_schema(
    row: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnreadableReplyError, match=reason):
        extended(row)
    if "again" not in reason and row.get("needs") != [True]:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"assignments": [row]}, replan_schema(CREW, PLAN, HALF_DONE))


def test_one_failure_takes_one_replacement() -> None:
    with pytest.raises(UnreadableReplyError, match="it can replace: none"):
        extended(REPLACEMENT, REPLACEMENT | {"goal": "Its year?"})


def test_the_schema_takes_replacements_additions_and_nothing_at_all() -> None:
    schema = replan_schema(CREW, PLAN, HALF_DONE)
    more = {"worker": "lookup", "goal": "x {5}", "needs": [5], "each": 2}
    for rows in ([], [REPLACEMENT], [REPLACEMENT, more]):
        jsonschema.validate({"assignments": rows}, schema)
    assert extended(REPLACEMENT, more).replans == (4,)


async def test_the_orchestrator_is_told_how_each_assignment_ended_and_what_is_wrong(desk: Any) -> None:
    at_work = desk(wire(REPLACEMENT))
    problems = [Problem(source="judge", reason="the year is missing")]
    plan = await replan(CREW, BOSS, "Films?", PLAN, HALF_DONE, at_work, problems)
    assert plan == extended(REPLACEMENT)
    system, task, planned, state = at_work.seen[0]
    assert (system.role, task.content, json.loads(planned.content)["assignments"][1]["each"]) == ("system", "Films?", 1)
    assert state.content.splitlines()[:8] == [
        "What came of your plan:",
        "3 (lookup) failed: broke",
        "4 (sums) skipped: it needs assignment 3, which did not end well",
        "1 (lookup) ok: Alien, Jaws",
        "2.1 (lookup) ok: Scott",
        "2.2 (lookup) ok: Spielberg",
        "The answer so far: Alien: Scott; Jaws: Spielberg",
        "What is wrong with it: the year is missing",
    ]
    assert "numbered from 5 on" in state.content


async def test_an_orchestrator_with_nothing_to_add_ends_the_replanning(desk: Any) -> None:
    assert await replan(CREW, BOSS, "Films?", PLAN, HALF_DONE, desk(wire())) is None


async def test_a_replan_is_repaired_once_with_the_reason(desk: Any) -> None:
    at_work = desk(wire({"worker": "lookup", "goal": "x", "replaces": "1"}), wire(REPLACEMENT))
    assert await replan(CREW, BOSS, "Films?", PLAN, HALF_DONE, at_work) == extended(REPLACEMENT)
    assert at_work.seen[1][-1].content.endswith("cannot replace '1'; it can replace: 3")
    with pytest.raises(PlanError, match="no usable plan: it is not valid JSON"):
        await replan(CREW, BOSS, "Films?", PLAN, HALF_DONE, desk("{", "{"))
    with pytest.raises(ModelError):
        await replan(CREW, BOSS, "Films?", PLAN, HALF_DONE, desk(ModelError("gone")))


def test_a_replan_is_asked_for_only_where_something_is_to_be_made_good() -> None:
    reports = run(PLAN, {}, _1=[], _3="1979", _4="1984")
    assert not may_replan(BOSS, PLAN, reports, ())  # A list without values is no failure.
    assert may_replan(BOSS, PLAN, reports, [Problem(source="verify", reason="it is no number")])
    assert may_replan(BOSS, PLAN, HALF_DONE, ())
    assert may_replan(BOSS, PLAN, run(PLAN, {}), ())
    assert not may_replan(BOSS.model_copy(update={"replans": 0}), PLAN, HALF_DONE, ())


@pytest.mark.parametrize("status", ["cancelled", "over_budget"])
def test_what_was_cancelled_or_had_no_budget_is_no_reason_to_replan(status: str) -> None:
    report = Report.model_validate({"assignment": PLAN.assignments[0], "status": status, "error": "no"})
    assert not may_replan(BOSS, PLAN, run(PLAN, {"1": report}, _3="1979", _4="1984"), ())


def test_replanning_ends_at_its_limit_and_where_the_last_one_brought_nothing_new() -> None:
    plan = extended(REPLACEMENT)
    failed = run(plan, HALF_DONE)
    assert stalled(plan, failed)
    assert not may_replan(BOSS, plan, failed, ())

    good = run(plan, HALF_DONE, _5="1979")
    assert not stalled(plan, good)
    assert may_replan(BOSS, plan, good, ())
    assert not may_replan(BOSS.model_copy(update={"replans": 1}), plan, good, ())

    repeated = extended({"worker": "sums", "goal": "Which films?"})
    assert stalled(repeated, run(repeated, HALF_DONE, _5=["Alien", "Jaws"]))
    assert not stalled(repeated, run(repeated, HALF_DONE, _5=["Alien", "Jaws", "Heat"]))
