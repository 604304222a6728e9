"""The gate: a candidate adapter against the policy in service, on the same tasks."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from statistics import NormalDist
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError

from journeyman.traces.base import Config, Record
from journeyman.traces.errors import AdapterError, ConfigError
from journeyman.traces.files import regular, write_whole
from journeyman.training.evaluation.evaluate import Episode, mean_interval, measured

VERDICT = "verdict.json"

POWER = 0.8
"""Chance of a decision that `tasks_needed` aims at, if the true gain is the one that was seen."""

EXACT = 1e-9
"""Differences below this are rounding, not gain."""


class GateConfig(Config):
    margin: float = 0.0
    """Smallest gain in mean score (0..1) over the policy in service that counts as better."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of the two-sided interval around the mean gain. Promotion needs its lower end above the margin."""
    min_tasks: int = Field(default=20, ge=2)
    """With fewer tasks there is no decision: a bootstrap over a handful is too sure of itself."""
    max_tokens_ratio: float = Field(default=3.0, gt=0)
    """Generated tokens a task, candidate over incumbent, above which the candidate must pay for itself."""
    max_latency_ratio: float = Field(default=3.0, gt=0)
    """Seconds a task, likewise."""
    seed: int = 0
    """Of the resampling."""


class PolicyCost(Record):
    """What one policy's episodes took, a task."""

    score: float
    tokens: float
    """Generated tokens."""
    seconds: float


class Setup(Record):
    """What the two sides of a comparison had in common."""

    crew: str
    tasks: str
    """Where they are from, such as the name of a file."""
    tasks_digest: str
    """SHA-256 over the tasks, references included."""
    scorer: str
    seed: int
    """Of every model call's sampling."""


class Verdict(Record):
    version: int = 1
    candidate: str
    incumbent: str
    decision: Literal["promote", "reject", "inconclusive"]
    deltas: Mapping[str, float]
    """Candidate's score minus the incumbent's, for each task id."""
    interval: tuple[float, float]
    """Around the mean of the deltas."""
    reasons: tuple[str, ...]
    tasks_needed: int | None
    """For an inconclusive verdict: about how many tasks would decide; None where no number would."""
    candidate_cost: PolicyCost
    incumbent_cost: PolicyCost
    config: GateConfig
    setup: Setup | None = None
    """None in a verdict that no bench gave, or from before it was written down."""

    @property
    def tasks(self) -> int:
        return len(self.deltas)

    @property
    def mean_delta(self) -> float:
        return float(np.mean(list(self.deltas.values())))


def decide(
    candidate: Sequence[Episode],
    incumbent: Sequence[Episode],
    config: GateConfig,
    *,
    names: tuple[str, str],
    setup: Setup | None = None,
) -> Verdict:
    """The verdict on two sets of episodes of the same tasks; `names` are the candidate's policy and the incumbent's.

    Paired by task id, percentile bootstrap over tasks. Promote: the interval of the mean gain lies above the margin
    and nothing blew up. Reject: it lies below the margin, or something blew up. Otherwise inconclusive.

    A blow-up is a cost a task (generated tokens, seconds) above its limit which is not bought back: a point of score
    (the cost of all tasks over the sum of their scores) costs more than the incumbent's. So a candidate that works
    longer because it now solves what the other gave up on is not punished; one that rambles is.

    Raises `ConfigError` if the two sets are not of the same tasks, or if no model was asked in any run of one of them.
    """
    ours, theirs = _by_task(candidate, names[0]), _by_task(incumbent, names[1])
    if odd := sorted(ours.keys() ^ theirs.keys()):
        raise ConfigError(f"the gate compares task by task, and only one side has {odd[0]!r} ({len(odd)} such tasks)")
    if not ours:
        raise ConfigError("the gate has no task to compare on: name a file with tasks")
    # In the order of the ids: the same episodes in another order give the same numbers.
    deltas = {task: ours[task].score - theirs[task].score for task in sorted(ours)}
    low, high = mean_interval(list(deltas.values()), confidence=config.confidence, seed=config.seed)
    costs = _cost(candidate), _cost(incumbent)
    decision, reasons = _decision(len(deltas), low, high, _blow_ups(*costs, config), config)
    return Verdict(
        candidate=names[0],
        incumbent=names[1],
        decision=decision,
        deltas=deltas,
        interval=(low, high),
        reasons=reasons,
        tasks_needed=_tasks_needed(list(deltas.values()), config) if decision == "inconclusive" else None,
        candidate_cost=costs[0],
        incumbent_cost=costs[1],
        config=config,
        setup=setup,
    )


def write_verdict(folder: Path, verdict: Verdict) -> None:
    """Lays the verdict beside the adapter, in place of an earlier one."""
    write_whole(folder / VERDICT, verdict.model_dump_json(indent=2) + "\n")


def read_verdict(folder: Path) -> Verdict | None:
    path = folder / VERDICT
    try:
        return Verdict.model_validate_json(regular(path).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        raise AdapterError(f"{path}: not a verdict: delete it and run the gate again") from None


def _decision(
    tasks: int, low: float, high: float, blow_ups: list[str], config: GateConfig
) -> tuple[Literal["promote", "reject", "inconclusive"], tuple[str, ...]]:
    gain = f"gain in {low:+.3f} .. {high:+.3f} at {config.confidence:.0%}, margin {config.margin:g}"
    if tasks < config.min_tasks:
        return "inconclusive", (f"{tasks} tasks, at least {config.min_tasks} are needed", gain)
    if high < config.margin - EXACT:
        return "reject", (f"worse: {gain}", *blow_ups)
    if blow_ups:
        return "reject", (*blow_ups, gain)
    if low > config.margin + EXACT:
        return "promote", (f"better: {gain}",)
    return "inconclusive", (f"not told apart: {gain}",)


def _blow_ups(candidate: PolicyCost, incumbent: PolicyCost, config: GateConfig) -> list[str]:
    kinds = [
        ("generated tokens", candidate.tokens, incumbent.tokens, config.max_tokens_ratio),
        ("seconds", candidate.seconds, incumbent.seconds, config.max_latency_ratio),
    ]
    return [
        f"{name} a task {ours:.1f} against {theirs:.1f}: more than {limit:g} times, and more for a point of score"
        for name, ours, theirs, limit in kinds
        if ours > limit * theirs and (candidate.score == 0 or ours * incumbent.score > theirs * candidate.score)
    ]


def _tasks_needed(deltas: list[float], config: GateConfig) -> int | None:
    """Tasks for `POWER` to decide, if gain and spread are truly what was seen (normal approximation)."""
    effect = abs(float(np.mean(deltas)) - config.margin)
    spread = float(np.std(deltas, ddof=1)) if len(deltas) > 1 else 0.0
    if effect < EXACT or (spread < EXACT and len(deltas) >= config.min_tasks):
        return None
    z = NormalDist().inv_cdf((1 + config.confidence) / 2) + NormalDist().inv_cdf(POWER)
    return max(config.min_tasks, len(deltas) + 1, ceil((z * spread / effect) ** 2))


def _by_task(episodes: Sequence[Episode], name: str) -> dict[str, Episode]:
    by_task = {episode.task_id: episode for episode in episodes}
    if len(by_task) != len(episodes):
        raise ConfigError(f"{name} has two episodes of one task: the gate takes one a task")
    if episodes and not measured(episodes):
        raise ConfigError(f"nothing was measured of {name}: no model answered in any run; first: {episodes[0].error}")
    return by_task


def _cost(episodes: Sequence[Episode]) -> PolicyCost:
    return PolicyCost(
        score=float(np.mean([episode.score for episode in episodes])),
        tokens=float(np.mean([episode.output_tokens for episode in episodes])),
        seconds=float(np.mean([episode.seconds for episode in episodes])),
    )
