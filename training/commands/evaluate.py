"""`journeyman evaluate`: how well a crew does on tasks with known answers."""

from pathlib import Path
from typing import Annotated

import typer

from journeyman.runtime.adapters.live import current_policies
from journeyman.runtime.batch import read_tasks
from journeyman.runtime.console import AttachOption, Exit, JsonOption, WorkspaceOption, emit, notes, out, progress
from journeyman.runtime.serving.server import ServerState, attach, running
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.evaluation.bench import Bench, with_policies
from journeyman.training.evaluation.evaluate import Summary, measured, summarise

CrewOption = Annotated[Path, typer.Option("--crew", metavar="FILE", help="The crew's TOML file")]
TasksOption = Annotated[
    Path, typer.Option("--tasks", metavar="FILE", help="Tasks with references, JSON lines, or a set's name")
]
ScorerOption = Annotated[
    str, typer.Option("--scorer", metavar="MODULE:FUNCTION", help="Takes a task and an answer, gives 0..1")
]
ConcurrencyOption = Annotated[int, typer.Option("--concurrency", min=1, help="Tasks at once")]
AgainOption = Annotated[bool, typer.Option("--again", help="Measure again what was measured before")]
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
    again: AgainOption = False,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a crew on tasks with known answers and print its mean score.

    Tasks that were evaluated before are not run again, where crew, policies, endpoints, routes, seed and scorer are the
    same.

    Example: journeyman evaluate --crew crew.toml --tasks test.jsonl --policy clerk=clerk@2
    """
    workspace = find_workspace(folder)
    if attach is not None:
        use_server(workspace, attach)
    bench = Bench.open(
        workspace,
        crew,
        find_tasks(workspace, tasks),
        scorer,
        source=tasks.name,
        concurrency=concurrency,
        seed=seed,
    )
    table = with_policies(workspace, current_policies(workspace), bench.named(dict(map(_pair, policy or []))))
    with progress() as bar:
        row = bar.add_task("evaluating, task", total=len(bench.tasks))
        episodes = bench.episodes(table, on_episode=lambda episode: bar.advance(row), again=again)
    summary = summarise(crew.stem, episodes)
    emit(summary, as_json, lambda: _show(summary))
    if lost := [episode for episode in episodes if episode.status != "ok"]:
        first = f"{lost[0].task_id} {lost[0].status}: {lost[0].error}"
        notes.print(f"{len(lost)} of {len(episodes)} runs did not end ok; first: {first}", markup=False)
    if not measured(episodes):
        notes.print("nothing was measured: no model answered in any run")
        raise typer.Exit(Exit.FAILED)


def find_tasks(workspace: Workspace, named: Path) -> list[Task]:
    """The tasks of a file, or of a set by its name; lines that are none are named on stderr and left out."""
    path = workspace.task_file(named)
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
