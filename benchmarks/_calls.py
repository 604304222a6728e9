"""BFCL's function calls for `rewards.py` and `ladder.py`: what is shown, what is rewarded only, what is held out."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import fmean
from time import monotonic
from typing import NamedTuple

from journeyman.agents.model import BASE
from journeyman.runtime.adapters import live
from journeyman.runtime.adapters.adapter import Adapter
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.serving.backend import Backend
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import TrainingError
from journeyman.traces.trace import Purpose, Task
from journeyman.training.data.choosing.caps import Cap
from journeyman.training.data.choosing.choose import ChooseConfig, Choosing
from journeyman.training.data.datasets.card import Provenance
from journeyman.training.data.datasets.shelf import KnownDataset, open_dataset
from journeyman.training.data.demonstrations import TEACHER, Demonstrated, read_demonstration
from journeyman.training.data.mine import KINDS, mine_to_file
from journeyman.training.data.samples import Kind, dataset_file_name, read_samples
from journeyman.training.data.source import MineConfig, Source
from journeyman.training.demo import bfcl
from journeyman.training.evaluation.bench import with_policies
from journeyman.training.evaluation.evaluate import Episode, known
from journeyman.training.improve.rejection import Served
from journeyman.training.improve.teach import TeachConfig, Teaching
from journeyman.training.improve.teachers import Teachers
from journeyman.training.methods.job import train_adapter
from journeyman.training.methods.recipe import Recipe
from journeyman.training.methods.recipes.known import load_recipe
from journeyman.training.methods.recipes.rft import RoundsTable
from journeyman.training.rollouts.sample import Exploring, Sampling, sample_group

AGENT = bfcl.CALLER
FAMILY = "bfcl-simple"


class Size(NamedTuple):
    shown: int
    """Tasks that are demonstrated."""
    rewarded: int
    """Tasks without a demonstration, which are rewarded only."""
    held_out: int
    samples: int
    """Replies to each held-out task, at temperature 1."""
    sft: Mapping[str, object]
    """What the recipe of the first policy says besides."""
    rounds: int
    best_of: int
    grpo_steps: int
    tokens: int = 128
    """Longest reply."""
    merged: bool | None = None
    """None: as soon as it pays."""


FULL = Size(
    shown=150,
    rewarded=140,
    held_out=110,
    samples=8,
    sft={"trl.max_steps": 40, "trl.learning_rate": 1e-3},
    rounds=4,
    best_of=16,
    grpo_steps=40,
)
QUICK = Size(
    shown=4,
    rewarded=2,
    held_out=2,
    samples=2,
    sft={"trl.max_steps": 5, "trl.learning_rate": 4e-3, "trl.per_device_train_batch_size": 4},
    rounds=1,
    best_of=2,
    grpo_steps=1,
    tokens=64,
    merged=False,
)


class Clock:
    """A line of what goes on, with the time that is left by what was done so far."""

    def __init__(self, units: float) -> None:
        """`units` are those of all stages together."""
        self._units = units
        self._done = 0.0
        self._began = monotonic()

    @contextmanager
    def stage(self, title: str, units: float) -> Iterator[Callable[[float], None]]:
        """Gives a function that is told the share of the stage that is done."""
        shown = -1

        def tell(share: float) -> None:
            nonlocal shown
            if (tenth := int(10 * share)) > shown:
                shown = tenth
                self._line(f"{title}: {share:4.0%}", self._done + units * share)

        self._line(title, self._done)
        yield tell
        self._done += units

    def _line(self, text: str, done: float) -> None:
        spent = monotonic() - self._began
        left = "" if done <= 0 else f", about {spent / done * (self._units - done) / 60:.0f} min left"
        print(f"[{spent / 60:5.1f} min{left}] {text}", flush=True)


class Calls:
    """The tasks in their parts, and what a policy makes of them. What is done is kept in the workspace."""

    def __init__(self, workspace: Workspace, size: Size, clock: Clock, *, seed: int) -> None:
        self.workspace = workspace
        self.size = size
        self.clock = clock
        self.seed = seed
        self.crew = bfcl.caller_crew(size.tokens)
        self.base_model = Path(pull_model(workspace.config.server.model))
        shown, rewarded, held_out = bfcl.parts(bfcl.tasks("simple"), (size.shown, size.rewarded, size.held_out))
        self.shown = shown[: size.shown]
        # A quick run has no time to learn anything but what it was shown.
        self.rewarded = (rewarded if size.merged is None else shown)[: size.rewarded]
        self.held_out = (held_out if size.merged is None else shown)[: size.held_out]

    def demonstrated(self) -> Collection[str]:
        """The traces of the right calls that the shown tasks have, as runs of the crew."""
        demonstrations = {task.id: read_demonstration(task, self.crew) for task in self.shown}
        teachers = Teachers(
            crew=self.crew,
            policies=PolicyTable(agents={AGENT: TEACHER}),
            tasks=tuple(self.shown),
            models={TEACHER: Demonstrated(self.crew, demonstrations)},
        )
        config = TeachConfig(scorer=bfcl.SCORER)
        teaching = Teaching(self.workspace, teachers, config, source=FAMILY, conditions=[self.size.tokens])
        return teaching.teach().accepted.values()

    def first_policy(self) -> str:
        """SFT on the demonstrated part, put into service: what all methods start from."""
        with self.clock.stage(f"SFT on {len(self.shown)} demonstrations", 3) as tell:
            dataset = self.mined("sft", MineConfig(), self.demonstrated())
            adapter = self.train(dataset, "sft", self.size.sft, start=BASE, tell=tell)
            if Journal(self.workspace.journal).in_service(AGENT) != adapter.policy:
                live.promote(self.workspace, adapter.policy, reason="a benchmark's first policy", server=None)
        return adapter.policy

    def mined(self, kind: Kind, config: MineConfig, ids: Collection[str]) -> KnownDataset:
        """Rows of that kind from those runs, at most four a task; raises `TrainingError` where there is none."""
        source = Source(self.workspace.store, AGENT, config, ids=ids)
        mining, choosing = KINDS[kind](source), Choosing(source, ChooseConfig(caps=(Cap(field="task", rows=4),)))
        made = Provenance.now(self.workspace, {"agent": AGENT, "kind": kind})
        file = mine_to_file(
            mining, self.workspace.datasets, lambda digest: dataset_file_name(AGENT, digest), choosing, made
        )
        if file is None:
            raise TrainingError(f"no row of kind {kind} came of these runs: {mining.refused}")
        return open_dataset(self.workspace, file.path)

    def train(
        self,
        dataset: KnownDataset,
        recipe: str,
        overrides: Mapping[str, object],
        *,
        start: str,
        tell: Callable[[float], None] = lambda share: None,
    ) -> Adapter:
        return self.fit(dataset, load_recipe(recipe, dict(overrides)), start=start, tell=tell)

    def fit(self, dataset: KnownDataset, recipe: Recipe, *, start: str, tell: Callable[[float], None]) -> Adapter:
        return train_adapter(
            read_samples(dataset.path, recipe.learns_from),
            agent=AGENT,
            recipe=recipe,
            base_model=self.base_model,
            workspace=self.workspace,
            # The first policy replaces the base model, also when it is made again after its promotion.
            parent=BASE if start == BASE else Journal(self.workspace.journal).in_service(AGENT),
            start=start,
            dataset=dataset,
            on_step=lambda step: tell(step.number / step.steps),
        )

    def served(self) -> Served:
        """What answers while many replies are drawn: merged weights where that pays."""
        table = RoundsTable(merged=self.size.merged)
        return Served(self.workspace, self.crew, AGENT, table, self.base_model, lambda policy: None)

    def sampled(
        self, policy: str, tasks: Sequence[Task], seeds: Sequence[int], purpose: Purpose, title: str
    ) -> list[Episode]:
        """A run of each task for each seed, at temperature 1; what was drawn before isn't drawn again."""
        folder = self.workspace.root / "draws" / f"{policy}-{purpose}"
        before = [known(folder / f"{seed}.jsonl", tasks) for seed in seeds]
        if all(len(of_seed) == len(tasks) for of_seed in before):
            return [episode for of_seed in before for episode in of_seed]
        runs, made = len(tasks) * len(seeds), count(1)
        with (
            self.clock.stage(f"{title}: {runs} runs of {policy}", 1 + runs / 400) as tell,
            self.served()(policy, tokens=runs * 30) as backend,
        ):
            wanted = Sampling(
                tasks=tasks,
                policies=with_policies(self.workspace, PolicyTable(), {AGENT: policy}),
                folder=folder,
                seeds=seeds,
                concurrency=32,
                on_episode=lambda episode: tell(next(made) / runs),
                purpose=purpose,
            )
            return sample_group(self.exploring(tasks, backend), wanted)

    def exploring(self, tasks: Sequence[Task], backend: Backend) -> Exploring:
        return Exploring(
            workspace=self.workspace,
            crew=self.crew,
            agent=AGENT,
            tasks=tasks,
            held_out=(),
            scorer=bfcl.SCORER,
            backend=backend,
            source=FAMILY,
        )

    def measured(self, policy: str) -> "Measured":
        """Of the held-out tasks: what the samples scored by task, and their entropy."""
        episodes = self.sampled(policy, self.held_out, range(self.size.samples), "evaluation", "held-out tasks")
        scores: dict[str, list[float]] = defaultdict(list)
        for episode in episodes:
            scores[episode.task_id].append(episode.score)
        return Measured(scores, self._entropy([episode.trace_id for episode in episodes]))

    def _entropy(self, ids: Sequence[str]) -> float:
        """Mean of -log p over the tokens that were sampled at temperature 1, which is their entropy in the mean."""
        turns = (turn for trace in self.workspace.store.traces(ids=ids) for turn in trace.turns)
        logprobs = [logprob for turn in turns for logprob in turn.logprobs or ()]
        return -fmean(logprobs) if logprobs else 0.0


class Measured(NamedTuple):
    scores: Mapping[str, Sequence[float]]
    """By task, of each sample."""
    entropy: float
    """Nats a token."""

    @property
    def by_task(self) -> dict[str, float]:
        return {task_id: fmean(scores) for task_id, scores in self.scores.items()}

    @property
    def mean(self) -> float:
        return fmean(self.by_task.values())

    @property
    def any_right(self) -> float:
        """Share of the tasks that any of the samples solves."""
        return fmean(max(scores) == 1.0 for scores in self.scores.values())


def flat_share(episodes: Sequence[Episode]) -> float:
    """Of the tasks, whose runs all came to the same score."""
    scores: dict[str, set[float]] = defaultdict(set)
    for episode in episodes:
        scores[episode.task_id].add(episode.score)
    return fmean(len(of_task) == 1 for of_task in scores.values())
