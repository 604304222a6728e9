"""The scheduler, over any plan and any pattern of failures."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.agents.schedule import lost, next_wave, settled


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


def test_a_result_that_the_goal_does_not_mention_is_put_below_it() -> None:
    first, second = assignment("1"), assignment("2")
    plan = Plan(assignments=(first, second, assignment("3", "Add 5 to {1}", needs=("1", "2"))))
    reports = {"1": ok(first, "3"), "2": ok(second, "a", "b")}
    assert next_wave(plan, reports, max_branches=9).ready[0].goal == "Add 5 to 3\nResult of 2: a, b"
    fan_out = Plan(assignments=(first, assignment("2", "Who directed it?", each="1")))
    assert next_wave(fan_out, reports | {"2": ok(second)}, max_branches=9).ready[0].goal.endswith("\nResult of 1: 3")


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


FAILURES = ("failed", "timeout", "truncated", "blocked", "cancelled", "over_budget")


def carry_out(plan: Plan, reports: dict[str, Report], draw: Callable[[st.SearchStrategy[Any]], Any]) -> list[str]:
    """Carries out all of `plan` into `reports`, failing at random; the ids that were done, in their order.

    Any part of a wave may be done before the next is asked for, as after a crash.
    """
    done: list[str] = []
    for _ in range(500):
        wave = next_wave(plan, reports, max_branches=3)
        assert all(
            reports.get(report.assignment.id, report).status in {report.status, "skipped"} for report in wave.closed
        )
        reports |= {report.assignment.id: report for report in wave.closed}
        if not wave.ready:
            return done
        for one in draw(st.lists(st.sampled_from(wave.ready), min_size=1, unique=True)):
            good = {report.assignment.place for report in settled(plan, reports).values() if report.status == "ok"}
            assert all(need in good or empty(plan, need) for need in one.waits_for)
            status = draw(st.sampled_from(("ok", "ok", "ok", *FAILURES)))
            output = draw(st.lists(st.sampled_from("abcd"), max_size=4)) if status == "ok" else None
            fields = {"assignment": one, "status": status, "output": output, "error": None if output else "broke"}
            reports[one.id] = Report.model_validate(fields)
            done.append(one.id)
    raise AssertionError("it does not end")


def empty(plan: Plan, id: str) -> bool:
    """Whether that is a fan-out, which over no values has no report."""
    return next(one for one in plan.assignments if one.id == id).each is not None


def failed_wholly(plan: Plan, reports: dict[str, Report]) -> set[str]:
    own: dict[str, list[Report]] = {}
    for report in settled(plan, reports).values():
        own.setdefault(report.assignment.place, []).append(report)
    return {id for id, some in own.items() if all(report.status != "ok" for report in some)}


@given(plans(), st.data())
def test_in_any_plan_every_assignment_is_done_once_or_skipped_for_a_failure(plan: Plan, data: st.DataObject) -> None:
    reports: dict[str, Report] = {}
    done = carry_out(plan, reports, data.draw)
    assert len(done) == len(set(done))
    failed = failed_wholly(plan, reports)
    for one in plan.assignments:
        own = [report for report in reports.values() if report.assignment.place == one.id]
        assert any(report.status == "skipped" for report in own) == bool(failed & set(one.waits_for))
        assert own or empty(plan, one.id)
    assert {report.assignment.id for report in lost(plan, reports)} == {
        id for id, report in reports.items() if report.status != "ok"
    }


@given(plans(), st.data())
def test_after_any_replan_nothing_is_done_twice_and_only_what_is_still_lacking_counts_as_lost(
    plan: Plan, data: st.DataObject
) -> None:
    reports: dict[str, Report] = {}
    done = carry_out(plan, reports, data.draw)
    for _ in range(2):
        failures = [report.assignment.id for report in lost(plan, reports) if report.status != "skipped"]
        if not failures:
            break
        place = len(plan.assignments) + 1
        replaced = data.draw(st.lists(st.sampled_from(failures), unique=True, min_size=1, max_size=3))
        added = [assignment(str(place + n), f"again {place + n}", replaces=id) for n, id in enumerate(replaced)]
        plan = Plan(assignments=(*plan.assignments, *added), replans=(*plan.replans, place - 1))
        before = dict(reports)
        done += carry_out(plan, reports, data.draw)
        assert len(done) == len(set(done))
        assert all(reports[id] == report for id, report in before.items() if report.status != "skipped")
    failed = failed_wholly(plan, reports)
    for report in lost(plan, reports):
        stand_ins = [one.id for one in plan.assignments if one.replaces == report.assignment.id]
        assert all(reports[id].status != "ok" for id in stand_ins if id in reports)
        if report.status == "skipped":
            assert failed.intersection(report.assignment.waits_for)
