"""Rings: runs with spans whose parents lead back to themselves, which no tree can hold as they are."""

from journeyman.traces.reports.scope import Scope
from journeyman.traces.storage.store import TraceStore


def rings(store: TraceStore, scope: Scope) -> tuple[str, ...]:
    """Trace ids, in the order of their start."""
    return tuple(row["trace_id"] for row in scope.ask(store, _RINGS))


# Somewhere in a ring a span begins no later than its child: one join rules out almost every run. Of the others, what is
# below no root, nor below a parent that is missing, lies in a ring or hangs from one.
_RINGS = """
, suspected AS (
    SELECT DISTINCT child.trace_id FROM spans AS child
    JOIN spans AS parent ON parent.trace_id = child.trace_id AND parent.span_id = child.parent_id
    SEMI JOIN chosen ON chosen.trace_id = child.trace_id
    WHERE parent.start_ns >= child.start_ns
)
, links AS (SELECT trace_id, span_id, parent_id, operation FROM spans SEMI JOIN suspected USING (trace_id))
SELECT DISTINCT trace_id, started_ns FROM (
    WITH RECURSIVE below_a_root AS (
        SELECT trace_id, span_id FROM links AS child
        ANTI JOIN links AS parent ON parent.trace_id = child.trace_id AND parent.span_id = child.parent_id
        UNION
        SELECT child.trace_id, child.span_id FROM links AS child
        JOIN below_a_root AS parent ON parent.trace_id = child.trace_id AND parent.span_id = child.parent_id
    )
    FROM links ANTI JOIN below_a_root USING (trace_id, span_id) WHERE operation IS NOT NULL
) JOIN chosen USING (trace_id) ORDER BY started_ns, trace_id
"""
