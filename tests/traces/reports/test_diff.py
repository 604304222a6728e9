"""The diff: what corresponds in two runs of one task, and where they parted."""

from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from journeyman.traces.assemble import assemble
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.errors import StoreError
from journeyman.traces.messages import Message, Usage
from journeyman.traces.reports.diff import Diff, Step, diff
from journeyman.traces.reports.shown.diff_table import diff_table
from journeyman.traces.trace import Task, ToolResult, Trace, Trajectory, Turn

Golden = Callable[[str], list[SpanRecord]]

TASK = Task(id="t", prompt="Which rivers?")


def turn(reply: str, *tools: ToolResult, policy: str = "base", seconds: float = 1.0) -> Turn:
    return Turn(
        span_id=f"turn {reply}",
        agent="lookup",
        policy=policy,
        served_by=policy,
        messages=(),
        response=Message(role="assistant", content=reply),
        tool_results=tools,
        usage=Usage(input_tokens=5),
        started_ns=0,
        ended_ns=round(seconds * 1e9),
    )


def search(query: str, content: str = "found") -> ToolResult:
    return ToolResult(
        span_id=f"search {query}",
        tool="search",
        arguments={"query": query},
        status="ok",
        content=content,
        started_ns=0,
        ended_ns=1,
    )


def work(assignment: str, goal: str, *turns: Turn, started_ns: int = 0) -> Trajectory:
    return Trajectory(
        span_id=f"work {assignment}",
        agent="lookup",
        parent="boss",
        assignment=assignment,
        goal=goal,
        status="ok",
        turns=turns,
        started_ns=started_ns,
        ended_ns=10**9,
    )


def run(*works: Trajectory, plan: Any = None, task: Task = TASK) -> Trace:
    boss = Trajectory(
        span_id="boss", agent="boss", parent=None, status="ok", plan=plan, turns=(), started_ns=0, ended_ns=10**9
    )
    return Trace(trace_id="0" * 32, task=task, trajectories=(boss, *works), outcome=None, started_ns=0, ended_ns=10**9)


def found(steps: Diff) -> list[tuple[str, str, list[str]]]:
    """What differs below the run as a whole."""
    return [
        (step.name, step.side, [change.field for change in step.changes]) for step in steps.steps[1:] if not step.same
    ]


def text(steps: Diff, **options: Any) -> str:
    console = Console(width=120, highlight=False)
    with console.capture() as capture:
        console.print(diff_table(steps, **options))
    return capture.get()


def test_a_run_is_the_same_as_itself(golden: Golden) -> None:
    trace = assemble(golden("learned"))
    steps = diff(trace, trace)
    assert all(step.same for step in steps.steps)
    assert steps.first is None
    assert text(steps).strip() == "21 steps the same, 0 not"


def test_branches_correspond_by_their_place_whatever_began_first() -> None:
    ours = run(work("2.1", "Riga", turn("a")), work("2.2", "Vilnius", turn("b"), started_ns=5))
    theirs = run(work("2.2", "Vilnius", turn("b")), work("2.1", "Riga", turn("c"), started_ns=5))
    assert found(diff(ours, theirs)) == [("turn 1", "both", ["reply"])]


def test_an_assignment_that_one_run_lacks_shifts_none_of_the_others() -> None:
    ours = run(work("1", "Riga", turn("a")), work("2", "Tallinn", turn("b")), work("3", "Vilnius", turn("c")))
    theirs = run(work("1", "Riga", turn("a")), work("2", "Vilnius", turn("c")))
    assert found(diff(ours, theirs)) == [("lookup 2", "a", []), ("turn 1", "a", [])]


def test_what_an_agent_was_told_to_do_differs_by_field() -> None:
    def plan(goal: str) -> Any:
        return {"assignments": [{"id": "1", "worker": "lookup", "goal": goal, "each": None, "needs": []}]}

    steps = diff(run(plan=plan("rivers")), run(plan=plan("lakes")))
    assert found(steps) == [("assignment 1", "both", ["goal"])]
    assert steps.first is not None and steps.first.changes[0].b == "lakes"


def test_tool_calls_differ_by_arguments_or_by_result() -> None:
    ours = run(work("1", "Riga", turn("a", search("Riga"))))
    theirs = run(work("1", "Riga", turn("a", search("Riga river"))))
    assert found(diff(ours, theirs)) == [("search", "both", ["arguments"])]
    theirs = run(work("1", "Riga", turn("a", search("Riga", "nothing"))))
    assert found(diff(ours, theirs)) == [("search", "both", ["result"])]


def test_calls_of_one_turn_correspond_whichever_a_person_had_to_see_first() -> None:
    ours = run(work("1", "Riga", turn("a", search("Riga"), search("Jelgava"))))
    theirs = run(work("1", "Riga", turn("a", search("Jelgava"), search("Riga"))))
    assert found(diff(ours, theirs)) == []


def test_an_agent_that_went_through_its_work_again_in_a_later_part_of_a_run_did_it_once() -> None:
    def judged(span_id: str, parent: str, *turns: Turn, started_ns: int) -> Trajectory:
        update = {"span_id": span_id, "agent": "judge", "assignment": None, "parent": parent, "started_ns": started_ns}
        return work("", "", *turns).model_copy(update=update)

    whole = run(judged("1", "boss", turn("a"), started_ns=1), judged("2", "boss", turn("b"), started_ns=5))
    first = whole.trajectories[0].model_copy(update={"status": "needs_input"})
    again = first.model_copy(update={"span_id": "boss again", "status": "ok", "started_ns": 2})
    parts = (
        judged("1", "boss", turn("a"), started_ns=1),
        judged("1 again", "boss again", started_ns=3),
        judged("2", "boss again", turn("b"), started_ns=5),
    )
    assert found(diff(whole, whole.model_copy(update={"trajectories": (first, again, *parts)}))) == []


def test_another_policy_or_a_slower_call_is_a_difference_but_not_where_the_runs_parted() -> None:
    ours = run(work("1", "Riga", turn("a"), turn("b")))
    theirs = run(work("1", "Riga", turn("a", policy="lookup@1", seconds=9.0), turn("c")))
    steps = diff(ours, theirs)
    assert found(steps) == [("turn 1", "both", ["policy", "seconds"]), ("turn 2", "both", ["reply"])]
    assert steps.first == next(step for step in steps.steps if step.name == "turn 2")


def test_a_difference_in_time_that_the_machine_makes_is_none() -> None:
    ours = run(work("1", "Riga", turn("a", seconds=5.0)))
    assert found(diff(ours, run(work("1", "Riga", turn("a", seconds=5.9))))) == []
    assert found(diff(ours, run(work("1", "Riga", turn("a", seconds=6.1))))) == [("turn 1", "both", ["seconds"])]


def test_an_extra_turn_is_told_as_one() -> None:
    ours = run(work("1", "Riga", turn("a"), turn("c")))
    theirs = run(work("1", "Riga", turn("a"), turn("b"), turn("c")))
    assert found(diff(ours, theirs)) == [("turn 2", "b", [])]


def test_runs_of_different_tasks_are_not_compared() -> None:
    with pytest.raises(StoreError, match=r"'t' and .* 'u'"):
        diff(run(), run(task=Task(id="u", prompt="Which lakes?")))


def test_two_golden_runs_differ_in_the_call_that_failed(golden: Golden) -> None:
    learned, taught = assemble(golden("learned")), assemble(golden("taught"))
    steps = diff(learned, taught.model_copy(update={"task": learned.task}))
    first = steps.first
    assert first is not None and (first.kind, first.name) == ("turn", "turn 2")
    assert {change.field for change in first.changes} >= {"reply", "error"}
    shown = text(steps)
    assert "turn 2 ▶" in shown
    assert "the server answered" in shown
    assert max(map(len, shown.splitlines())) <= 120
    assert Diff.model_validate_json(steps.model_dump_json()) == steps


def test_an_agent_that_did_the_same_is_named_above_a_turn_that_was_not() -> None:
    ours = run(work("1", "Riga", turn("a")))
    theirs = run(work("1", "Riga", turn("b")))
    lines = [line.split() for line in text(diff(ours, theirs)).splitlines()]
    assert [line[:2] for line in lines[1:4]] == [["run", "same"], ["boss", "same"], ["lookup", "1"]]


def test_a_reply_cannot_take_over_the_terminal() -> None:
    shown = text(diff(run(work("1", "Riga", turn("a"))), run(work("1", "Riga", turn("\x1b[2J[red]")))), full=True)
    assert "\x1b" not in shown and "[red]" in shown


def test_a_step_that_is_only_in_one_run_is_not_the_same() -> None:
    assert not Step(kind="turn", depth=1, name="turn 1", side="a").same
