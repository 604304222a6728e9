"""The listing: many traces, one in a row."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from journeyman.traces.base import Record
from journeyman.traces.messages import Usage
from journeyman.traces.reports.wording import age, duration, line, scalar, status_text
from journeyman.traces.trace import Ending, Purpose, Trace, ending

SCORE = "score"
"""The label that the table shows."""


class Summary(Record):
    """One trace in a row."""

    trace_id: str
    started_ns: int
    seconds: float
    crew: str | None
    task_id: str | None
    family: str | None
    prompt: str | None
    purpose: Purpose | None
    """What it was made for; None where nothing says so."""
    status: Ending
    score: bool | float | str | None
    agents: int
    in_ring: int
    """Agents whose parents lead back to themselves."""
    turns: int
    usage: Usage


def summarise(trace: Trace) -> Summary:
    score = trace.label(SCORE)
    return Summary(
        trace_id=trace.trace_id,
        started_ns=trace.started_ns,
        seconds=trace.seconds,
        crew=trace.crew,
        task_id=trace.task and trace.task.id,
        family=trace.task and trace.task.family,
        prompt=trace.task and trace.task.prompt,
        purpose=trace.origin and trace.origin.purpose,
        status=ending(trace),
        score=score and score.value,
        agents=len({trajectory.agent for trajectory in trace.trajectories}),
        in_ring=sum(trajectory.in_ring for trajectory in trace.trajectories),
        turns=len(trace.turns),
        usage=trace.usage,
    )


def table(summaries: Iterable[Summary], *, now_ns: int) -> Table:
    """A row for each trace, in the order given."""
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0), expand=True)
    grid.add_column("TRACE", no_wrap=True, style="cyan")
    grid.add_column("AGE", justify="right", no_wrap=True)
    grid.add_column("CREW", no_wrap=True, max_width=12, overflow="ellipsis")
    grid.add_column("TASK", no_wrap=True, ratio=1, min_width=16, overflow="ellipsis")
    grid.add_column("STATUS", no_wrap=True)
    for name in ("SCORE", "AGENTS", "TURNS", "TOKENS", "TIME"):
        grid.add_column(name, justify="right", no_wrap=True)
    for summary in summaries:
        grid.add_row(
            summary.trace_id[:8],
            age(now_ns - summary.started_ns),
            Text(summary.crew or "?"),
            Text(line(summary.prompt or "?")),
            status_text(summary.status),
            scalar(summary.score),
            str(summary.agents),
            str(summary.turns),
            f"{summary.usage.tokens:,}",
            duration(summary.seconds),
        )
    return grid
