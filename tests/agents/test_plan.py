"""Plans: what a replacement stands in for."""

from journeyman.agents.plan import Assignment, Plan


def test_a_replacement_knows_all_that_was_tried_before_it() -> None:
    def one(place: int, replaces: str | None = None) -> Assignment:
        return Assignment(id=str(place), worker="w", goal="g", replaces=replaces)

    plan = Plan(assignments=(one(1), one(2), one(3, "1"), one(4, "2.1"), one(5, "1"), one(6, "4"), one(7, "1")))
    assert [plan.tried(assignment) for assignment in plan.assignments] == [
        (),
        (),
        ("1",),
        ("2.1",),
        ("1", "3"),
        ("2.1", "4"),
        ("1", "3", "5"),
    ]
