"""Cost: tokens, money and energy of all runs, over the runs that were solved.

What failed is paid for too: a task solved costs all that was spent, divided by the tasks solved.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from journeyman.traces import attributes as a
from journeyman.traces.base import Record
from journeyman.traces.messages import Usage
from journeyman.traces.prices import Price, price_of
from journeyman.traces.reports.scope import Scope
from journeyman.traces.storage.store import TraceStore


class Spent(Record):
    """Tokens that an agent used with one policy."""

    agent: str
    policy: str
    calls: int
    usage: Usage
    cache_hit_rate: float | None
    """Share of input tokens that came from the server's prefix cache; None without input."""
    money: float | None
    """None where the policy has no price."""


class Energy(Record):
    """Joules of runs; where runs overlapped, what the machine used then is counted once."""

    source: Literal["measured", "estimated"]
    counters: str | None = None
    """Of what was measured: `rapl`, `nvml` or both, of the whole machine."""
    joules: float
    runs: int
    """Runs that it is the energy of."""
    seconds: float
    """Time in which at least one of them was running."""


class PerSolved(Record):
    """All that was spent, on failures too, over the runs that were solved."""

    input_tokens: float
    output_tokens: float
    seconds: float
    money: float | None
    measured_joules: float | None
    """Only where every run was measured."""
    estimated_joules: float | None
    """With what was estimated for runs that were not measured; None where nothing was estimated."""


class Cost(Record):
    runs: int
    solved: int
    usage: Usage
    cache_hit_rate: float | None
    """Share of input tokens that came from the server's prefix cache; None without input."""
    seconds: float
    """Of all runs together, one after the other."""
    money: float | None
    """None where no policy that was asked has a price."""
    currency: str
    unpriced: tuple[str, ...]
    """Policies that used tokens and have no price; they are not in `money`."""
    energy: tuple[Energy, ...]
    """What was measured, and what was estimated for the other runs."""
    spent: tuple[Spent, ...]
    """The most tokens first."""
    per_solved: PerSolved | None
    """None where no run was solved."""


def cost(
    store: TraceStore,
    scope: Scope,
    *,
    prices: Mapping[str, Price] | None = None,
    currency: str = "USD",
    watts: float | None = None,
) -> Cost:
    """`prices` by policy; `watts` is the power to estimate with where a run has no counter's reading."""
    totals = scope.ask(store, _TOTALS)[0]
    spent = tuple(_spent(row, prices or {}) for row in scope.ask(store, _SPENT))
    usage = sum((one.usage for one in spent), Usage())
    priced = [one.money for one in spent if one.money is not None]
    money = sum(priced) if priced else None
    energy = _energy(scope.ask(store, _ENERGY), watts)
    return Cost(
        **totals,
        usage=usage,
        cache_hit_rate=_hit_rate(usage),
        money=money,
        currency=currency,
        unpriced=tuple(sorted({one.policy for one in spent if one.money is None and one.usage.tokens})),
        energy=energy,
        spent=spent,
        per_solved=_per_solved(totals, usage, money, energy),
    )


def _per_solved(
    totals: Mapping[str, float], usage: Usage, money: float | None, energy: Sequence[Energy]
) -> PerSolved | None:
    solved = totals["solved"]
    if not solved:
        return None
    estimated = any(one.source == "estimated" for one in energy)
    known = sum(one.runs for one in energy) == totals["runs"]
    joules = sum(one.joules for one in energy) / solved if known else None
    return PerSolved(
        input_tokens=usage.input_tokens / solved,
        output_tokens=usage.output_tokens / solved,
        seconds=totals["seconds"] / solved,
        money=None if money is None else money / solved,
        measured_joules=None if estimated else joules,
        estimated_joules=joules if estimated else None,
    )


def _spent(row: dict[str, object], prices: Mapping[str, Price]) -> Spent:
    usage = Usage.model_validate({name: row[name] for name in Usage.model_fields})
    policy = str(row["policy"] or "?")
    price = price_of(policy, prices)
    return Spent.model_validate(
        {
            "agent": row["agent"] or "?",
            "policy": policy,
            "calls": row["calls"],
            "usage": usage,
            "cache_hit_rate": _hit_rate(usage),
            "money": None if price is None else price.of(usage),
        }
    )


def _energy(rows: Sequence[Mapping[str, float | str | None]], watts: float | None) -> tuple[Energy, ...]:
    found = []
    for row in rows:
        if row["source"] is not None:
            found.append(Energy.model_validate({**row, "source": "measured", "counters": row["source"]}))
        elif watts is not None:
            assert isinstance(row["seconds"], float)
            found.append(Energy.model_validate({**row, "source": "estimated", "joules": row["seconds"] * watts}))
    return tuple(found)


def _hit_rate(usage: Usage) -> float | None:
    return usage.cached_tokens / usage.input_tokens if usage.input_tokens else None


_TOTALS = """
SELECT count(*) AS runs, count(*) FILTER (solved) AS solved, coalesce(sum(seconds), 0.0) AS seconds FROM chosen
"""

_SPENT = """
SELECT agent, policy, count(*) AS calls,
    coalesce(sum(input_tokens), 0)::BIGINT AS input_tokens,
    coalesce(sum(output_tokens), 0)::BIGINT AS output_tokens,
    coalesce(sum(cached_tokens), 0)::BIGINT AS cached_tokens
FROM turns SEMI JOIN chosen USING (trace_id)
GROUP BY agent, policy ORDER BY sum(input_tokens + output_tokens) DESC NULLS LAST, agent, policy
"""

# A counter is the machine's, so runs beside each other read the same joules. Each run counts for the time that no run
# begun before it has covered; one that was taken up again has readings for each time.
_ENERGY = f"""
, readings AS (
    SELECT trace_id, span_id, attributes::JSON ->> '$."{a.ENERGY}"' AS joules,
        attributes::JSON ->> '$."{a.ENERGY_START}"' AS start_joules,
        attributes::JSON ->> '$."{a.ENERGY_SOURCE}"' AS source
    FROM spans SEMI JOIN chosen USING (trace_id)
    WHERE operation = 'invoke_workflow' AND contains(attributes, '{a.ENERGY_START}')
)
, measured AS (
    SELECT trace_id, coalesce(start_ns, started_ns) AS began_ns, coalesce(end_ns, ended_ns) AS over_ns,
        joules::DOUBLE - start_joules::DOUBLE AS joules, source,
        max(over_ns) OVER (
            PARTITION BY source ORDER BY began_ns, over_ns ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS covered_ns
    FROM chosen LEFT JOIN run_parts USING (trace_id) LEFT JOIN readings USING (trace_id, span_id)
)
, alone AS (
    SELECT *, greatest(0, over_ns - greatest(began_ns, coalesce(covered_ns, began_ns))) AS alone_ns FROM measured
)
SELECT source, count(DISTINCT trace_id) AS runs, sum(alone_ns) / 1e9 AS seconds,
    coalesce(sum(joules * alone_ns / nullif(over_ns - began_ns, 0)), 0.0) AS joules
FROM alone GROUP BY source ORDER BY source NULLS LAST
"""
