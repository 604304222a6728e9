"""Success: how many runs ended well and were solved, by family, agent, policy and day."""

from journeyman.traces import attributes as a
from journeyman.traces.base import Record
from journeyman.traces.reports.scope import OVER, Scope
from journeyman.traces.storage.store import TraceStore


class Success(Record):
    """Runs that have something in common."""

    name: str
    """The family, agent, policy or day (UTC)."""
    runs: int
    ended_ok: int
    """By the runtime's account: an answer came."""
    scored: int
    """Runs with a `score`."""
    score: float | None
    """Mean score, 0..1; None where no run has one."""
    solved: int
    """Scored 1, or ended ok where nobody scored."""
    solved_rate: float
    """`solved` over `runs`."""
    works: int | None = None
    """For an agent: how many of its assignments ended."""
    works_ok: int | None = None
    """For an agent: how many of them ended well."""


_COLUMNS = """
    count(*) AS runs,
    count(*) FILTER (status = 'ok') AS ended_ok,
    count(score) AS scored,
    avg(score) AS score,
    count(*) FILTER (solved) AS solved,
    count(*) FILTER (solved) / count(*) AS solved_rate
"""


def success_overall(store: TraceStore, scope: Scope) -> Success | None:
    """None where there is no such run."""
    rows = scope.ask(store, f"SELECT 'all' AS name, {_COLUMNS} FROM chosen HAVING count(*) > 0")
    return Success(**rows[0]) if rows else None


def success_by_family(store: TraceStore, scope: Scope) -> tuple[Success, ...]:
    """A run that died before its task was recorded is of the family `?`."""
    return _asked(store, scope, f"SELECT coalesce(family, '?') AS name, {_COLUMNS} FROM chosen GROUP BY 1 ORDER BY 1")


def success_by_day(store: TraceStore, scope: Scope) -> tuple[Success, ...]:
    day = "strftime(make_timestamp(started_ns // 1000), '%Y-%m-%d')"
    return _asked(store, scope, f"SELECT {day} AS name, {_COLUMNS} FROM chosen GROUP BY 1 ORDER BY 1")


def success_by_agent(store: TraceStore, scope: Scope) -> tuple[Success, ...]:
    """Of the runs in which the agent took part; and how its own work ended."""
    return _asked(
        store,
        scope,
        f"""
        , parts AS (SELECT DISTINCT trace_id, agent FROM spans WHERE agent <> '')
        , ended AS (
            SELECT trace_id, agent, count(*) AS works, count(*) FILTER (run_status = 'ok') AS works_ok
            FROM (SELECT *, coalesce(run_status, 'unfinished') AS status FROM agents) WHERE {OVER} GROUP BY ALL
        )
        SELECT agent AS name, {_COLUMNS},
            coalesce(sum(works), 0)::BIGINT AS works, coalesce(sum(works_ok), 0)::BIGINT AS works_ok
        FROM parts JOIN chosen USING (trace_id) LEFT JOIN ended USING (trace_id, agent) GROUP BY 1 ORDER BY 1
        """,
    )


def success_by_policy(store: TraceStore, scope: Scope) -> tuple[Success, ...]:
    """Of the runs in which the policy was asked."""
    return _asked(
        store,
        scope,
        f"""
        , parts AS (SELECT DISTINCT trace_id, policy FROM spans WHERE operation IN {a.INFERENCE} AND policy IS NOT NULL)
        SELECT policy AS name, {_COLUMNS} FROM parts JOIN chosen USING (trace_id) GROUP BY 1 ORDER BY 1
        """,
    )


def wilson(right: float, of: int) -> tuple[float, float]:
    """Bounds of a proportion at 95% (Wilson 1927)."""
    z, share = 1.96, right / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    reach = z / (1 + z * z / of) * (share * (1 - share) / of + z * z / (4 * of * of)) ** 0.5
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _asked(store: TraceStore, scope: Scope, query: str) -> tuple[Success, ...]:
    return tuple(Success(**row) for row in scope.ask(store, query))
