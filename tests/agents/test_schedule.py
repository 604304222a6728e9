"""The scheduler: examples of what starts when. `test_any_plan.py` has its rules, over any plan and any failures."""

from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.agents.schedule import lost, next_wave


def assignment(id: str, goal: str = "do it", **fields: object) -> Assignment:
    return Assignment.model_validate({"id": id, "worker": "lookup", "goal": goal, **fields})


def ok(assignment: Assignment, *values: str) -> Report:
    return Report(assignment=assignment, status="ok", output=list(values))


def failed(assignment: Assignment) -> Report:
    return Report(assignment=assignment, status="failed", error="broke")


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
    closed = next_wave(plan, {"1": failed(first)}, max_branches=9).closed
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


def test_what_waited_for_several_failures_starts_once_all_their_replacements_have_ended() -> None:
    plan = Plan(
        assignments=(
            assignment("1"),
            assignment("2", "of {1}", each="1"),
            assignment("3"),
            assignment("4", "{2} and {3}", needs=("2", "3")),
            assignment("5", replaces="3"),
            assignment("6"),
            assignment("7", needs=("6",), replaces="2.1"),
        ),
        replans=(4,),
    )
    first, fan_out, third, _, fifth, sixth, seventh = plan.assignments
    branches = [fan_out.model_copy(update={"id": f"2.{n}", "value": v}) for n, v in ((1, "a"), (2, "b"))]
    reports = {"1": ok(first, "a", "b"), "2.1": failed(branches[0]), "2.2": ok(branches[1], "B"), "3": failed(third)}
    reports |= {"5": ok(fifth, "C"), "6": ok(sixth)}
    assert [ready.id for ready in next_wave(plan, reports, max_branches=9).ready] == ["7"]
    reports |= {"7": ok(seventh, "A")}
    assert [ready.goal for ready in next_wave(plan, reports, max_branches=9).ready] == ["A, B and C"]


def test_a_branch_over_the_limit_that_is_made_good_counts_like_any_other() -> None:
    plan = Plan(
        assignments=(
            assignment("1"),
            assignment("2", "of {1}", each="1"),
            assignment("3", "{2}", needs=("2",)),
            assignment("4", replaces="2.2"),
        ),
        replans=(3,),
    )
    first, fan_out, third, fourth = plan.assignments
    reports = {"1": ok(first, "a", "b"), "2.1": failed(fan_out.model_copy(update={"id": "2.1"}))}
    reports |= {report.assignment.id: report for report in next_wave(plan, reports, max_branches=1).closed}
    assert {id: report.status for id, report in reports.items()} == {
        "1": "ok",
        "2.1": "failed",
        "2.2": "over_budget",
        "3": "skipped",
    }
    reports |= {"4": ok(fourth, "B")}
    wave = next_wave(plan, reports, max_branches=1)
    assert [ready.goal for ready in wave.ready] == ["B"] and not wave.closed
    assert [report.assignment.id for report in lost(plan, reports | {"3": ok(third)})] == ["2.1"]
