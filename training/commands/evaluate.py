"""`journeyman evaluate`: how well a crew does on tasks with known answers."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from journeyman.agents.crew_file import load_crew
from journeyman.agents.model import BASE
from journeyman.runtime.adapter import find_adapter, load_adapter
from journeyman.runtime.adapters import current_policies
from journeyman.runtime.config import Workspace, find_workspace
from journeyman.runtime.console import JsonOption, WorkspaceOption, emit, notes, out, progress
from journeyman.runtime.policies import PolicyTable
from journeyman.runtime.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.server import ServerState, attach, running
from journeyman.runtime.tasks import read_tasks
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.evaluate import Episode, Summary, evaluate, load_scorer, summarise

CrewOption = Annotated[Path, typer.Option("--crew", metavar="FILE", help="The crew's TOML file")]
TasksOption = Annotated[Path, typer.Option("--tasks", metavar="FILE", help="Tasks with references, JSON lines")]
ScorerOption = Annotated[
    str, typer.Option("--scorer", metavar="MODULE:FUNCTION", help="Takes a task and an answer, gives 0..1")
]
ConcurrencyOption = Annotated[int, typer.Option("--concurrency", min=1, help="Tasks at once")]
AttachOption = Annotated[str | None, typer.Option("--attach", metavar="URL", help="A server someone else runs")]
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

    Tasks that were evaluated before, with the same crew, policies, seed and scorer, are not run again.
    """
    ws = find_workspace(workspace)
    bench = Bench(
        ws, crew, find_tasks(tasks), scorer, server=find_server(ws, attach), concurrency=concurrency, seed=seed
    )
    table = with_policies(ws, current_policies(ws), dict(_pair(text) for text in policy or []))
    summary = summarise(crew.stem, bench.episodes(table, "evaluate"))
    emit(summary, as_json, lambda: _show(summary))


class Bench:
    """A crew, a server and tasks, on which one policy table after another can be evaluated."""

    def __init__(
        self,
        workspace: Workspace,
        crew: Path,
        tasks: Sequence[Task],
        scorer: str,
        *,
        server: ServerState,
        concurrency: int,
        seed: int,
    ) -> None:
        self.crew = load_crew(crew)
        self._workspace = workspace
        self._tasks = tasks
        self._scorer = load_scorer(scorer)
        self._server = server
        self._concurrency = concurrency
        self._seed = seed
        self._conditions = [
            crew.read_text(encoding="utf-8"),
            server.model,
            server.model_digest,
            scorer,
            seed,
            concurrency,
        ]

    def episodes(self, policies: PolicyTable, title: str) -> list[Episode]:
        """The tasks run under those policies, with a bar; what was run before under the same conditions is read."""
        with progress() as bar:
            row = bar.add_task(title, total=len(self._tasks))
            return asyncio.run(self._episodes(policies, lambda episode: bar.advance(row)))

    async def _episodes(self, policies: PolicyTable, on_episode: Callable[[Episode], None]) -> list[Episode]:
        from journeyman.runtime.vllm import ChatVLLM

        model = ChatVLLM(base_url=self._server.url)
        with Recording(self._workspace, compacts=True) as recording:
            runtime = Runtime(
                self.crew,
                model=model,
                tracer=recording.tracer,
                policies=policies,
                base_digest=self._server.model_digest,
                seed=self._seed,
            )
            try:
                return await evaluate(
                    runtime,
                    self._tasks,
                    self._scorer,
                    path=self._path(policies),
                    concurrency=self._concurrency,
                    label=recording.label,
                    on_episode=on_episode,
                )
            finally:
                await model.aclose()

    def _path(self, policies: PolicyTable) -> Path:
        """A file for each set of conditions that a score depends on."""
        conditions = [*self._conditions, policies.model_dump(mode="json")]
        key = sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:16]
        return self._workspace.root / "evaluations" / f"{key}.jsonl"


def with_policies(workspace: Workspace, table: PolicyTable, policies: Mapping[str, str]) -> PolicyTable:
    """`table` with other policies for some agents."""
    digests = {
        policy: load_adapter(find_adapter(workspace.adapters, policy)).digest
        for policy in policies.values()
        if policy != BASE
    }
    return PolicyTable(agents={**table.agents, **policies}, digests={**table.digests, **digests})


def find_tasks(path: Path) -> list[Task]:
    """The tasks of a file; lines that are none are named on stderr and left out."""
    tasks, broken = read_tasks(path)
    for line in broken:
        notes.print(f"{path}, line {line.number}: {line.reason}: left out", markup=False)
    if not tasks:
        raise ConfigError(f"{path}: holds no task")
    return tasks


def find_server(workspace: Workspace, url: str | None) -> ServerState:
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
