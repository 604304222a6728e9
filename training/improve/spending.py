"""Spending: what runs of a crew are likely to cost, and a purse that holds them to a budget."""

import asyncio
from collections.abc import Mapping, Sequence

from pydantic import Field

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.prompt import opening, prompt_form
from journeyman.agents.trim import TokenCount
from journeyman.runtime.models.policies import PolicyTable
from journeyman.traces.base import Config, Record
from journeyman.traces.errors import ConfigError
from journeyman.traces.messages import Usage
from journeyman.traces.prices import Price, price_of
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.trace import Task
from journeyman.training.evaluation.evaluate import Episode

RUNS = 200
"""Recorded runs of a crew, the newest, that an estimate follows from."""
ASSIGNMENTS = 3
"""Of a plan, where nothing is recorded yet."""

USAGE = f"""
WITH runs AS (SELECT trace_id FROM workflows WHERE crew = ? AND status = 'ok' ORDER BY start_ns DESC LIMIT {RUNS})
SELECT agent, sum(input_tokens)::BIGINT AS input_tokens, sum(output_tokens)::BIGINT AS output_tokens,
    (SELECT count(*) FROM runs) AS runs
FROM turns WHERE trace_id IN (SELECT trace_id FROM runs) GROUP BY agent
"""


class Limit(Config):
    """What all runs together may spend; None is no limit."""

    cost: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Money, by `[traces.prices]`."""
    tokens: int | None = Field(default=None, ge=1)
    """Read and generated together."""


class Estimate(Record):
    runs: int
    tokens_per_run: float
    cost_per_run: float
    unpriced: tuple[str, ...]
    """Policies without a price, which count for nothing."""
    recorded: int
    """Runs of the crew that it follows from; 0 where it is reckoned from prompts and limits, which is rough."""

    @property
    def tokens(self) -> float:
        return self.runs * self.tokens_per_run

    @property
    def cost(self) -> float:
        return self.runs * self.cost_per_run


def estimate(
    store: TraceStore,
    crew: Crew,
    tasks: Sequence[Task],
    policies: PolicyTable,
    prices: Mapping[str, Price],
    *,
    runs: int,
) -> Estimate:
    """Of `runs` runs of the crew under those policies."""
    rows = store.sql(USAGE, [crew.name]).to_pylist()
    recorded = rows[0]["runs"] if rows else 0
    if recorded:
        usage = {row["agent"]: _usage(row["input_tokens"] / recorded, row["output_tokens"] / recorded) for row in rows}
    else:
        letters = sum(len(task.prompt) for task in tasks) // max(1, len(tasks))
        usage = {agent.name: _reckoned(agent, crew, "x" * letters) for agent in crew.agents}
    policy = {agent.name: policies.policy(agent) for agent in crew.agents}
    known = {name: price_of(one, prices) for name, one in policy.items()}
    spent = {name: used for name, used in usage.items() if name in policy}
    return Estimate(
        runs=runs,
        tokens_per_run=sum(used.tokens for used in spent.values()),
        cost_per_run=sum(price.of(used) for name, used in spent.items() if (price := known[name]) is not None),
        unpriced=tuple(sorted({policy[name] for name, price in known.items() if price is None})),
        recorded=recorded,
    )


class Purse:
    """What is spent of a limit. Runs that are on their way hold back what one is likely to cost."""

    def __init__(self, limit: Limit, expected: Estimate) -> None:
        """Raises `ConfigError` where money is limited and a policy that will be asked has no price."""
        if limit.cost is not None and expected.unpriced:
            raise ConfigError(
                f"a budget of money can't hold {expected.unpriced[0]!r}, which has no price: set "
                f"[traces.prices.{expected.unpriced[0]}] in journeyman.toml"
            )
        self._guessed = not expected.recorded
        self._one_ended = asyncio.Event()
        self._limits = {name: most for name in ("cost", "tokens") if (most := getattr(limit, name)) is not None}
        self._likely = {"cost": expected.cost_per_run, "tokens": expected.tokens_per_run}
        """Of a run: the estimate, then the dearest that was made."""
        self._on_their_way: set[str] = set()
        self.spent = {"cost": 0.0, "tokens": 0.0}
        self.made = 0
        """Runs."""
        self.used_up: str | None = None
        """Which limit ended it, in words."""

    async def may_begin(self, task: Task) -> bool:
        """Whether there is room for one more run; if so it is counted as on its way.

        It waits while runs that are on their way may take less than they hold back. Where the estimate is a guess, one
        run goes first, and the others are reckoned by it.
        """
        while (lacking := self._lacking()) is not None and self._on_their_way:
            await self._one_ended.wait()
        if lacking is not None:
            self.used_up = lacking
            return False
        self._on_their_way.add(task.id)
        return True

    def ended(self, episode: Episode) -> None:
        """Counts what a run cost; one that was made before was never on its way."""
        if episode.task_id not in self._on_their_way:
            return
        self._on_their_way.remove(episode.task_id)
        took = {"cost": episode.cost, "tokens": float(episode.input_tokens + episode.output_tokens)}
        self._likely = {name: max(took[name], self._likely[name] if self.made else 0.0) for name in took}
        self.spent = {name: self.spent[name] + took[name] for name in took}
        self.made += 1
        self._one_ended.set()
        self._one_ended = asyncio.Event()

    def _lacking(self) -> str | None:
        """Which limit one more run might exceed."""
        if self._guessed and not self.made:
            return "the first run has not ended" if self._limits and self._on_their_way else None
        for name, limit in self._limits.items():
            spent, likely = self.spent[name], self._likely[name]
            if spent + likely * (len(self._on_their_way) + 1) > limit:
                what = "money" if name == "cost" else name
                return (
                    f"the budget of {what} is used up: {spent:,.6g} of {limit:,.6g} are spent, and a run may take "
                    f"{likely:,.6g}"
                )
        return None


def _usage(input_tokens: float, output_tokens: float) -> Usage:
    return Usage(input_tokens=round(input_tokens), output_tokens=round(output_tokens))


def _reckoned(agent: Agent, crew: Crew, prompt: str) -> Usage:
    """What an agent is likely to use in a run that nothing like is recorded of: half of what it may generate."""
    shown = TokenCount()(opening(prompt_form(agent, crew), "", prompt))
    calls = 2.0 if agent.tools else 1.0
    if crew.orchestrator is not None and agent.name != crew.orchestrator.name:
        calls *= ASSIGNMENTS / len(crew.workers)
    return _usage(calls * shown, calls * agent.limits.tokens / 2)
