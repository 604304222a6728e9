"""Evaluation: a crew at work on tasks with known answers, one scored episode a task."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import cast

import numpy as np
from pydantic import ValidationError

from journeyman.agents.model import Model, ModelReply, ModelRequest, ModelTable
from journeyman.runtime.runtime import Runtime
from journeyman.traces.base import Record
from journeyman.traces.errors import PASSING, ConfigError, ModelError, ServerError, StoreError
from journeyman.traces.files import RowFile, is_torn
from journeyman.traces.imports import imported
from journeyman.traces.labels import Label
from journeyman.traces.trace import Origin, Outcome, Status, Task, digest_tasks
from journeyman.training.rewards import Scorer, score_of, solved

RESAMPLES = 10_000

OUTAGES = PASSING - {"timeout"}
"""How a model call fails of its server, and not of what the policy is like."""

UNSERVED = frozenset({401, 403, 404})
"""HTTP statuses of a server that has no such policy, or won't let us ask it."""


class Episode(Record):
    """One task, run once and scored."""

    version: int = 1
    task_id: str
    task_digest: str = ""
    """Of the whole task: an episode of a task that was changed since is not taken up again."""
    score: float
    """0..1; 0 where the run brought no answer."""
    status: Status
    input_tokens: int
    output_tokens: int
    model_calls: int
    seconds: float
    trace_id: str
    error: str | None = None
    cost: float = 0.0
    """Money, by the workspace's price table."""

    @property
    def solved(self) -> bool:
        return solved(self.score)


class Summary(Record):
    """Episodes in one row of a table."""

    name: str
    tasks: int
    score: float
    """Mean."""
    low: float
    high: float
    """Bounds of the mean: bootstrap over tasks, 95%."""
    solved: int
    tokens_per_task: float
    """Generated tokens."""
    calls_per_task: float
    p50_s: float
    p90_s: float


class Watched(ModelTable):
    """Models that remember in which runs a server failed, so that nobody takes that for what a policy can do."""

    def __init__(self, models: ModelTable) -> None:
        self._models = models
        self.terms = models.terms
        self.outages: dict[str, ModelError] = {}
        """By trace id."""

    def __getitem__(self, policy: str) -> Model:
        return _WatchedModel(self._models[policy], self.outages)

    def __contains__(self, policy: object) -> bool:
        return policy in self._models

    async def aclose(self) -> None:
        await self._models.aclose()


async def evaluate(
    runtime: Runtime,
    tasks: Sequence[Task],
    scorer: Scorer,
    *,
    origin: Origin | None = None,
    models: Watched | None = None,
    path: Path | None = None,
    concurrency: int = 8,
    label: Callable[[Label], None] | None = None,
    may_begin: Callable[[Task], Awaitable[bool]] | None = None,
    on_episode: Callable[[Episode], None] = lambda episode: None,
    anew: bool = False,
) -> list[Episode]:
    """Runs every task and scores its answer; episodes come back in the order of the tasks.

    `origin` is for the record, by default an evaluation's, so that nobody learns from what they are measured by.

    A run that fails is an episode with its status. With `path`, each episode is appended to that file (JSON lines) the
    moment it is there. Tasks that the file has episodes of are not run again unless `anew`; then the newer one
    counts. A file is for one crew with one set of policies. `label` gets a `score` label for each trace, and
    `on_episode` every episode.

    `may_begin` is asked before each run; a task that it refuses has no episode.

    With the runtime's `models`, a run in which a server failed is no episode: it raises `ServerError`.
    """
    done = {} if path is None or anew else {(e.task_id, e.task_digest): e for e in read_episodes(path)}
    limit = asyncio.Semaphore(concurrency)
    made_for = origin or Origin(purpose="evaluation", task_set_digest=digest_tasks(tasks))

    async def episode_of(task: Task) -> Episode | None:
        episode = done.get((task.id, _digest(task)))
        if episode is None:
            async with limit:
                if may_begin is not None and not await may_begin(task):
                    return None
                episode = _score(task, await runtime.run(task, origin=made_for), scorer)
            if models is not None and (outage := models.outages.get(episode.trace_id)) is not None:
                raise ServerError(f"task {task.id!r} says nothing: {outage}; run it again, what was measured is kept")
            if label is not None:
                label(_label(episode, scorer))
            if path is not None:
                _append(path, episode)
        on_episode(episode)
        return episode

    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(episode_of(task)) for task in tasks]
    except ExceptionGroup as failures:  # The first of them stopped the others.
        raise failures.exceptions[0] from None
    return [episode for task in running if (episode := task.result()) is not None]


def read_episodes(path: Path) -> list[Episode]:
    """The episodes in a file; a line that a crash cut short is none, so that its task runs again."""
    try:
        return [Episode.model_validate_json(line) for line in RowFile(path) if not is_torn(line)]
    except ValidationError:
        raise ConfigError(f"{path} holds something other than episodes: name another file") from None


def known(path: Path, tasks: Sequence[Task]) -> list[Episode]:
    """Those of the tasks' episodes that the file has, in the order of the tasks."""
    done = {(episode.task_id, episode.task_digest): episode for episode in read_episodes(path)}
    episodes = (done.get((task.id, _digest(task))) for task in tasks)
    return [episode for episode in episodes if episode is not None]


def summarise(name: str, episodes: Sequence[Episode]) -> Summary:
    if not episodes:
        raise ConfigError(f"{name}: there are no episodes to sum up: evaluate some tasks first")
    scores = [episode.score for episode in episodes]
    low, high = mean_interval(scores, confidence=0.95)
    seconds = np.array([episode.seconds for episode in episodes])
    return Summary(
        name=name,
        tasks=len(episodes),
        score=float(np.mean(scores)),
        low=low,
        high=high,
        solved=sum(episode.solved for episode in episodes),
        tokens_per_task=float(np.mean([episode.output_tokens for episode in episodes])),
        calls_per_task=float(np.mean([episode.model_calls for episode in episodes])),
        p50_s=float(np.percentile(seconds, 50)),
        p90_s=float(np.percentile(seconds, 90)),
    )


def measured(episodes: Sequence[Episode]) -> bool:
    """Whether a model answered in any of the runs."""
    return any(episode.model_calls for episode in episodes)


def mean_interval(values: Sequence[float], *, confidence: float, seed: int = 0) -> tuple[float, float]:
    """Two-sided percentile bootstrap of the mean (Efron 1979), from 10,000 resamples with a seed of their own."""
    sample = np.asarray(values, dtype=np.float64)
    draw = np.random.default_rng(seed)
    block = max(1, 1_000_000 // len(sample))  # Resamples at once: memory stays small whatever the number of tasks.
    sizes = [min(block, RESAMPLES - done) for done in range(0, RESAMPLES, block)]
    means = np.concatenate([sample[draw.integers(0, len(sample), (size, len(sample)))].mean(axis=1) for size in sizes])
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def load_scorer(name: str) -> Scorer:
    """The scorer that `module:function` names."""
    scorer = imported(name, "scorer")
    if not callable(scorer):
        raise ConfigError(f"scorer {name!r} is a {type(scorer).__name__}, not a function of a task and an answer")
    return cast("Scorer", scorer)


class _WatchedModel:
    def __init__(self, model: Model, outages: dict[str, ModelError]) -> None:
        self._model = model
        self._outages = outages

    @property
    def provider(self) -> str:
        return self._model.provider

    @property
    def demonstrates(self) -> bool:
        return self._model.demonstrates

    async def complete(self, request: ModelRequest) -> ModelReply:
        try:
            return await self._model.complete(request)
        except ModelError as error:
            if (error.status in UNSERVED or error.kind in OUTAGES) and request.traceparent is not None:
                self._outages[request.traceparent.split("-")[1]] = error
            raise

    async def aclose(self) -> None:
        """`Watched` closes the models."""


def _score(task: Task, outcome: Outcome, scorer: Scorer) -> Episode:
    return Episode(
        task_id=task.id,
        task_digest=_digest(task),
        score=score_of(scorer, task, outcome.answer) if outcome.answer else 0.0,
        status=outcome.status,
        input_tokens=outcome.usage.input_tokens,
        output_tokens=outcome.usage.output_tokens,
        model_calls=outcome.model_calls,
        seconds=outcome.seconds,
        trace_id=outcome.trace_id,
        error=outcome.error,
        cost=outcome.cost,
    )


def _label(episode: Episode, scorer: Scorer) -> Label:
    source = f"{scorer.__module__}:{getattr(scorer, '__qualname__', type(scorer).__qualname__)}"
    return Label(trace_id=episode.trace_id, name="score", source=source, value=episode.score)


def _append(path: Path, episode: Episode) -> None:
    try:
        RowFile(path).append(episode.model_dump_json().encode() + b"\n")
    except OSError as error:
        raise StoreError(f"{path} was not written: {error.strerror}") from error


def _digest(task: Task) -> str:
    return sha256(task.model_dump_json().encode()).hexdigest()[:16]
