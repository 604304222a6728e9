"""Exploring: the driver of a method that learns from rollouts, an optimiser step at a time."""

from journeyman.runtime.adapters.adapter import Adapter
from journeyman.runtime.adapters.live import load_in
from journeyman.training.data.tasks.heldout import less_held_out
from journeyman.training.improve.from_tasks import TaskJob, TaskPlan, Watcher, choices_of, crew_that_learns, told_aside
from journeyman.training.improve.online import train_online
from journeyman.training.improve.rounds import Round
from journeyman.training.methods.checkpoints import Checkpoint
from journeyman.training.methods.method import method_of
from journeyman.training.methods.recipe import Step
from journeyman.training.methods.recipes.grpo import GRPORecipe, choose


class Explorer:
    """GRPO's driver: see `from_tasks.Driver`."""

    def __init__(self, job: TaskJob) -> None:
        """Raises `ConfigError` where no task may be learned from, or the crew can't be read."""
        assert isinstance(job.recipe, GRPORecipe)
        self._job = job
        self._recipe = job.recipe
        self._crew = crew_that_learns(job)
        self._tasks, self._left_out = less_held_out(job.workspace, job.tasks, job.source)
        self._learned, self._aside = job.recipe.rollouts.parted(self._tasks)

    @property
    def rounds(self) -> int:
        """That the recipe makes of the tasks."""
        return self._recipe.steps(len(self._learned))

    def plan(self) -> TaskPlan:
        """What `train` would do."""
        with method_of(self._recipe):  # It needs torch, and keeps it quiet.
            from journeyman.training.methods.trainers.weights import parameters_of

        table, rounds = self._recipe.rollouts, self.rounds
        each = min(table.tasks, len(self._learned)) * table.group
        looks = len(range(0, rounds, table.look)) * len(self._aside)
        aside = told_aside(len(self._aside), self._left_out)
        return TaskPlan(
            summary=f"{rounds} rounds of {each} runs on {len(self._learned)} tasks{aside}",
            runs=rounds * each + looks,
            choices=(
                *choices_of("rollouts", table),
                *choices_of("rewards", self._recipe.rewards),
                *choices_of("alarms", self._recipe.alarms),
                *choose(self._recipe, parameters_of(self._job.base_model)),
            ),
        )

    def train(self, watcher: Watcher) -> Adapter:
        """Makes the rounds that were not made before. Raises what `train_online` raises."""
        from journeyman.runtime.serving.backend import open_backend  # langchain takes a second to import.

        job, rounds, backend = self._job, self.rounds, open_backend(self._job.workspace)
        if backend.server is not None:
            for policy in job.others.values():
                load_in(job.workspace, backend.server, policy)

        def began(checkpoint: Checkpoint | None) -> None:
            goes_on = "" if checkpoint is None else f", and goes on from step {checkpoint.step}"
            watcher.say(f"training starts from {job.start}{goes_on}")

        def ended(one: Round) -> None:
            watcher.say(one.told)
            if one.step is not None:
                watcher.on_step(Step(one.number, rounds, one.step.loss, one.logged))

        return train_online(
            self._tasks,
            self._crew,
            **job.given,
            backend=backend,
            scorer=job.scorer,
            source=job.source,
            start=job.start,
            others=job.others,
            on_start=began,
            on_round=ended,
            on_run=watcher.on_run,
            say=watcher.say,
        )
