"""Learning in turn: several agents of a crew learn from its runs, each for some rounds beside the newest of the others.

A leg is one agent's part: an ordinary GRPO training that starts from what the agent's leg before came to. So each leg
has its adapter, its lineage and its checkpoints, and what was made of a job that was killed is found again.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import cast

from journeyman.runtime.adapters.adapter import Adapter
from journeyman.runtime.adapters.live import is_served, take_out
from journeyman.runtime.serving.server import running
from journeyman.traces.errors import ConfigError, JourneymanError
from journeyman.training.improve.explore import Explorer
from journeyman.training.improve.from_tasks import TaskJob, TaskPlan, Watcher, driver_of
from journeyman.training.improve.rounds import NothingToLearnError
from journeyman.training.methods.recipes.grpo import GRPORecipe


class Alternation:
    """Several jobs of one crew on the same tasks, ready to begin."""

    def __init__(self, jobs: Sequence[TaskJob], every: int) -> None:
        """`every` is the rounds of a leg; the recipe says how many each agent has in all.

        Raises `ConfigError` for a recipe of another method, fewer than two agents or one named twice, and what
        `Explorer` raises.
        """
        agents = [job.agent for job in jobs]
        if not all(isinstance(job.recipe, GRPORecipe) for job in jobs):
            raise ConfigError(
                f"method {jobs[0].recipe.method} teaches one agent at a time: name it with --agent, or take recipe grpo"
            )
        if len(set(agents)) < 2 or len(set(agents)) < len(agents):
            raise ConfigError(f"{', '.join(agents)}: name two agents or more that learn in turn, each once")
        self._jobs = jobs
        self._every = every
        self._explorers = [cast("Explorer", driver_of(job)) for job in jobs]

    @property
    def legs(self) -> list[TaskJob]:
        """Each agent's in turn, for as many rounds as a leg has."""
        total = self._explorers[0].rounds
        return [
            job._replace(recipe=_part(job.recipe, before, min(self._every, total - before)))
            for before in range(0, total, self._every)
            for job in self._jobs
        ]

    def plan(self) -> TaskPlan:
        """What `train` would do."""
        one, agents = self._explorers[0].plan(), ", ".join(job.agent for job in self._jobs)
        summary = f"{agents} in turn, {len(self.legs)} legs of up to {self._every} rounds; each agent: {one.summary}"
        return one.model_copy(update={"summary": summary, "runs": one.runs * len(self._jobs)})

    def train(self, watcher: Watcher) -> Mapping[str, Adapter]:
        """By agent, the adapter of its last leg; a call after a kill goes on where it was.

        A leg without anything to learn from is passed over. Where no agent has anything, training ends, and raises
        `NothingToLearnError` if none had before. Raises else what `train_online` raises.
        """
        newest, idle, legs = dict[str, Adapter](), 0, self.legs
        try:
            for number, leg in enumerate(legs, 1):
                own, others = newest.get(leg.agent), _policies(newest, without=leg.agent)
                job = leg._replace(start=leg.start if own is None else own.policy, others=others)
                watcher.say(f"leg {number} of {len(legs)}: {job.agent} learns, from {job.start}")
                self._take_out(own)  # The weights of its steps take its place.
                try:
                    newest[job.agent], idle = Explorer(job).train(watcher), 0
                except NothingToLearnError as error:
                    idle += 1
                    if idle < len(self._jobs):
                        watcher.say(f"leg {number} is passed over: {error}")
                    elif newest:
                        watcher.say(f"no agent has anything to learn from any more, so it ends here: {error}")
                        break
                    else:
                        raise
        finally:
            for adapter in newest.values():
                self._take_out(adapter)
        return newest

    def _take_out(self, adapter: Adapter | None) -> None:
        """Of the server, as far as it answers, unless it is in service."""
        workspace = self._jobs[0].workspace
        with suppress(JourneymanError):
            if adapter is not None and is_served(workspace, server := running(workspace), adapter.policy):
                take_out(workspace, server, adapter.policy)


def _policies(newest: Mapping[str, Adapter], *, without: str) -> dict[str, str]:
    return {agent: adapter.policy for agent, adapter in newest.items() if agent != without}


def _part(recipe: GRPORecipe, before: int, rounds: int) -> GRPORecipe:
    """The recipe for so many rounds, which no leg before has drawn: other seeds, and tasks in another order."""
    table = recipe.rollouts
    seeded = table.model_copy(update={"seed": table.seed + before * table.group})
    return recipe.model_copy(update={"trl": {**recipe.trl, "max_steps": rounds}, "rollouts": seeded})
