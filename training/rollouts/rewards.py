"""Rewards: what each turn of a rollout came to, from 0 to 1, as the recipe weighs it.

    merit  = (score * s + judge * j) / (score + judge)
    form   = 1 - sum of weight * (1 - term) over report, verifier, tools, first_error, cost and length
    reward = merit * form

So form only takes away from what merit earned: a reply that is well formed and wrong gets nothing. With `form_alone`
the same weights add up instead, and a well-formed reply that is wrong earns its share:

    reward = merit * (1 - sum of weights) + sum of weight * term
"""

import math
from collections.abc import Mapping

from pydantic import Field, model_validator

from journeyman.traces.base import Config
from journeyman.traces.errors import TrainingError
from journeyman.traces.trace import Trace
from journeyman.training.data.credit import CreditRule, credit_turns

FORM = ("report", "verifier", "tools", "first_error", "cost", "length")
"""Terms that say how something was done, and not whether it was right."""


class RewardTable(Config):
    """Table `[rewards]`: how much each term counts."""

    score: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Of what the crew's scorer gives the run."""
    judge: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Of the share of comparisons with other answers to the task that a judge decides for the run's."""
    judge_policy: str = "base"
    """Who judges: the base model, or one of `[models]`."""
    report: float = Field(default=0.0, ge=0, le=1)
    """Of the agent's own work having ended ok, or of its workers' share that did."""
    verifier: float = Field(default=0.0, ge=0, le=1)
    """Of the reply having been accepted by verifiers and readers."""
    tools: float = Field(default=0.0, ge=0, le=1)
    """Of the share of the reply's tool calls that went well."""
    first_error: float = Field(default=0.0, ge=0, le=1)
    """Of not being the call behind the first thing that went wrong in the run."""
    cost: float = Field(default=0.0, ge=0, le=1)
    """Of `tokens / (tokens + n)` for a call that took n tokens, prompt included."""
    tokens: int = Field(default=2000, gt=0)
    """The tokens of a call that costs half of that term."""
    length: float = Field(default=0.0, ge=0, le=1)
    """Of `reply_tokens / (reply_tokens + n)` for a reply of n tokens."""
    reply_tokens: int = Field(default=256, gt=0)
    """The tokens of a reply that costs half of that term."""
    form_alone: bool = False
    """Whether a reply that is wrong may earn something by its form."""

    @model_validator(mode="after")
    def _counts(self) -> "RewardTable":
        if not self.score + self.judge:
            raise ValueError("score and judge are both 0, so that nothing says what is right: give one of them more")
        if (form := sum(self.form.values())) > 1 + 1e-9:
            raise ValueError(f"{', '.join(FORM)} add up to {form:g}: 1 at most, for they take that share away")
        return self

    @property
    def form(self) -> Mapping[str, float]:
        return {term: getattr(self, term) for term in FORM}


def turn_rewards(trace: Trace, score: float, judged: float | None, table: RewardTable) -> dict[str, float]:
    """By span id, of every turn of a rollout that got `score`; `judged` is the judge's share, where one is asked.

    Raises `TrainingError` for a merit that is no number from 0 to 1.
    """
    merit = _merit(score, judged, table)
    weights = {term: weight for term, weight in table.form.items() if weight}
    if not weights:
        return {turn.span_id: merit for turn in trace.turns}
    credits = credit_turns(trace, CreditRule(tokens=table.tokens))
    rewards = {}
    for turn in trace.turns:
        length = table.reply_tokens / (table.reply_tokens + len(turn.token_ids or ()))
        terms = {**credits[turn.span_id].terms, "length": length}
        rewards[turn.span_id] = _rewarded(merit, weights, terms, alone=table.form_alone)
    return rewards


def _merit(score: float, judged: float | None, table: RewardTable) -> float:
    merit = score if judged is None else (table.score * score + table.judge * judged) / (table.score + table.judge)
    if not (math.isfinite(merit) and 0 <= merit <= 1):
        raise TrainingError(f"a reward is {merit!r}, not a number from 0 to 1: mend the scorer, or the judge")
    return merit


def _rewarded(merit: float, weights: Mapping[str, float], terms: Mapping[str, float], *, alone: bool) -> float:
    lost = sum(weight * (1 - terms[term]) for term, weight in weights.items())
    if not alone:
        return max(0.0, merit * (1 - lost))
    earned = sum(weight * terms[term] for term, weight in weights.items())
    return min(1.0, merit * (1 - sum(weights.values())) + earned)
