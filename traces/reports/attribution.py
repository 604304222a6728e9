"""Attribution: of the runs that were not solved, which agent's which step broke first, and how."""

from collections import defaultdict
from typing import Any, Literal

from journeyman.traces import attributes as a
from journeyman.traces.base import Record
from journeyman.traces.reports.scope import Scope
from journeyman.traces.storage.store import TraceStore

Kind = Literal[
    "tool failed",
    "tool given invalid arguments",
    "tool timed out",
    "tool call refused",
    "tool call of unknown effect",
    "reply not usable",
    "reply cut off",
    "model call failed",
    "model call timed out",
    "no plan",
    "agent failed",
    "agent timed out",
    "over budget",
    "blocked",
    "cancelled",
    "run failed",
    "wrong answer, no step failed",
    "waits to be taken up again",
    "never finished",
]
"""What went wrong; those from `blocked` on are also of runs in which no step says that it failed."""


class Break(Record):
    """Unsolved runs that broke first in the same place and in the same way."""

    kind: Kind
    agent: str | None
    """None where no step failed."""
    step: int | None
    """The agent's turn, from 1, in which it happened; None where it was before a turn, or nowhere."""
    tool: str | None = None
    runs: int
    recovered: int
    """Runs in which that agent's own work ended well all the same."""
    example: str
    """Trace id of the newest of them."""


class Attribution(Record):
    runs: int
    unsolved: int
    breaks: tuple[Break, ...]
    """The most frequent first; together they are the unsolved runs."""

    def by_agent(self) -> dict[str, int]:
        """Runs that broke first in each agent's work, the most first; `-` is for none."""
        runs: dict[str, int] = defaultdict(int)
        for found in self.breaks:
            runs[found.agent or "-"] += found.runs
        return dict(sorted(runs.items(), key=lambda row: (-row[1], row[0])))


def attribute(store: TraceStore, scope: Scope) -> Attribution:
    """First-error attribution: of each unsolved run the failed span that ended first, of two the inner one.

    What fails ends before what it makes fail, so the first to end is the first cause on the record. It need not be the
    decisive one: `recovered` says in how many runs the agent got over it.
    """
    breaks: dict[tuple[Any, ...], Break] = {}
    for row in scope.ask(store, _FIRST_ERRORS):
        kind = failure_kind(**{name: row.pop(name) for name in ("operation", "error_type", "finish_reason", "status")})
        found = Break(kind=kind, **row)
        key = (kind, found.agent, found.step, found.tool)
        known = breaks.get(key)
        breaks[key] = found if known is None else _merged(known, found)
    runs = scope.ask(store, "SELECT count(*) AS runs FROM chosen")[0]["runs"]
    ranked = sorted(
        breaks.values(), key=lambda one: (-one.runs, one.agent or "", one.kind, one.step or 0, one.tool or "")
    )
    return Attribution(runs=runs, unsolved=sum(one.runs for one in ranked), breaks=tuple(ranked))


def failure_kind(
    *, operation: str | None, error_type: str | None, finish_reason: str | None = None, status: str | None = None
) -> Kind:
    """What kind of failure a span is; `status` is the run's own: it tells of a call that was cancelled why it was, and
    speaks for a run in which no span failed."""
    why = (error_type or "").lower()
    if "cancelled" in why and "cancelled" in (why, status):
        return "cancelled"
    if "budget" in why:
        return "over budget"
    late = "timeout" in why or "timed_out" in why or "cancelled" in why
    match operation:
        case "execute_tool":
            if late:
                return "tool timed out"
            return _TOOL_CALLS.get(why, "tool failed")
        case "chat" | "generate_content" | "text_completion":
            if finish_reason == "length" or "truncated" in why:
                return "reply cut off"
            if "unreadable" in why:
                return "reply not usable"
            return "model call timed out" if late else "model call failed"
        case "plan":
            return _ENDINGS.get(why) or ("agent timed out" if late else "no plan")
        case "invoke_agent":
            return _ENDINGS.get(why) or ("agent timed out" if late else "agent failed")
        case None:
            return _WITHOUT_FAILURE.get(status or "", "run failed")
        case _:
            return _ENDINGS.get(why, "run failed")


_TOOL_CALLS: dict[str, Kind] = {
    "invalid": "tool given invalid arguments",
    "denied": "tool call refused",
    "unknown": "tool call of unknown effect",
}
_ENDINGS: dict[str, Kind] = {"over_budget": "over budget", "blocked": "blocked", "cancelled": "cancelled"}
_WITHOUT_FAILURE: dict[str, Kind] = {
    **_ENDINGS,
    "ok": "wrong answer, no step failed",
    "unfinished": "never finished",
    "needs_input": "waits to be taken up again",
    "paused": "waits to be taken up again",
}


def _merged(one: Break, other: Break) -> Break:
    return one.model_copy(update={"runs": one.runs + other.runs, "recovered": one.recovered + other.recovered})


_FIRST_ERRORS = f"""
, unsolved AS (SELECT trace_id, status, started_ns FROM chosen WHERE NOT solved)
, first_errors AS MATERIALIZED (
    SELECT trace_id, span_id, parent_id, operation, agent, tool, error_type, finish_reason,
        if(operation IN {(*a.INFERENCE, "execute_tool")}, start_ns, end_ns) AS failed_ns
    FROM spans SEMI JOIN unsolved USING (trace_id)
    WHERE status = 'error' AND operation IS NOT NULL AND coalesce(error_type, '') NOT IN ('needs_input', 'paused')
    QUALIFY row_number() OVER (PARTITION BY trace_id ORDER BY end_ns, start_ns DESC, span_id) = 1
)
, called AS MATERIALIZED (
    SELECT trace_id, span_id, trajectory_id, operation, start_ns FROM calls SEMI JOIN first_errors USING (trace_id)
)
, owned AS (
    SELECT first_errors.*, coalesce(
            called.trajectory_id, if(first_errors.operation = 'invoke_agent', span_id, parent_id)
        ) AS trajectory_id
    FROM first_errors LEFT JOIN called USING (trace_id, span_id)
)
, placed AS (
    SELECT owned.trace_id, any_value(owned) AS owned, count(called.span_id) AS turns
    FROM owned LEFT JOIN called ON called.trace_id = owned.trace_id AND called.trajectory_id = owned.trajectory_id
        AND called.operation IN {a.INFERENCE} AND called.start_ns <= owned.failed_ns
    GROUP BY owned.trace_id
)
SELECT owned.operation, owned.error_type, owned.finish_reason, unsolved.status, nullif(owned.agent, '') AS agent,
    owned.tool, nullif(turns, 0) AS step, count(*) AS runs,
    count(*) FILTER (agents.run_status = 'ok' AND owned.operation <> 'invoke_agent') AS recovered,
    arg_max(unsolved.trace_id, unsolved.started_ns) AS example
FROM unsolved
LEFT JOIN placed USING (trace_id)
LEFT JOIN agents ON agents.trace_id = unsolved.trace_id AND agents.span_id = owned.trajectory_id
GROUP BY ALL
"""
