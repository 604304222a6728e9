"""Capture: which model calls may become training data, and of those that may not, why."""

from journeyman.traces.base import Record
from journeyman.traces.reports.scope import Scope
from journeyman.traces.storage.store import TraceStore


class Captured(Record):
    """Model calls of one agent that may all be learned from, or may not for the same reason."""

    agent: str
    refusal: str | None
    """The capture contract's reason; None where they may be learned from."""
    turns: int


def captured(store: TraceStore, scope: Scope) -> tuple[Captured, ...]:
    """By agent, those that may be learned from first, then the reasons, the most frequent first."""
    rows = scope.ask(store, _CAPTURED)
    return tuple(Captured(**row) for row in rows)


_CAPTURED = """
, judged AS (
    SELECT coalesce(nullif(agent, ''), '?') AS agent, CASE
            WHEN refusal IS NOT NULL THEN refusal
            WHEN nullif(agent, '') IS NULL THEN 'no agent'
            WHEN trajectory_status IS NULL THEN 'trajectory unfinished'
        END AS refusal
    FROM turns SEMI JOIN chosen USING (trace_id)
)
, counted AS (SELECT agent, refusal, count(*) AS turns FROM judged GROUP BY ALL)
SELECT * FROM counted ORDER BY agent, refusal IS NOT NULL, turns DESC, refusal
"""
