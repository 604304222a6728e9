"""`journeyman gate`: a candidate adapter against the policy in service, over held-out tasks."""

from typing import Annotated, Any

import typer
from rich.progress import TaskID

from journeyman.runtime.adapters.adapter import find_adapter
from journeyman.runtime.console import AttachOption, Exit, JsonOption, WorkspaceOption, emit, notes, out, progress
from journeyman.runtime.workspace import find_workspace
from journeyman.traces.base import parse_config
from journeyman.training.commands.adapters import note_override
from journeyman.training.commands.evaluate import (
    SCORER,
    AgainOption,
    ConcurrencyOption,
    CrewOption,
    ScorerOption,
    SeedOption,
    TasksOption,
    find_tasks,
    use_server,
)
from journeyman.training.evaluation.bench import Bench
from journeyman.training.evaluation.evaluate import Episode
from journeyman.training.evaluation.gate import GateConfig, Verdict
from journeyman.training.improve.compare import check_candidate, compare
from journeyman.training.improve.settle import settle

ENDS = {"promote": Exit.OK, "reject": Exit.FAILED, "inconclusive": Exit.PARTIAL}


def gate_command(
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="The adapter to test, e.g. worker@8")],
    crew: CrewOption,
    tasks: TasksOption,
    margin: Annotated[float, typer.Option("--margin", help="Smallest gain in mean score that counts")] = 0.0,
    confidence: Annotated[float, typer.Option("--confidence", help="Of the interval around the gain")] = 0.95,
    min_tasks: Annotated[int, typer.Option("--min-tasks", help="Below it there is no decision")] = 20,
    scorer: ScorerOption = SCORER,
    concurrency: ConcurrencyOption = 8,
    seed: SeedOption = 0,
    attach: AttachOption = None,
    again: AgainOption = False,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare an adapter with the policy in service, on the same tasks with the same seeds.

    The verdict is kept beside the adapter, for `journeyman adapters promote`. Exit code: 0 promote, 1 reject,
    3 inconclusive.

    Example: journeyman gate clerk@2 --crew crew.toml --tasks gate.jsonl
    """
    workspace = find_workspace(folder)
    config = _config(margin=margin, confidence=confidence, min_tasks=min_tasks)
    find_adapter(workspace.adapters, candidate)
    server = use_server(workspace, attach)
    bench = Bench.open(
        workspace,
        crew,
        find_tasks(workspace, tasks),
        scorer,
        source=tasks.name,
        purpose="gate",
        concurrency=concurrency,
        seed=seed,
    )
    note_override(workspace, check_candidate(workspace, bench.crew, candidate))
    with progress() as bar:
        rows: dict[str, TaskID] = {}

        def advance(policy: str, episode: Episode) -> None:
            if policy not in rows:
                rows[policy] = bar.add_task(f"{policy}, task", total=len(bench.tasks))
            bar.advance(rows[policy])

        verdict = compare(workspace, server, bench, candidate, config, on_episode=advance, again=again)
    settle(workspace, server, verdict)
    emit(verdict, as_json, lambda: _show(verdict))
    raise typer.Exit(ENDS[verdict.decision])


def _config(**values: Any) -> GateConfig:
    return parse_config(GateConfig, values, "gate")


def _show(verdict: Verdict) -> None:
    low, high = verdict.interval
    ours, theirs = verdict.candidate_cost, verdict.incumbent_cost
    out.print(f"{verdict.decision}  {verdict.candidate} against {verdict.incumbent} over {verdict.tasks} tasks")
    out.print(
        f"gain {verdict.mean_delta:+.3f} ({low:+.3f} .. {high:+.3f}), score {theirs.score:.3f} → {ours.score:.3f}"
    )
    out.print(
        f"tokens a task {theirs.tokens:.0f} → {ours.tokens:.0f}, seconds {theirs.seconds:.1f} → {ours.seconds:.1f}"
    )
    for reason in verdict.reasons:
        notes.print(reason, style="dim", markup=False)
    if verdict.tasks_needed is not None:
        notes.print(f"about {verdict.tasks_needed} tasks would tell, if the gain is what it looks like", style="dim")
