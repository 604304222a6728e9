"""Latency: how long agents, model calls and tools take, at the median and at the slow end."""

from typing import Literal

from journeyman.traces.base import Record
from journeyman.traces.reports.scope import OVER, Scope
from journeyman.traces.storage.store import TraceStore


class Quantiles(Record):
    """Seconds."""

    p50: float
    p90: float
    p99: float


class Latency(Record):
    kind: Literal["run", "agent", "model", "tool"]
    """`agent` is an agent's whole work on one assignment, `model` one call that it made."""
    name: str
    """The agent, or the tool."""
    count: int
    seconds: Quantiles
    measured: int = 0
    """Model calls of which the server told how long they queued and took."""
    queue: Quantiles | None = None
    prefill: Quantiles | None = None
    decode: Quantiles | None = None


def latency(store: TraceStore, scope: Scope) -> tuple[Latency, ...]:
    """Whole runs, then each agent with its model calls, then each tool. What is not over is left out."""
    runs = scope.ask(
        store, f"SELECT 'all' AS name, count(*) AS count, {_quantiles('seconds')} FROM chosen WHERE {OVER} {_SOME}"
    )
    agents = scope.ask(
        store,
        f"""
        SELECT agent AS name, count(*) AS count, {_quantiles("(end_ns - start_ns) / 1e9")}
        FROM (SELECT *, coalesce(run_status, 'unfinished') AS status FROM agents) AS works
        SEMI JOIN chosen USING (trace_id) WHERE {OVER} GROUP BY 1 ORDER BY 1
        """,
    )
    calls = scope.ask(
        store,
        f"""
        SELECT agent AS name, count(*) AS count, count(queue_s) AS measured, {_quantiles("seconds")},
            {_quantiles("queue_s", "queue")}, {_quantiles("prefill_s", "prefill")}, {_quantiles("decode_s", "decode")}
        FROM turns SEMI JOIN chosen USING (trace_id) GROUP BY 1 ORDER BY 1
        """,
    )
    tools = scope.ask(
        store,
        f"""
        SELECT tool AS name, count(*) AS count, {_quantiles("seconds")}
        FROM tool_calls SEMI JOIN chosen USING (trace_id) GROUP BY 1 ORDER BY 1
        """,
    )
    named = (("run", runs), ("agent", agents), ("model", calls), ("tool", tools))
    return tuple(_latency(kind, row) for kind, rows in named for row in rows)


_SOME = "HAVING count(*) > 0"


def _quantiles(column: str, name: str = "seconds") -> str:
    return f"quantile_cont({column}, [0.5, 0.9, 0.99]) AS {name}"


def _latency(kind: str, row: dict[str, object]) -> Latency:
    parts = {name: _read(row[name]) for name in ("seconds", "queue", "prefill", "decode") if name in row}
    return Latency.model_validate(row | parts | {"kind": kind, "name": row["name"] or "?"})


def _read(values: object) -> Quantiles | None:
    """None where nothing was measured."""
    if not isinstance(values, list) or any(value is None for value in values):
        return None
    return Quantiles(p50=values[0], p90=values[1], p99=values[2])
