"""Counterfactual credit: what a model call was worth, by what becomes of its run where it is answered otherwise.

One call of a recorded run is replaced: by another policy's reply, such as a teacher's, by that of the policy in
service, or by a resample. What is asked as it was is answered as it was, so that nothing but the replaced reply and
what follows from it makes a difference. A replacement that says the same costs one model call and changes nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import islice
from statistics import fmean

from journeyman.runtime.replay.fork import Replacement
from journeyman.traces.base import Record
from journeyman.traces.reports.success import wilson
from journeyman.training.forks.alternatives import Alternative, Step
from journeyman.training.forks.runs import Forkable, ScoredRun

RESAMPLE = "resample"
SERVICE = "service"
DRAWS = 4
"""Resamples of a call. Another replacement is greedy, so that a second one would say the same."""


class StepCredit(Record):
    """What replacing one model call did to the run's score."""

    trace_id: str
    span_id: str
    agent: str
    recorded: float
    """Score of the run as it was."""
    replaced: float
    """Mean score of the runs in which the call was replaced."""
    draws: int

    @property
    def effect(self) -> float:
        """From -1 to 1; above 0 where the run would have come out better without the recorded reply."""
        return self.replaced - self.recorded

    @property
    def reward(self) -> float:
        """From 0 to 1: one half where the reply made no difference, 1 where all hung on it and it was right."""
        return (1.0 - self.effect) / 2


class AgentCredit(Record):
    """What replacing an agent's calls did, over all runs."""

    agent: str
    runs: int
    steps: int
    draws: int
    effect: float
    """Mean over the steps."""
    low: float
    high: float
    """Bounds of the effect at 95%, each run being one observation."""


def replacements(name: str = RESAMPLE, draws: int = DRAWS) -> list[Replacement]:
    """`resample` draws from the policy in service at temperature 1, `service` asks it greedily; else a policy."""
    if name == RESAMPLE:
        return [Replacement(temperature=1.0, seed=seed, rest="recorded") for seed in range(1, draws + 1)]
    return [Replacement(policy=None if name == SERVICE else name, rest="recorded")]


def choose_steps(
    forkable: Forkable, how: Sequence[Replacement], budget: int, *, seed: int = 0
) -> list[tuple[Step, Replacement]]:
    """All steps of one run after the other, the runs in a random order: what the budget allows is a fair sample, and
    of almost all its runs there is all. A run's steps get a first draw each before any gets a second."""
    runs = sorted(forkable.runs, key=lambda run: sha256(f"{seed} {run.trace_id}".encode()).digest())
    wanted = list(islice(_of_runs(forkable, runs, how), budget))
    forkable.check_some(wanted)
    return wanted


def _of_runs(
    forkable: Forkable, runs: Iterable[ScoredRun], how: Sequence[Replacement]
) -> Iterable[tuple[Step, Replacement]]:
    for run in runs:
        steps = forkable.steps(run)
        yield from ((step, one) for one in how for step in steps)


def credit_steps(alternatives: Iterable[Alternative]) -> list[StepCredit]:
    """What was measured of each model call, in the order of the alternatives."""
    of_step: dict[tuple[str, str], list[Alternative]] = defaultdict(list)
    for one in alternatives:
        of_step[one.run, one.span_id].append(one)
    return [
        StepCredit(
            trace_id=run,
            span_id=span_id,
            agent=drawn[0].agent,
            recorded=drawn[0].recorded,
            replaced=fmean(one.score for one in drawn),
            draws=len(drawn),
        )
        for (run, span_id), drawn in of_step.items()
    ]


def credit_agents(steps: Iterable[StepCredit]) -> list[AgentCredit]:
    """By agent, the one whose replacement helps most first."""
    of_agent: dict[str, list[StepCredit]] = defaultdict(list)
    for step in steps:
        of_agent[step.agent].append(step)
    found = [_credit_agent(agent, own) for agent, own in of_agent.items()]
    return sorted(found, key=lambda one: (-one.effect, one.agent))


def _credit_agent(agent: str, steps: Sequence[StepCredit]) -> AgentCredit:
    runs = len({step.trace_id for step in steps})
    effect = fmean(step.effect for step in steps)
    # Values in 0..1 can't vary more than those that are 0 or 1, for which the bounds are made.
    low, high = wilson(runs * (1.0 + effect) / 2, runs)
    return AgentCredit(
        agent=agent,
        runs=runs,
        steps=len(steps),
        draws=sum(step.draws for step in steps),
        effect=effect,
        low=2 * low - 1,
        high=2 * high - 1,
    )


def culprit(steps: Iterable[StepCredit], began: Sequence[str]) -> StepCredit | None:
    """Of one run's steps the one whose replacement helps most; None where none helps.

    `began` are span ids in the order in which the calls began. Of those that the draws can't tell apart the last
    counts: another reply early on may help because all that follows is asked anew, while one late reply that helps as
    much explains the run alone.
    """
    order = {span_id: position for position, span_id in enumerate(began)}
    helping = [step for step in steps if step.effect > 0]
    if not helping:
        return None
    best = max(helping, key=lambda step: step.effect)
    least = best.effect
    if best.draws > 1:  # A single draw is a greedy reply, which would be the same again.
        least = min(least, wilson(best.replaced * best.draws, best.draws)[0] - best.recorded)
    return max((step for step in helping if step.effect >= least - 1e-9), key=lambda step: order[step.span_id])
