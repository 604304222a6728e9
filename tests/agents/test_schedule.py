"""The scheduler, over any plan and any pattern of failures."""

from hypothesis import given
from hypothesis import strategies as st

from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.agents.schedule import next_wave


def assignment(id: str, goal: str = "do it", **fields: object) -> Assignment:
    return Assignment.model_validate({"id": id, "worker": "lookup", "goal": goal, **fields})


def ok(assignment: Assignment, *values: str) -> Report:
    return Report(assignment=assignment, status="ok", output=list(values))


def test_independent_assignments_start_together() -> None:
    plan = Plan(assignments=(assignment("1"), assignment("2")))
    assert [ready.id for ready in next_wave(plan, {}, max_branches=9).ready] == ["1", "2"]


def test_a_fan_out_starts_one_branch_for_each_value() -> None:
    first = assignment("1")
    plan = Plan(assignments=(first, assignment("2", "Who directed {1}?", each="1")))
    ready = next_wave(plan, {"1": ok(first, "Alien", "Jaws")}, max_branches=9).ready
    assert [(branch.id, branch.goal, branch.value) for branch in ready] == [
        ("2.1", "Who directed Alien?", "Alien"),
        ("2.2", "Who directed Jaws?", "Jaws"),
    ]


def test_needs_put_the_whole_result_into_the_goal() -> None:
    first = assignment("1")
    plan = Plan(assignments=(first, assignment("2", "Add up {1}", needs=("1",))))
    assert next_wave(plan, {"1": ok(first, "3", "4")}, max_branches=9).ready[0].goal == "Add up 3, 4"


def test_braces_inside_a_result_are_text() -> None:
    first, second = assignment("1"), assignment("2")
    plan = Plan(assignments=(first, second, assignment("3", "{1} and {2}", needs=("1", "2"))))
    reports = {"1": ok(first, "{2}"), "2": ok(second, "b")}
    assert next_wave(plan, reports, max_branches=9).ready[0].goal == "{2} and b"


def test_a_fan_out_over_nothing_is_done_and_not_a_failure() -> None:
    first = assignment("1")
    plan = Plan(assignments=(first, assignment("2", each="1"), assignment("3", "sum {2}", needs=("2",))))
    wave = next_wave(plan, {"1": ok(first)}, max_branches=9)
    assert [ready.id for ready in wave.ready] == ["3"]
    assert wave.closed == ()


def test_dependents_of_a_failed_assignment_are_skipped() -> None:
    first = assignment("1")
    plan = Plan(assignments=(first, assignment("2", each="1"), assignment("3", needs=("2",))))
    failed = Report(assignment=first, status="failed", error="broke")
    closed = next_wave(plan, {"1": failed}, max_branches=9).closed
    assert [(report.assignment.id, report.status) for report in closed] == [("2", "skipped"), ("3", "skipped")]


def test_what_waits_for_a_fan_out_uses_the_branches_that_ended_well() -> None:
    first = assignment("1")
    plan = Plan(assignments=(first, assignment("2", "of {1}", each="1"), assignment("3", "sum {2}", needs=("2",))))
    reports = {"1": ok(first, "a", "b")}
    good, bad = next_wave(plan, reports, max_branches=9).ready
    reports |= {"2.1": ok(good, "7"), "2.2": Report(assignment=bad, status="timeout", error="late")}
    assert next_wave(plan, reports, max_branches=9).ready[0].goal == "sum 7"


def test_branches_over_the_limit_are_reported_as_over_budget() -> None:
    first = assignment("1")
    plan = Plan(assignments=(first, assignment("2", each="1")))
    wave = next_wave(plan, {"1": ok(first, "a", "b", "c")}, max_branches=2)
    assert [ready.id for ready in wave.ready] == ["2.1", "2.2"]
    assert [(report.assignment.id, report.status) for report in wave.closed] == [("2.3", "over_budget")]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    rows = []
    for place in range(1, draw(st.integers(1, 6)) + 1):
        earlier = st.sampled_from([str(n) for n in range(1, place)]) if place > 1 else st.nothing()
        needs = draw(st.lists(earlier, unique=True, max_size=3)) if place > 1 else []
        each = draw(st.none() | earlier) if place > 1 else None
        rows.append(assignment(str(place), "of {1}", needs=tuple(needs), each=each))
    return Plan(assignments=tuple(rows))


@given(plans(), st.data())
def test_in_any_plan_every_assignment_runs_once_or_is_skipped(plan: Plan, data: st.DataObject) -> None:
    reports: dict[str, Report] = {}
    for _ in range(len(plan.assignments) + 1):
        wave = next_wave(plan, reports, max_branches=3)
        if not wave.ready and not wave.closed:
            break
        new = {report.assignment.id: report for report in wave.closed}
        for ready in wave.ready:
            assert ready.id not in reports
            if data.draw(st.booleans()):
                new[ready.id] = ok(ready, *data.draw(st.lists(st.sampled_from("abcd"), max_size=4)))
            else:
                new[ready.id] = Report(assignment=ready, status="failed", error="broke")
        assert not new.keys() & reports.keys()
        reports |= new
    assert next_wave(plan, reports, max_branches=3) == next_wave(plan, {}, max_branches=3).model_copy(
        update={"ready": (), "closed": ()}
    )
    failed = {
        a.id
        for a in plan.assignments
        if (own := [r for r in reports.values() if r.assignment.id.split(".")[0] == a.id])
        and all(r.status != "ok" for r in own)
    }
    for a in plan.assignments:
        own = [r for r in reports.values() if r.assignment.id.split(".")[0] == a.id]
        skipped = any(r.status == "skipped" for r in own)
        assert skipped == bool(failed & set(a.waits_for))
