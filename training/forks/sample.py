"""Sampling: alternatives to recorded model calls, drawn from the live server where service has left none to compare."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import islice

from journeyman.runtime.replay.fork import Replacement
from journeyman.traces.errors import ConfigError
from journeyman.training.data.tasks.near import plain
from journeyman.training.forks.alternatives import Step
from journeyman.training.forks.runs import Forkable, ScoredRun


def choose_draws(forkable: Forkable, n: int, budget: int) -> list[tuple[Step, Replacement]]:
    """`n` draws of each chosen model call, at temperature 1; what follows is asked as service would.

    Of each task its newest run is taken. Tasks are ordered by `p * (1 - p)`, where p is their success rate, smoothed by
    one success and one failure: those that neither always nor never succeed come first, for there two replies to one
    prompt differ in what becomes of them. The first calls of all runs come before any second, so that a small budget
    buys many prompts.
    """
    if n < 1:
        raise ConfigError(f"--sample {n} draws nothing: give 1 or more")
    how = [Replacement(temperature=1.0, seed=seed, rest="live") for seed in range(1, n + 1)]
    # A call costs at least one: no more runs than that are ever reached.
    of_runs = [forkable.steps(run) for run in islice(most_telling(forkable.runs), budget)]
    longest = max(map(len, of_runs), default=0)
    steps = [steps[number] for number in range(longest) for steps in of_runs if number < len(steps)]
    wanted = [(step, one) for step in steps for one in how][:budget]
    forkable.check_some(wanted)
    return wanted


def most_telling(runs: Sequence[ScoredRun]) -> list[ScoredRun]:
    """The newest run of each task, those first whose task succeeds about as often as not; `runs` are newest first."""
    of_task: dict[str, list[ScoredRun]] = defaultdict(list)
    for run in runs:
        of_task[plain(run.task.prompt)].append(run)
    return [own[0] for own in sorted(of_task.values(), key=_told, reverse=True)]


def _told(runs: Sequence[ScoredRun]) -> float:
    rate = (sum(run.solved for run in runs) + 1) / (len(runs) + 2)
    return rate * (1 - rate)
