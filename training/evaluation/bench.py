"""The bench: a crew on tasks with known answers, evaluated under one policy table after another."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import JsonValue

from journeyman.agents.agent import Crew
from journeyman.agents.crew_file import load_crew
from journeyman.agents.model import BASE
from journeyman.runtime.adapters.adapter import (
    adapter_digests,
    adapter_folders,
    find_adapter,
    prompt_forms,
)
from journeyman.runtime.adapters.live import AdapterServer, swap_in
from journeyman.runtime.adapters.prompts import read_prompts
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError, ServerError
from journeyman.traces.prices import Price
from journeyman.traces.trace import LEARNED_FROM, Origin, Purpose, Task, digest_tasks
from journeyman.training.evaluation.evaluate import Episode, Watched, evaluate, known, load_scorer, read_episodes
from journeyman.training.evaluation.gate import Setup

if TYPE_CHECKING:
    from journeyman.runtime.serving.backend import Backend

VERSION = 2
"""Of what an episode means. Before 2 a run that failed for want of its policy counted as one, with score 0."""


class Bench:
    """A crew and tasks, answered as the crew is in service: by the workspace's server and endpoints, along its routes.

    Episodes are kept in the workspace, a file for each set of conditions that a score depends on, and never run twice.
    """

    def __init__(
        self,
        workspace: Workspace,
        crew: Crew,
        tasks: Sequence[Task],
        scorer: str,
        *,
        backend: Callable[[], "Backend"],
        conditions: Sequence[JsonValue],
        source: str = "",
        purpose: Purpose = "evaluation",
        concurrency: int = 8,
        seed: int = 0,
        temperature: float = 0.0,
        prices: Mapping[str, Price] | None = None,
    ) -> None:
        """`backend` is asked only where a task is left to run; `conditions` are the crew's and the models', besides
        the tasks, the scorer and the policies. `source` says where the tasks are from, `purpose` what they are run
        for: an evaluation's episodes count in a gate, but what is learned from is run for that. What is run to teach is
        judged afterwards. `prices` are by default the workspace's."""
        self.crew = crew
        self.setup = Setup(crew=crew.name, tasks=source, tasks_digest=digest_tasks(tasks), scorer=scorer, seed=seed)
        self._origin = Origin(
            purpose=purpose,
            task_set=source or None,
            task_set_digest=self.setup.tasks_digest,
            judged=purpose == "teach",
        )
        self.tasks = tasks
        self._workspace = workspace
        self._config = workspace.config
        self._config.check_crew(crew)
        self._scorer = load_scorer(scorer)
        self._backend = backend
        self._concurrency = concurrency
        self._seed = seed
        self._temperature = temperature
        self._prices = self._config.traces.prices if prices is None else prices
        # How many runs are made at once can change a score. What is learned from is paid for, and not made again.
        made_by = [purpose, temperature] if purpose in LEARNED_FROM else [concurrency]
        self._conditions = [VERSION, *conditions, scorer, seed, *made_by]

    @classmethod
    def open(
        cls,
        workspace: Workspace,
        crew: Path,
        tasks: Sequence[Task],
        scorer: str,
        *,
        source: str = "",
        purpose: Purpose = "evaluation",
        concurrency: int = 8,
        seed: int = 0,
    ) -> Self:
        """A crew's file on what the workspace has running; raises `ServerError` where nothing can answer it."""
        from journeyman.runtime.serving.backend import open_backend  # langchain takes a second to import.

        loaded, backend = load_crew(crew), open_backend(workspace)
        return cls(
            workspace,
            loaded,
            tasks,
            scorer,
            backend=lambda: backend,
            conditions=[crew.read_text(encoding="utf-8"), *answered_by(workspace, backend)],
            source=source,
            purpose=purpose,
            concurrency=concurrency,
            seed=seed,
        )

    def named(self, policies: Mapping[str, str]) -> Mapping[str, str]:
        """`policies`, agent to policy, as they are; raises `ConfigError` or `AdapterError` for one that isn't there."""
        agents = [agent.name for agent in self.crew.agents]
        for agent, policy in policies.items():
            if agent not in agents:
                raise ConfigError(f"crew {self.crew.name!r} has no agent {agent!r}; it has: {', '.join(agents)}")
            self._check_policy(policy)
        return policies

    def _check_policy(self, policy: str) -> None:
        others = (BASE, *self._config.models)
        if policy in others:
            return
        if "@" in policy:
            find_adapter(self._workspace.adapters, policy)
            return
        adapters = ", ".join(folder.name for folder in adapter_folders(self._workspace.adapters))
        there = f"adapters {adapters}" if adapters else "no adapter yet"
        raise ConfigError(f"unknown policy {policy!r}; have {', '.join(others)}, and {there}")

    def episodes(
        self,
        policies: PolicyTable,
        *,
        may_begin: Callable[[Task], Awaitable[bool]] | None = None,
        on_episode: Callable[[Episode], None] = lambda episode: None,
        again: bool = False,
    ) -> list[Episode]:
        """The tasks run under those policies, in their order; what was run before is read, unless `again`.

        `may_begin` is asked before each run; a task that it refuses has no episode.

        Every adapter that the crew may ask for is loaded and proved first. Raises `AdapterError` or `ServerError` where
        one can't be, before any run is made, and `ServerError` where a run failed of its server: that is no episode.
        """
        path = self._path(policies)
        if not again and len(made := known(path, self.tasks)) == len(self.tasks):
            for episode in made:
                on_episode(episode)
            return made
        backend = self._backend()
        bring_in(self._workspace, map(policies.weights, self._policies(policies)), backend)
        # What is learned from is paid for: it stays until the new run of the same task is there.
        anew = again and self._origin.purpose in LEARNED_FROM
        if again and not anew:
            path.unlink(missing_ok=True)
        return asyncio.run(self._run(policies, backend, path, may_begin, on_episode, anew=anew))

    def known(self, policies: PolicyTable) -> list[Episode]:
        """The episodes under those policies that were made before."""
        return known(self._path(policies), self.tasks)

    def _policies(self, policies: PolicyTable) -> set[str]:
        """All that an agent of the crew may ask for, fallbacks included."""
        return set(chain.from_iterable(policies.chain(agent, None) for agent in self.crew.agents))

    async def _run(
        self,
        policies: PolicyTable,
        backend: "Backend",
        path: Path,
        may_begin: Callable[[Task], Awaitable[bool]] | None,
        on_episode: Callable[[Episode], None],
        *,
        anew: bool,
    ) -> list[Episode]:
        models = Watched(backend.models)
        with Recording(self._workspace, compacts=True) as recording:
            async with Runtime(
                self.crew,
                model=models,
                tracer=recording.tracer,
                policies=policies,
                router=backend.router,
                prices=self._prices,
                base_digest=backend.base_digest,
                seed=self._seed,
                temperature=self._temperature,
            ) as runtime:
                return await evaluate(
                    runtime,
                    self.tasks,
                    self._scorer,
                    origin=self._origin,
                    models=models,
                    path=path,
                    concurrency=self._concurrency,
                    label=recording.label,
                    may_begin=may_begin,
                    on_episode=on_episode,
                    anew=anew,
                )

    def _path(self, policies: PolicyTable) -> Path:
        conditions = [*self._conditions, policies.model_dump(mode="json", exclude={"forms", "prompts"})]
        key = sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:16]
        return _folder(self._workspace) / f"{key}.jsonl"


def evaluated(workspace: Workspace) -> frozenset[str]:
    """Trace ids of all episodes that the workspace keeps."""
    files = sorted(_folder(workspace).glob("*.jsonl"))
    return frozenset(episode.trace_id for path in files for episode in read_episodes(path))


def bring_in(workspace: Workspace, policies: Iterable[str], backend: "Backend") -> None:
    """Loads and proves those of the policies that are adapters and not served yet; raises `AdapterError` where one
    can't be, and `ServerError` where no server runs."""
    wanted = sorted({policy for policy in policies if "@" in policy})
    if not wanted:
        return
    if backend.server is None:
        raise ServerError(f"{wanted[0]} needs the workspace's server: `journeyman server start`")
    with AdapterServer(backend.server.url) as live:
        served = live.served()
    if missing := [policy for policy in wanted if policy not in served]:
        with workspace.lock("swap"):
            for policy in missing:
                swap_in(workspace, backend.server, policy)


def _folder(workspace: Workspace) -> Path:
    return workspace.root / "evaluations"


def with_policies(workspace: Workspace, table: PolicyTable, policies: Mapping[str, str]) -> PolicyTable:
    """`table` with other policies for some agents."""
    digests = adapter_digests(workspace.adapters, policies.values())
    forms = prompt_forms(workspace.adapters, policies.values())
    update = {
        "agents": {**table.agents, **policies},
        "digests": {**table.digests, **digests},
        "forms": {**table.forms, **forms},
        "prompts": {**table.prompts, **read_prompts(workspace.adapters, policies.values())},
    }
    return table.model_copy(update=update)


def answered_by(workspace: Workspace, backend: "Backend") -> list[JsonValue]:
    """What a score depends on besides the policies: the base model, other endpoints, routes, and prices."""
    server, config = backend.server, workspace.config
    classifier = config.routing is not None and config.routing.classifier
    return [
        None if server is None else [server.model, server.model_digest],
        config.model_dump(
            mode="json",
            include={"models": True, "routing": True, "traces": {"prices"}},
            exclude={"models": {"__all__": {"teacher", "terms"}}},
        ),
        workspace.router.read_text(encoding="utf-8") if classifier else None,
    ]
