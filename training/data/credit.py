"""Credit by a rule: what each model call of a run was worth, out of what the record says of it and of its run.

    credits = credit_turns(store.get("4f2a"))
    credits["9c1b4f0de2a75c11"].reward      # 0..1; `.terms` says what it is made of

Nothing is asked of anybody: the reward is a function of the `Trace` alone. It can't see a wrong step that nothing
complained of; `training.forks.counterfactual` measures that.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pydantic import Field, model_validator

from journeyman.traces.base import Config, Record
from journeyman.traces.trace import Trace, Trajectory, Turn


class CreditRule(Config):
    """How much each term counts. A reward is their weighted mean, from 0 to 1."""

    outcome: float = Field(default=0.4, ge=0, allow_inf_nan=False)
    """The run's label, 0..1; without one a thumb, 1 or 0; without that 1 where the run ended ok."""
    report: float = Field(default=0.2, ge=0, allow_inf_nan=False)
    """1 where the agent's own work ended ok. For an agent with workers below it, the share of their work that did."""
    verifier: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """1 unless the reply was refused: by a verifier, or because it could not be used."""
    tools: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """The share of the reply's tool calls that went well; 1 where it called none."""
    first_error: float = Field(default=0.15, ge=0, allow_inf_nan=False)
    """0 for the call behind the first thing that went wrong in the run, 1 for all others."""
    cost: float = Field(default=0.05, ge=0, allow_inf_nan=False)
    """`tokens / (tokens + n)` for a call that took n tokens, prompt included."""
    tokens: int = Field(default=2000, gt=0)
    """The tokens of a call that costs half of that term."""
    label: str = "score"
    """The label of the run that says how it came out."""

    @model_validator(mode="after")
    def _counts(self) -> "CreditRule":
        if not any(getattr(self, term) for term in TERMS):
            raise ValueError(f"every weight is 0: give one of {', '.join(TERMS)} more")
        return self


TERMS = ("outcome", "report", "verifier", "tools", "first_error", "cost")

RULE = CreditRule()


class Credit(Record):
    """One model call's reward, and what it is made of."""

    span_id: str
    agent: str
    terms: dict[str, float]
    """Each from 0 to 1, before it is weighed."""
    reward: float
    """From 0 to 1."""


class Credits(NamedTuple):
    """Rewards as rows are mined by them: too little is refused, the rest is weighed by them."""

    rewards: Mapping[str, float]
    """By span id, from 0 to 1."""
    least: float | None = None
    """Smallest reward that is learned from; None takes all above 0."""

    def refusal(self, span_id: str) -> str | None:
        """Why the reply isn't learned from, in words fit for counting."""
        reward = self.rewards.get(span_id)
        if reward is None:
            return "no credit measured"
        if self.least is not None and reward < self.least:
            return f"credit below {self.least:g}"
        return None if reward > 0 else "credit is 0"


def credit_agent(traces: Iterable[Trace], agent: str, rule: CreditRule = RULE) -> Iterator[Credit]:
    """Of all model calls of an agent, a trace in memory at a time."""
    for trace in traces:
        yield from (credit for credit in credit_turns(trace, rule).values() if credit.agent == agent)


def credit_turns(trace: Trace, rule: CreditRule = RULE) -> dict[str, Credit]:
    """By span id, in the order in which the agents began."""
    outcome, first = _outcome(trace, rule.label), _first_error(trace)
    weights = {term: getattr(rule, term) for term in TERMS}
    credits: dict[str, Credit] = {}
    for trajectory in trace.trajectories:
        report = _report(trajectory, trace.trajectories)
        for turn in trajectory.turns:
            terms = {
                "outcome": outcome,
                "report": report,
                "verifier": float(turn.error is None),
                "tools": _share([result.status == "ok" for result in turn.tool_results]),
                "first_error": float(turn.span_id != first),
                "cost": rule.tokens / (rule.tokens + turn.usage.tokens),
            }
            reward = sum(weights[term] * value for term, value in terms.items()) / sum(weights.values())
            credits[turn.span_id] = Credit(span_id=turn.span_id, agent=turn.agent, terms=terms, reward=min(reward, 1.0))
    return credits


def _outcome(trace: Trace, name: str) -> float:
    """A label that isn't a number says nothing."""
    labels = (trace.label(name), trace.label("thumbs"))
    said = next((label.value for label in labels if label and not isinstance(label.value, str)), None)
    if said is not None:
        return min(1.0, max(0.0, float(said)))
    return float(trace.outcome is not None and trace.outcome.status == "ok")


def _report(own: Trajectory, trajectories: Sequence[Trajectory]) -> float:
    below = [one for one in trajectories if one.parent == own.span_id and one.assignment is not None]
    return _share([one.status == "ok" for one in below or [own]])


def _share(well: Sequence[bool]) -> float:
    return sum(well) / len(well) if well else 1.0


def _first_error(trace: Trace) -> str | None:
    """The span of the model call behind it."""
    errors = (error for trajectory in trace.trajectories for error in _errors(trajectory))
    return min(errors, default=(0, None))[1]


def _errors(trajectory: Trajectory) -> Iterator[tuple[int, str]]:
    """When something went wrong, and the model call behind it. What was never begun is nobody's error."""
    for turn in trajectory.turns:
        yield from _of_turn(turn)
    if trajectory.turns and trajectory.status not in ("ok", "skipped", "cancelled", None):
        yield trajectory.ended_ns, trajectory.turns[-1].span_id


def _of_turn(turn: Turn) -> Iterator[tuple[int, str]]:
    if turn.error is not None:
        yield turn.ended_ns, turn.span_id
    for result in turn.tool_results:
        if result.status != "ok":
            yield result.ended_ns, turn.span_id
