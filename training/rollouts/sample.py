"""Sampling: groups of runs of a crew, in which one agent explores and the others work as in service."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from journeyman.agents.agent import Crew
from journeyman.agents.model import ModelRequest
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Origin, Purpose, Task, digest_tasks
from journeyman.training.evaluation.evaluate import Episode, Watched, evaluate, load_scorer
from journeyman.training.rewards import Scorer

if TYPE_CHECKING:
    from journeyman.runtime.serving.backend import Backend


class Exploring(NamedTuple):
    """What the rollouts of a training have in common."""

    workspace: Workspace
    crew: Crew
    agent: str
    """The one whose replies are sampled, at temperature 1; so they must be, for logprobs of another temperature are
    not those that training computes."""
    tasks: Sequence[Task]
    held_out: Sequence[Task]
    """Tasks that are looked at, and not learned from."""
    scorer: str | None
    """As `module:function`; None where runs are not scored, but judged."""
    backend: "Backend"
    source: str = ""
    """Where the tasks are from."""

    def check(self) -> None:
        """Raises `ConfigError` where nothing could be learned from such runs."""
        self.workspace.config.check_crew(self.crew)
        content = self.workspace.config.traces.content
        if content != "full":
            raise ConfigError(
                f'nothing can be learned from what `content = "{content}"` leaves of a run: set `content = "full"` '
                f"under [traces] in {self.workspace.config_file}"
            )
        known = [agent.name for agent in self.crew.agents]
        if self.agent not in known:
            raise ConfigError(f"crew {self.crew.name!r} has no agent {self.agent!r}; it has: {', '.join(known)}")
        (own,) = (agent for agent in self.crew.agents if agent.name == self.agent)
        if own.model is not None:
            raise ConfigError(f"{self.agent} is always answered by {own.model!r}: take `model` out of its table")
        self.score()

    def score(self) -> Scorer:
        return (lambda task, answer: 0.0) if self.scorer is None else load_scorer(self.scorer)

    def origin(self, purpose: Purpose) -> Origin:
        return Origin(purpose=purpose, task_set=self.source or None, task_set_digest=digest_tasks(self.tasks))


class Sampling(NamedTuple):
    """Runs that are wanted."""

    tasks: Sequence[Task]
    policies: PolicyTable
    folder: Path
    """Where episodes are kept: runs that it has are not made again."""
    seeds: Sequence[int]
    """A run of each task for each of them."""
    concurrency: int
    explores: bool = True
    """Whether the agent's replies are sampled, and somebody may learn from them; else the runs are a measurement."""
    may_begin: Callable[[Task], Awaitable[bool]] | None = None
    """Is asked before each run."""
    on_episode: Callable[[Episode], None] = lambda episode: None
    purpose: Purpose | None = None
    """None: what follows from `explores`. A measurement may be sampled, too."""


def sample_group(exploring: Exploring, wanted: Sampling) -> list[Episode]:
    """The runs, those of a seed after another.

    Raises `ServerError` where a server failed; the runs that ended are kept, and the same call goes on.
    """
    wanted.folder.mkdir(parents=True, exist_ok=True)
    return asyncio.run(_sample(exploring, wanted))


async def _sample(exploring: Exploring, wanted: Sampling) -> list[Episode]:
    models, scorer = Watched(exploring.backend.models), exploring.score()
    with Recording(exploring.workspace, compacts=True) as recording:

        def runs(seed: int) -> Coroutine[Any, Any, list[Episode]]:
            return evaluate(
                _runtime(exploring, models, recording, wanted, seed),
                wanted.tasks,
                scorer,
                origin=exploring.origin(wanted.purpose or ("rollout" if wanted.explores else "evaluation")),
                models=models,
                path=wanted.folder / f"{seed}.jsonl",
                concurrency=max(1, wanted.concurrency // len(wanted.seeds)),
                label=None if exploring.scorer is None else recording.label,
                may_begin=wanted.may_begin,
                on_episode=wanted.on_episode,
            )

        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(runs(seed)) for seed in wanted.seeds]
        except ExceptionGroup as failures:  # The first of them stopped the others.
            raise failures.exceptions[0] from None
        finally:
            await models.aclose()
    return [episode for task in running for episode in task.result()]


def _runtime(exploring: Exploring, models: Watched, recording: Recording, wanted: Sampling, seed: int) -> Runtime:
    def explored(request: ModelRequest) -> ModelRequest:
        return request.model_copy(update={"temperature": 1.0}) if request.agent == exploring.agent else request

    return Runtime(
        exploring.crew,
        model=models,
        tracer=recording.tracer,
        policies=wanted.policies,
        router=exploring.backend.router,
        prices=exploring.workspace.config.traces.prices,
        revise=explored if wanted.explores else None,
        base_digest=exploring.backend.base_digest,
        seed=seed,
    )


def tasks_of(tasks: Sequence[Task], step: int, count: int, seed: int) -> list[Task]:
    """The tasks of a step, from 0: all are taken, in an order of their own in each epoch, before any comes again."""
    count = min(count, len(tasks))
    orders: Mapping[int, list[Task]] = {
        epoch: Random(f"{seed} {epoch}").sample(tasks, len(tasks))
        for epoch in range(step * count // len(tasks), ((step + 1) * count - 1) // len(tasks) + 1)
    }
    places = range(step * count, (step + 1) * count)
    return list({(task := orders[n // len(tasks)][n % len(tasks)]).id: task for n in places}.values())
