"""RFT's rounds: an agent samples with its newest weights, what is right is kept, and SFT on it gives the next ones."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from hashlib import sha256
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Protocol, cast

from pydantic import JsonValue

from journeyman.agents.agent import Crew
from journeyman.runtime.adapters.adapter import Adapter
from journeyman.runtime.adapters.live import current_policies
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import Record
from journeyman.traces.errors import TrainingError
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.trace import Purpose, Task, Turn
from journeyman.training.data.choosing.choose import Choosing
from journeyman.training.data.datasets.card import Provenance
from journeyman.training.data.datasets.shelf import KnownDataset, open_dataset
from journeyman.training.data.mine import mine_to_file
from journeyman.training.data.samples import dataset_file_name
from journeyman.training.data.sft import SFTMining
from journeyman.training.data.source import MineConfig, Source
from journeyman.training.data.tasks.heldout import HeldOut
from journeyman.training.evaluation.bench import with_policies
from journeyman.training.evaluation.evaluate import Episode, mean_interval
from journeyman.training.methods.recipes.rft import RFTRecipe
from journeyman.training.rollouts.sample import Exploring, Sampling, sample_group

if TYPE_CHECKING:
    from journeyman.runtime.serving.backend import Backend

FOLDER = "rounds"
"""Of the workspace: the runs of each policy, so that none is made twice."""


class Measured(Record):
    """A policy on the tasks of `[eval]`."""

    policy: str
    tasks: int
    mean: float
    """Of the sampled scores."""
    low: float
    high: float
    """Bounds of the mean: bootstrap over tasks, 95%."""

    @property
    def told(self) -> str:
        return f"{self.policy} on {self.tasks} held-out tasks: {self.mean:.3f} ({self.low:.3f} .. {self.high:.3f})"


class RFTRound(Record):
    """What came of one round."""

    number: int
    sampled: str
    """The policy that sampled."""
    policy: str | None
    """The adapter that it has trained; None where no run was accepted."""
    tasks: int
    runs: int
    score: float
    """Mean of the runs."""
    accepted: int
    """Runs that were good enough."""
    solved: int
    """Tasks with such a run."""
    flat_share: float
    """Of the tasks, whose runs were all good enough or none."""
    rows: int
    """That were learned from."""
    refused: Mapping[str, int]
    """Turns of kept runs that gave no row, by reason."""
    tokens: int
    """Generated while sampling."""

    @property
    def told(self) -> str:
        learned = f"{self.rows} rows gave {self.policy}" if self.policy else "nothing to learn from, so it ends here"
        return (
            f"round {self.number}: {self.accepted} of {self.runs} runs of {self.sampled} accepted, on {self.solved} of "
            f"{self.tasks} tasks, {self.flat_share:.0%} of them flat; {learned}"
        )


class RFTResult(Record):
    """What came of a job."""

    start: str
    policy: str
    """The result: the best on the tasks of `[eval]`, else the last."""
    rounds: tuple[RFTRound, ...]
    held_out: tuple[Measured, ...] = ()
    """The policy that it started from, then each round's."""


class Serve(Protocol):
    def __call__(self, policy: str, *, tokens: float) -> AbstractContextManager["Backend"]:
        """What answers to that policy while some `tokens` are generated."""


class Train(Protocol):
    def __call__(self, dataset: KnownDataset, *, start: str) -> Adapter:
        """SFT on a round's rows, from the weights of `start`."""


class RFT:
    """One job, ready to begin: the same call again goes on where it was stopped, and makes nothing twice."""

    def __init__(
        self,
        workspace: Workspace,
        crew: Crew,
        agent: str,
        tasks: Sequence[Task],
        recipe: RFTRecipe,
        *,
        scorer: str,
        start: str,
        serve: Serve,
        train: Train,
        held_out: Sequence[Task] = (),
        source: str = "",
        on_run: Callable[[int, int], None] = lambda made, runs: None,
        on_round: Callable[[RFTRound], None] = lambda made: None,
        on_measured: Callable[[Measured], None] = lambda measured: None,
    ) -> None:
        """`tasks` are learned from, `held_out` are those of `[eval]`, `source` says where the former are from. `scorer`
        says how good an answer is, as `module:function`."""
        self._workspace = workspace
        self._crew = crew
        self._agent = agent
        self._tasks = tasks
        self._recipe = recipe
        self._scorer = scorer
        self._start = start
        self._serve = serve
        self._train = train
        self._held_out = held_out
        self._source = source
        self._on_run = on_run
        self._on_round = on_round
        self._on_measured = on_measured
        self._good: dict[str, list[bool]] = defaultdict(list)
        """By task, whether each run of it so far was good enough."""
        self._per_run: float | None = None
        """Tokens that a run has generated in the mean."""
        self._exploring(tasks, cast("Backend", None)).check()  # Which asks nobody.

    def run(self) -> RFTResult:
        """All rounds, or as many as have something to learn from.

        Raises `TrainingError` where the first one has no accepted run, and what serving and training raise.
        """
        rounds, measured, policy = list[RFTRound](), list[Measured](), self._start
        for number in range(1, self._recipe.rft.rounds + 1):
            made = self._round(number, policy, measured)
            rounds.append(made)
            self._on_round(made)
            if made.policy is None:
                break
            policy = made.policy
        if self._held_out and policy not in {one.policy for one in measured}:
            with self._serve(policy, tokens=self._expected(len(self._held_out) * self._recipe.eval.samples)) as backend:
                measured.append(self._measured(policy, backend))
        return RFTResult(
            start=self._start, policy=_best(policy, measured), rounds=tuple(rounds), held_out=tuple(measured)
        )

    def _round(self, number: int, policy: str, measured: list[Measured]) -> RFTRound:
        tasks = self._chosen()
        runs = self._recipe.rft.best_of * len(tasks) + self._recipe.eval.samples * len(self._held_out)
        with self._serve(policy, tokens=self._expected(runs)) as backend:
            if self._held_out:
                measured.append(self._measured(policy, backend))
            first = self._recipe.rft.seed + (number - 1) * self._recipe.rft.best_of
            seeds = range(first, first + self._recipe.rft.best_of)
            episodes = self._sampled(self._exploring(tasks, backend), policy, seeds)
        good = [episode for episode in episodes if episode.score >= self._recipe.rft.min_score]
        for episode in episodes:
            self._good[episode.task_id].append(episode.score >= self._recipe.rft.min_score)
        solved = Counter(episode.task_id for episode in good)
        tries = Counter(episode.task_id for episode in episodes)
        dataset, refused = self._dataset(number, policy, self._kept(good)) if good else (None, {})
        if dataset is None and number == 1:
            raise TrainingError(self._nothing(episodes, refused))
        adapter = None if dataset is None else self._train(dataset, start=policy)
        return RFTRound(
            number=number,
            sampled=policy,
            policy=None if adapter is None else adapter.policy,
            tasks=len(tasks),
            runs=len(episodes),
            score=fmean(episode.score for episode in episodes),
            accepted=len(good),
            solved=len(solved),
            flat_share=sum(solved[task_id] in (0, made) for task_id, made in tries.items()) / len(tries),
            rows=0 if dataset is None else dataset.card.rows,
            refused=refused,
            tokens=sum(episode.output_tokens for episode in episodes),
        )

    def _chosen(self) -> list[Task]:
        """The round's tasks: those first that neither always nor never succeed; of such, what was tried least."""

        def tells(task: Task) -> tuple[float, int, bytes]:
            tries = self._good[task.id]
            rate = (sum(tries) + 1) / (len(tries) + 2)
            return -rate * (1 - rate), len(tries), sha256(f"{self._recipe.rft.seed} {task.id}".encode()).digest()

        return sorted(self._tasks, key=tells)[: self._recipe.rft.tasks]

    def _sampled(
        self, exploring: Exploring, policy: str, seeds: Sequence[int], purpose: Purpose = "rollout"
    ) -> list[Episode]:
        table, made, runs = self._table(policy), count(1), len(exploring.tasks) * len(seeds)
        wanted = Sampling(
            tasks=exploring.tasks,
            policies=table,
            folder=self._folder(exploring, table, purpose),
            seeds=seeds,
            concurrency=self._recipe.rft.concurrency,
            on_episode=lambda episode: self._on_run(next(made), runs),
            purpose=purpose,
        )
        episodes = sample_group(exploring, wanted)
        self._per_run = fmean(episode.output_tokens for episode in episodes)
        return episodes

    def _measured(self, policy: str, backend: "Backend") -> Measured:
        exploring = self._exploring(self._held_out, backend)
        episodes = self._sampled(exploring, policy, range(self._recipe.eval.samples), "evaluation")
        scores = defaultdict(list)
        for episode in episodes:
            scores[episode.task_id].append(episode.score)
        means = [fmean(of_task) for of_task in scores.values()]
        low, high = mean_interval(means, confidence=0.95)
        measured = Measured(policy=policy, tasks=len(means), mean=fmean(means), low=low, high=high)
        self._on_measured(measured)
        return measured

    def _exploring(self, tasks: Sequence[Task], backend: "Backend") -> Exploring:
        return Exploring(
            workspace=self._workspace,
            crew=self._crew,
            agent=self._agent,
            tasks=tasks,
            held_out=(),
            scorer=self._scorer,
            backend=backend,
            source=self._source,
        )

    def _kept(self, good: Sequence[Episode]) -> list[str]:
        """Trace ids of the accepted runs that are learned from: of a task the best, each with other replies."""
        ids = {episode.trace_id: episode.task_id for episode in sorted(good, key=lambda episode: -episode.score)}
        said = {trace.trace_id: _replies(trace.turns, self._agent) for trace in self._store.traces(ids=list(ids))}
        known: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        kept = []
        for trace_id, task_id in ids.items():
            replies = said.get(trace_id)
            if replies and replies not in known[task_id] and len(known[task_id]) < self._recipe.rft.keep:
                known[task_id].add(replies)
                kept.append(trace_id)
        return kept

    def _dataset(self, number: int, policy: str, ids: Sequence[str]) -> tuple[KnownDataset | None, Mapping[str, int]]:
        """The round's rows, None where what was accepted may not be learned from; and turns that gave none."""
        config = MineConfig(policy=(policy,), purposes=("rollout",))
        source = Source(self._store, self._agent, config, ids=ids, held_out=HeldOut.of(self._workspace))
        mining, choosing = SFTMining(source), Choosing(source)
        told: dict[str, JsonValue] = {"agent": self._agent, "kind": "sft", "method": "rft", "tasks": self._source}
        file = mine_to_file(
            mining,
            self._workspace.datasets,
            lambda digest: dataset_file_name(self._agent, digest),
            choosing,
            Provenance.now(self._workspace, told | {"round": number, "sampled": policy}),
        )
        refused = mining.refused | choosing.chosen.left_out
        return (None if file is None else open_dataset(self._workspace, file.path)), refused

    def _nothing(self, episodes: Sequence[Episode], refused: Mapping[str, int]) -> str:
        score = fmean(episode.score for episode in episodes)
        if refused:
            why = f"nothing that was accepted may be learned from: {_counted(refused)}"
        else:
            least = self._recipe.rft.min_score
            why = f"none of {len(episodes)} runs scored {least:g} or more, the mean is {score:.3f}"
        if ended := Counter(f"run {episode.status}" for episode in episodes if episode.status != "ok"):
            why += f" ({_counted(ended)})"
        return (
            f"{self._start} gives {self._agent} nothing to learn from: {why}; "
            "train on demonstrations first (`journeyman teach`), or raise rft.best_of"
        )

    def _expected(self, runs: int) -> float:
        """Tokens that so many runs will generate."""
        (agent,) = (agent for agent in self._crew.agents if agent.name == self._agent)
        return runs * (agent.limits.tokens / 2 if self._per_run is None else self._per_run)

    def _table(self, policy: str) -> PolicyTable:
        """The others as in service; nobody stands in for the agent that learns."""
        table = with_policies(self._workspace, current_policies(self._workspace), {self._agent: policy})
        fallbacks = {name: behind for name, behind in table.fallbacks.items() if name != self._agent}
        return table.model_copy(update={"fallbacks": fallbacks})

    @cached_property
    def _store(self) -> TraceStore:
        return self._workspace.store

    def _folder(self, exploring: Exploring, table: PolicyTable, purpose: Purpose) -> Path:
        """Of runs under those policies, whatever the job: one that goes on, or learns otherwise, makes none again."""
        answered = [table.model_dump(mode="json", exclude={"forms"}), exploring.backend.base_digest]
        crew = self._crew.model_dump_json(exclude={"tools"})
        conditions = [self._agent, crew, *answered, self._scorer, purpose]
        key = sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:16]
        return self._workspace.root / FOLDER / key


def _replies(turns: Sequence[Turn], agent: str) -> tuple[str, ...]:
    return tuple(turn.response.model_dump_json() for turn in turns if turn.agent == agent and turn.response is not None)


def _best(last: str, measured: Sequence[Measured]) -> str:
    """Of the rounds' adapters the one with the highest mean; of equal ones the earliest."""
    return max(measured[1:], key=lambda one: one.mean).policy if len(measured) > 1 else last


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} ({count})" for reason, count in reasons.items())
