"""`journeyman evaluate`: how well a crew does on tasks with known answers."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue

from journeyman.agents.crew_file import load_crew
from journeyman.runtime.adapters.adapter import adapter_digests
from journeyman.runtime.adapters.live import current_policies
from journeyman.runtime.batch import read_tasks
from journeyman.runtime.console import AttachOption, JsonOption, WorkspaceOption, emit, notes, out, progress
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.serving.server import ServerState, attach, running
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.evaluation.evaluate import Episode, Summary, Watched, evaluate, load_scorer, summarise

CrewOption = Annotated[Path, typer.Option("--crew", metavar="FILE", help="The crew's TOML file")]
TasksOption = Annotated[Path, typer.Option("--tasks", metavar="FILE", help="Tasks with references, JSON lines")]
ScorerOption = Annotated[
    str, typer.Option("--scorer", metavar="MODULE:FUNCTION", help="Takes a task and an answer, gives 0..1")
]
ConcurrencyOption = Annotated[int, typer.Option("--concurrency", min=1, help="Tasks at once")]
SeedOption = Annotated[int, typer.Option("--seed", help="Sampling seed of every model call")]

SCORER = "journeyman.training.rewards:answer_in_text"


def evaluate_command(
    crew: CrewOption,
    tasks: TasksOption,
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", metavar="AGENT=POLICY", help="Another policy than the one in service; repeatable"),
    ] = None,
    scorer: ScorerOption = SCORER,
    concurrency: ConcurrencyOption = 8,
    seed: SeedOption = 0,
    attach: AttachOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a crew on tasks with known answers and print its mean score.

    Tasks that were evaluated before are not run again, where crew, policies, endpoints, routes, seed and scorer are the
    same.

    Example: journeyman evaluate --crew crew.toml --tasks test.jsonl --policy clerk=clerk@2
    """
    ws = find_workspace(workspace)
    if attach is not None:
        use_server(ws, attach)
    bench = Bench(ws, crew, find_tasks(tasks), scorer, concurrency=concurrency, seed=seed)
    table = with_policies(ws, current_policies(ws), bench.named(policy or []))
    episodes = bench.episodes(table, "evaluate")
    summary = summarise(crew.stem, episodes)
    emit(summary, as_json, lambda: _show(summary))
    if lost := [episode for episode in episodes if episode.status != "ok"]:
        first = f"{lost[0].task_id} {lost[0].status}: {lost[0].error}"
        notes.print(f"{len(lost)} of {len(episodes)} runs did not end ok; first: {first}", markup=False)


class Bench:
    """A crew and tasks, on which one policy table after another can be evaluated.

    The crew is answered as it is in service: by the workspace's server and its `[models]`, along its `[routing]`.
    """

    def __init__(
        self,
        workspace: Workspace,
        crew: Path,
        tasks: Sequence[Task],
        scorer: str,
        *,
        concurrency: int,
        seed: int,
    ) -> None:
        from journeyman.runtime.serving.backend import open_backend  # langchain takes a second to import.

        self.crew = load_crew(crew)
        self._config = workspace.config
        self._config.check_crew(self.crew)
        self._workspace = workspace
        self._tasks = tasks
        self._scorer = load_scorer(scorer)
        self._asked = open_backend(workspace)
        self._models = Watched(self._asked.models)
        self._concurrency = concurrency
        self._seed = seed
        self._conditions = [crew.read_text(encoding="utf-8"), scorer, seed, concurrency, *self._answered_by()]

    def named(self, pairs: Sequence[str]) -> dict[str, str]:
        """Agent to policy from `AGENT=POLICY`; raises `ConfigError` where there is no such agent or policy."""
        policies = dict(map(_pair, pairs))
        agents = [agent.name for agent in self.crew.agents]
        for agent, policy in policies.items():
            if agent not in agents:
                raise ConfigError(f"crew {self.crew.name!r} has no agent {agent!r}; it has: {', '.join(agents)}")
            self._config.check_policy(policy)
        return policies

    def episodes(self, policies: PolicyTable, title: str) -> list[Episode]:
        """The tasks run under those policies, with a bar; what was run before under the same conditions is read."""
        with progress() as bar:
            row = bar.add_task(title, total=len(self._tasks))
            return asyncio.run(self._episodes(policies, lambda episode: bar.advance(row)))

    async def _episodes(self, policies: PolicyTable, on_episode: Callable[[Episode], None]) -> list[Episode]:
        with Recording(self._workspace, compacts=True) as recording:
            async with Runtime(
                self.crew,
                model=self._models,
                tracer=recording.tracer,
                policies=policies,
                router=self._asked.router,
                prices=self._config.traces.prices,
                base_digest=self._asked.base_digest,
                seed=self._seed,
            ) as runtime:
                return await evaluate(
                    runtime,
                    self._tasks,
                    self._scorer,
                    models=self._models,
                    path=self._path(policies),
                    concurrency=self._concurrency,
                    label=recording.label,
                    on_episode=on_episode,
                )

    def _path(self, policies: PolicyTable) -> Path:
        """A file for each set of conditions that a score depends on."""
        conditions = [*self._conditions, policies.model_dump(mode="json")]
        key = sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:16]
        return self._workspace.root / "evaluations" / f"{key}.jsonl"

    def _answered_by(self) -> list[JsonValue]:
        """What a score depends on besides the policies: the base model, other endpoints, routes, and prices."""
        server, config = self._asked.server, self._config
        return [
            None if server is None else [server.model, server.model_digest],
            config.model_dump(mode="json", include={"models": True, "routing": True, "traces": {"prices"}}),
            self._workspace.router.read_text(encoding="utf-8")
            if config.routing and config.routing.classifier
            else None,
        ]


def with_policies(workspace: Workspace, table: PolicyTable, policies: Mapping[str, str]) -> PolicyTable:
    """`table` with other policies for some agents."""
    digests = adapter_digests(workspace.adapters, policies.values())
    update = {"agents": {**table.agents, **policies}, "digests": {**table.digests, **digests}}
    return table.model_copy(update=update)


def find_tasks(path: Path) -> list[Task]:
    """The tasks of a file; lines that are none are named on stderr and left out."""
    tasks, broken = read_tasks(path)
    for line in broken:
        notes.print(f"{path}, line {line.number}: {line.reason}: left out", markup=False)
    if not tasks:
        raise ConfigError(f'{path}: holds no task: write one a line, as {{"id": "q1", "prompt": "..."}}')
    return tasks


def use_server(workspace: Workspace, url: str | None) -> ServerState:
    """The workspace's server: the one at `url` from now on, else the one that runs; raises `ServerError`."""
    return attach(workspace, url) if url else running(workspace)


def _pair(text: str) -> tuple[str, str]:
    agent, _, policy = text.partition("=")
    if not agent or not policy:
        raise ConfigError(f"--policy {text!r}: write AGENT=POLICY, as in worker=worker@8 or worker=base")
    return agent, policy


def _show(summary: Summary) -> None:
    out.print(
        f"{summary.score:.3f}  mean score over {summary.tasks} tasks ({summary.low:.3f} .. {summary.high:.3f} at 95%)\n"
        f"{summary.solved} solved, {summary.tokens_per_task:.0f} generated tokens and {summary.calls_per_task:.1f} "
        f"model calls a task, {summary.p50_s:.1f} s at the median, {summary.p90_s:.1f} s at P90"
    )
