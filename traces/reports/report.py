"""The report: what is asked of a record, answered over any choice of runs."""

from collections.abc import Mapping

from journeyman.traces.base import Record
from journeyman.traces.prices import Price
from journeyman.traces.reports.attribution import Attribution, attribute
from journeyman.traces.reports.capture import Captured, captured
from journeyman.traces.reports.cost import Cost, cost
from journeyman.traces.reports.critical_path import CriticalPath, critical_path
from journeyman.traces.reports.latency import Latency, latency
from journeyman.traces.reports.rings import rings
from journeyman.traces.reports.scope import EVERYTHING, OVER, Scope
from journeyman.traces.reports.steps import Compounding, compounding
from journeyman.traces.reports.success import (
    Success,
    success_by_agent,
    success_by_day,
    success_by_family,
    success_by_policy,
    success_overall,
)
from journeyman.traces.storage.store import TraceStore


class Report(Record):
    version: int = 1
    scope: Scope
    first_ns: int | None
    """Start of the first run; None where there is no run."""
    last_ns: int | None
    """Start of the last run."""
    overall: Success | None
    by_family: tuple[Success, ...]
    by_agent: tuple[Success, ...]
    by_policy: tuple[Success, ...]
    by_day: tuple[Success, ...]
    attribution: Attribution
    compounding: Compounding
    latency: tuple[Latency, ...]
    cost: Cost
    slowest: CriticalPath | None
    """Critical path of the run that took longest."""
    captured: tuple[Captured, ...]
    rings: tuple[str, ...] = ()
    """Traces with spans whose parents lead back to themselves."""


def report(
    store: TraceStore,
    scope: Scope = EVERYTHING,
    *,
    prices: Mapping[str, Price] | None = None,
    currency: str = "USD",
    watts: float | None = None,
) -> Report:
    """Everything at once; each part can be asked for by itself. For `prices` and `watts` see `cost`."""
    times = scope.ask(store, "SELECT min(started_ns) AS first_ns, max(started_ns) AS last_ns FROM chosen")[0]
    return Report(
        scope=scope,
        **times,
        overall=success_overall(store, scope),
        by_family=success_by_family(store, scope),
        by_agent=success_by_agent(store, scope),
        by_policy=success_by_policy(store, scope),
        by_day=success_by_day(store, scope),
        attribution=attribute(store, scope),
        compounding=compounding(store, scope),
        latency=latency(store, scope),
        cost=cost(store, scope, prices=prices, currency=currency, watts=watts),
        slowest=_slowest(store, scope),
        captured=captured(store, scope),
        rings=rings(store, scope),
    )


def _slowest(store: TraceStore, scope: Scope) -> CriticalPath | None:
    query = f"SELECT trace_id FROM chosen WHERE {OVER} ORDER BY seconds DESC, trace_id LIMIT 1"
    return next((critical_path(store.get(row["trace_id"])) for row in scope.ask(store, query)), None)
