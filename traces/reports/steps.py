"""Steps: how often each step of a run goes right, and what that alone would make of whole runs.

If steps failed independently and nothing were ever repaired, a run of n steps would succeed with the product of the
accuracies of its n positions. What is observed differs: above it agents repair what failed, below it steps that look
right add up to a wrong answer. The difference is the compounding gap.
"""

from journeyman.traces import attributes as a
from journeyman.traces.base import Record
from journeyman.traces.reports.scope import OVER, Scope
from journeyman.traces.storage.store import TraceStore


class Position(Record):
    """The steps (model and tool calls) that came k-th in their runs, in order of their start."""

    position: int
    """From 1."""
    steps: int
    right: int
    """Steps that did not fail, and that no `score` label calls less than 1."""
    last: int
    """Runs that had no further step."""
    accuracy: float
    """`right` over `steps`."""
    product: float
    """Of the accuracies of this position and those before it."""


class Compounding(Record):
    runs: int
    """Finished runs with at least one step."""
    positions: tuple[Position, ...]
    expected: float | None
    """Success rate that the step accuracies give: the mean over runs of the product up to their last step."""
    observed: float | None
    """Share of those runs that were solved."""
    gap: float | None
    """Observed minus expected."""


def compounding(store: TraceStore, scope: Scope) -> Compounding:
    positions: list[Position] = []
    product = 1.0
    for row in scope.ask(store, _POSITIONS):
        accuracy = row["right"] / row["steps"]
        product *= accuracy
        positions.append(Position(accuracy=accuracy, product=product, **row))
    runs = sum(position.last for position in positions)
    if not runs:
        return Compounding(runs=0, positions=(), expected=None, observed=None, gap=None)
    observed = scope.ask(store, _SOLVED)[0]["solved"] / runs
    expected = sum(position.last * position.product for position in positions) / runs
    return Compounding(
        runs=runs, positions=tuple(positions), expected=expected, observed=observed, gap=observed - expected
    )


_POSITIONS = f"""
, judged AS (
    SELECT trace_id, span_id, max_by(number, at_ns) AS score FROM labels
    WHERE name = 'score' AND span_id IS NOT NULL GROUP BY ALL
)
, steps AS (
    SELECT row_number() OVER run AS position, lead(span_id) OVER run IS NULL AS last,
        spans.status = 'ok' AND coalesce(judged.score >= 1, true) AS is_right
    FROM spans
    SEMI JOIN (SELECT trace_id FROM chosen WHERE {OVER}) AS finished USING (trace_id)
    LEFT JOIN judged USING (trace_id, span_id)
    WHERE operation IN {(*a.INFERENCE, "execute_tool")} AND coalesce(error_type, '') <> 'needs_input'
    WINDOW run AS (PARTITION BY spans.trace_id ORDER BY spans.start_ns, spans.span_id)
)
SELECT position, count(*) AS steps, count(*) FILTER (is_right) AS "right", count(*) FILTER (last) AS last
FROM steps GROUP BY position ORDER BY position
"""

_SOLVED = f"""
SELECT count(*) FILTER (solved) AS solved FROM chosen
WHERE {OVER} AND (model_calls > 0 OR tool_calls > 0)
"""
