"""The critical path: the chain of steps that made a run take as long as it did.

Followed backwards from the end: what ended last before now is what was waited for. What it did not cover is the time
of the step above it. So the pieces lie end to end and add up to the run's duration, as in Zhang et al. 2022 (CRISP).
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Literal

from journeyman.traces.base import Record
from journeyman.traces.trace import ToolResult, Trace, Trajectory, Turn

Kind = Literal["run", "agent", "model", "tool"]


class Piece(Record):
    """A stretch of time in which one span alone was what the run waited for."""

    span_id: str | None
    """None for the run itself."""
    kind: Kind
    name: str
    """The crew, the agent, the policy asked, or the tool."""
    agent: str
    assignment: str | None = None
    started_ns: int
    ended_ns: int

    @property
    def seconds(self) -> float:
        return (self.ended_ns - self.started_ns) / 1e9


class Share(Record):
    """What one span had of the run's duration, apart from the spans below it."""

    span_id: str | None
    kind: Kind
    name: str
    agent: str
    assignment: str | None
    seconds: float


class CriticalPath(Record):
    trace_id: str
    pieces: tuple[Piece, ...]
    """In order of time, each beginning where the one before it ended."""

    @property
    def seconds(self) -> float:
        """The run's duration."""
        return sum(piece.ended_ns - piece.started_ns for piece in self.pieces) / 1e9

    @property
    def span_ids(self) -> frozenset[str]:
        return frozenset(piece.span_id for piece in self.pieces if piece.span_id is not None)

    @property
    def shares(self) -> tuple[Share, ...]:
        """The spans on the path in the order in which they began to matter."""
        nanoseconds: dict[str | None, int] = defaultdict(int)
        first: dict[str | None, Piece] = {}
        for piece in self.pieces:
            nanoseconds[piece.span_id] += piece.ended_ns - piece.started_ns
            first.setdefault(piece.span_id, piece)
        return tuple(
            Share(**first[span].model_dump(exclude={"started_ns", "ended_ns"}), seconds=nanoseconds[span] / 1e9)
            for span in first
        )


def critical_path(trace: Trace) -> CriticalPath:
    """The chain that determined how long the run took; of parallel steps, those that ended last."""
    below: dict[str | None, list[Piece]] = defaultdict(list)
    for parent, piece in _spans(trace):
        below[parent].append(piece)
    for pieces in below.values():
        pieces.sort(key=lambda piece: (-piece.ended_ns, piece.started_ns, piece.span_id or ""))
    run = Piece(
        span_id=None,
        kind="run",
        name=trace.crew or "",
        agent="",
        started_ns=trace.started_ns,
        ended_ns=max(trace.started_ns, trace.ended_ns),
    )
    pieces = list(_backwards(run, run.started_ns, run.ended_ns, below))
    return CriticalPath(trace_id=trace.trace_id, pieces=tuple(reversed(pieces)))


def _backwards(span: Piece, start: int, end: int, below: dict[str | None, list[Piece]]) -> Iterator[Piece]:
    """The pieces of `span` between `start` and `end`, the last one first."""
    now = end
    for child in below.get(span.span_id, ()):
        ended = min(child.ended_ns, end)
        began = max(child.started_ns, start)
        if ended > now or ended <= began:
            continue  # It ran beside what is on the path already, or took no time of this span's.
        if ended < now:
            yield span.model_copy(update={"started_ns": ended, "ended_ns": now})
        yield from _backwards(child, began, ended, below)
        now = began
    if now > start:
        yield span.model_copy(update={"started_ns": start, "ended_ns": now})


def _spans(trace: Trace) -> Iterator[tuple[str | None, Piece]]:
    """Every span of the trace with the id of the one above it."""
    known = {trajectory.span_id for trajectory in trace.trajectories}
    for trajectory in trace.trajectories:
        own = trajectory.span_id
        above = trajectory.parent if trajectory.parent in known else None
        yield above, _piece(trajectory, "agent", trajectory.agent, trajectory)
        for turn in trajectory.turns:
            yield own, _piece(turn, "model", turn.policy, trajectory)
            for result in turn.tool_results:
                yield own, _piece(result, "tool", result.tool, trajectory)


def _piece(span: Trajectory | Turn | ToolResult, kind: Kind, name: str, trajectory: Trajectory) -> Piece:
    return Piece(
        span_id=span.span_id,
        kind=kind,
        name=name,
        agent=trajectory.agent,
        assignment=trajectory.assignment,
        started_ns=span.started_ns,
        ended_ns=span.ended_ns,
    )
