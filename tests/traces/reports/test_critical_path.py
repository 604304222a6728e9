"""The critical path: it covers the run without gap or overlap, and follows what ended last."""

from collections.abc import Callable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from journeyman.traces.assemble import assemble
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.reports.critical_path import CriticalPath, critical_path
from journeyman.traces.trace import Trace, Trajectory, Turn

Golden = Callable[[str], list[SpanRecord]]


def turn(span_id: str, start: int, end: int) -> Turn:
    return Turn(
        span_id=span_id,
        agent="lookup",
        policy="base",
        served_by=None,
        messages=(),
        response=None,
        started_ns=start,
        ended_ns=end,
    )


def agent(span_id: str, start: int, end: int, *turns: Turn, parent: str | None = None) -> Trajectory:
    return Trajectory(
        span_id=span_id, agent=span_id, parent=parent, status="ok", turns=turns, started_ns=start, ended_ns=end
    )


def run(*agents: Trajectory, start: int = 0, end: int = 100) -> Trace:
    return Trace(trace_id="e" * 32, task=None, trajectories=agents, outcome=None, started_ns=start, ended_ns=end)


def pieces(path: CriticalPath) -> list[tuple[str | None, int, int]]:
    return [(piece.span_id, piece.started_ns, piece.ended_ns) for piece in path.pieces]


def test_of_parallel_agents_the_last_to_end_is_followed() -> None:
    path = critical_path(run(agent("slow", 10, 90), agent("fast", 10, 50)))
    assert pieces(path) == [(None, 0, 10), ("slow", 10, 90), (None, 90, 100)]


def test_what_was_waited_for_before_the_last_began_is_on_the_path_too() -> None:
    path = critical_path(run(agent("first", 0, 40), agent("beside", 0, 60), agent("last", 45, 100)))
    assert pieces(path) == [("first", 0, 40), (None, 40, 45), ("last", 45, 100)]


def test_an_agent_s_own_time_is_what_its_calls_leave() -> None:
    path = critical_path(run(agent("boss", 0, 100, turn("one", 10, 30), turn("two", 50, 100))))
    assert pieces(path) == [("boss", 0, 10), ("one", 10, 30), ("boss", 30, 50), ("two", 50, 100)]
    assert {share.span_id: share.seconds for share in path.shares} == {"boss": 3e-8, "one": 2e-8, "two": 5e-8}


def test_a_span_that_outlives_its_parent_counts_only_while_that_ran() -> None:
    path = critical_path(run(agent("boss", 0, 50, turn("late", 20, 80)), end=100))
    assert pieces(path) == [("boss", 0, 20), ("late", 20, 50), (None, 50, 100)]


def test_the_path_of_a_golden_run_goes_through_the_branch_that_failed_late(golden: Golden) -> None:
    trace = assemble(golden("learned"))
    path = critical_path(trace)
    assert path.seconds == trace.seconds
    assignments = [piece.assignment for piece in path.pieces if piece.kind == "model"]
    assert assignments == [None, "1", "1", "2.1", "2.1"]


def test_a_run_that_died_has_a_path_as_far_as_it_went(golden: Golden) -> None:
    trace = assemble(golden("crashed"))
    assert critical_path(trace).seconds == trace.seconds


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Any tree of agents with calls, also such as clocks that jump or spans that were lost would leave."""
    moments = st.integers(0, 60)
    agents: list[Trajectory] = []
    for number in range(draw(st.integers(0, 6))):
        above = draw(st.sampled_from([None, "lost", *(one.span_id for one in agents)]))
        calls = tuple(turn(f"t{number}.{k}", draw(moments), draw(moments)) for k in range(draw(st.integers(0, 4))))
        agents.append(agent(f"a{number}", draw(moments), draw(moments), *calls, parent=above))
    start = draw(moments)
    return run(*agents, start=start, end=start + draw(moments))


@given(traces())
def test_the_pieces_lie_end_to_end_and_add_up_to_the_run(trace: Trace) -> None:
    path = critical_path(trace)
    for before, after in pairwise(path.pieces):
        assert before.ended_ns == after.started_ns
    assert all(piece.started_ns < piece.ended_ns for piece in path.pieces)
    assert sum(piece.ended_ns - piece.started_ns for piece in path.pieces) == trace.ended_ns - trace.started_ns
    if path.pieces:
        assert (path.pieces[0].started_ns, path.pieces[-1].ended_ns) == (trace.started_ns, trace.ended_ns)


@given(traces())
def test_a_span_is_on_the_path_only_within_its_own_time_and_its_parent_s(trace: Trace) -> None:
    times: dict[str | None, tuple[int, int]] = {None: (trace.started_ns, trace.ended_ns)}
    above: dict[str, str | None] = {}
    for one in trace.trajectories:
        times[one.span_id] = (one.started_ns, one.ended_ns)
        above[one.span_id] = one.parent if one.parent in times else None
        for call in one.turns:
            times[call.span_id] = (call.started_ns, call.ended_ns)
            above[call.span_id] = one.span_id
    for piece in critical_path(trace).pieces:
        span: str | None = piece.span_id
        while span is not None:
            assert times[span][0] <= piece.started_ns <= piece.ended_ns <= times[span][1]
            span = above[span]


@given(traces())
def test_the_shares_are_the_same_time_by_span(trace: Trace) -> None:
    path = critical_path(trace)
    assert abs(sum(share.seconds for share in path.shares) - path.seconds) < 1e-9
    assert {share.span_id for share in path.shares} - {None} == path.span_ids
