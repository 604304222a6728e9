"""`journeyman run`: one task, or a file of them."""

import asyncio
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from journeyman.runtime.api.draining import drains
from journeyman.runtime.batch import BrokenLine, open_batch, read_tasks
from journeyman.runtime.console import AttachOption, Exit, JsonOption, WorkspaceOption, emit, notes, out, progress
from journeyman.runtime.run.events import Ended, Event, PlanMade, ReportFiled
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.run_store import WAITING
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.reports.wording import visible
from journeyman.traces.trace import Origin, Outcome, Task, digest_tasks


def run(
    question: Annotated[str | None, typer.Argument(help="The task, in words")] = None,
    crew: Annotated[Path, typer.Option("--crew", metavar="FILE", help="The crew's TOML file")] = Path("crew.toml"),
    tasks: Annotated[
        Path | None, typer.Option("--tasks", metavar="FILE", help="Tasks as JSON lines, or a set's name")
    ] = None,
    results: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where outcomes go, JSON lines")] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Tasks at once")] = 8,
    attach: AttachOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Sampling seed of every model call")] = 0,
    run_id: Annotated[str | None, typer.Option("--run-id", help="The same id never runs twice: it goes on")] = None,
    session: Annotated[str | None, typer.Option("--session", help="The conversation it is part of")] = None,
    user: Annotated[str | None, typer.Option("--user", help="Who asks")] = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run one task, or every task of a file, with a crew.

    With --tasks and --out, tasks whose outcomes are already in the file are not run again, and what was interrupted
    goes on; a new file is a new batch. SIGTERM stops where nothing is lost.

    Example: journeyman run --crew crew.toml "Who wrote to us today?"
    """
    if (question is None) == (tasks is None):
        raise ConfigError(
            'give either a question or --tasks FILE, e.g. journeyman run --crew crew.toml "How many ...?"'
        )
    if question is not None and not question.strip():
        raise ConfigError("the question is empty: write what is to be done")
    workspace = find_workspace(folder)
    runtime = Runtime.open(crew, workspace=workspace, attach=attach, seed=seed)
    if tasks is None:
        assert question is not None
        task = Task(id=run_id or uuid4().hex[:12], prompt=question, session=session, user=user)
        outcome = asyncio.run(_one(runtime, task, run_id))
        emit(outcome, as_json, lambda: show_outcome(outcome))
        raise typer.Exit(exit_code([outcome], []))
    if results is None:
        raise ConfigError("--tasks needs a file for the outcomes: add --out FILE")
    if run_id is not None or session is not None or user is not None:
        raise ConfigError("--run-id, --session and --user are for a single question: in a task file they are keys")
    found, broken = read_tasks(workspace.task_file(tasks))
    for line in broken:
        notes.print(f"{tasks}, line {line.number}: {line.reason}: left out", markup=False)
    origin = Origin(task_set=tasks.name, task_set_digest=digest_tasks(found))
    outcomes = asyncio.run(_many(runtime, workspace, found, origin, results, concurrency))
    summary = {
        "tasks": len(found),
        "ok": sum(outcome.status == "ok" for outcome in outcomes),
        "waiting": {outcome.run_id: outcome.status for outcome in outcomes if outcome.status in WAITING},
        "broken_lines": broken,
        "out": results,
    }
    emit(summary, as_json, lambda: _show_summary(outcomes, results))
    raise typer.Exit(exit_code(outcomes, broken))


async def _one(runtime: Runtime, task: Task, run_id: str | None) -> Outcome:
    async with runtime, drains(runtime):
        if (
            run_id is not None
            and (known := await runtime.find(run_id)) is not None
            and known.task.prompt == task.prompt
        ):
            task = known.task
        async for event in runtime.stream(task, run_id=run_id):
            if isinstance(event, Ended):
                return event.outcome
            _note(event)
    raise AssertionError("a run ends with `Ended`")


async def _many(
    runtime: Runtime, workspace: Workspace, tasks: list[Task], origin: Origin, path: Path, concurrency: int
) -> list[Outcome]:
    """Runs the tasks that `path` has no outcome of; each outcome is written the moment it is there.

    A run that waits for a person, or was stopped, has none yet.
    """
    async with runtime, drains(runtime):
        with open_batch(workspace, path, tasks) as batch, progress() as bar:
            outcomes = [batch.done[task.id] for task in tasks if task.id in batch.done]
            left = [task for task in tasks if task.id not in batch.done]
            places = asyncio.Semaphore(concurrency)
            row = bar.add_task("task", total=len(tasks), completed=len(outcomes))

            async def one(task: Task) -> None:
                async with places:
                    outcome = await runtime.run(task, run_id=batch.run_id(runtime.crew.name, task), origin=origin)
                if outcome.status not in WAITING:
                    batch.add(outcome)
                outcomes.append(outcome)
                bar.advance(row)

            try:
                async with asyncio.TaskGroup() as group:
                    for task in left:
                        group.create_task(one(task))
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from None
    return outcomes


def _show_summary(outcomes: list[Outcome], results: Path) -> None:
    for outcome in outcomes:
        if outcome.status in WAITING:
            _show_waiting(outcome)
    done = sum(outcome.status == "ok" for outcome in outcomes)
    out.print(f"{done} of {len(outcomes)} tasks ok, outcomes in {results}", soft_wrap=True)


def _show_waiting(outcome: Outcome) -> None:
    then = "journeyman runs show" if outcome.status == "needs_input" else "journeyman runs resume"
    notes.print(f"go on with: {then} {outcome.run_id}", markup=False)


def _note(event: Event) -> None:
    if isinstance(event, PlanMade):
        for assignment in event.plan.assignments:
            fan = f" (for each value of {assignment.each})" if assignment.each else ""
            told = f"plan {assignment.id}  {assignment.worker}: {assignment.goal}{fan}"
            notes.print(visible(told), style="dim", markup=False)
    elif isinstance(event, ReportFiled):
        report = event.report
        said = ", ".join(report.values) if report.status == "ok" else f"{report.status}: {report.error}"
        told = f"  {report.assignment.id}  {report.assignment.goal} → {said}"
        notes.print(visible(told), style="dim", markup=False)


def show_outcome(outcome: Outcome) -> None:
    if outcome.error is not None:
        notes.print(visible(f"{outcome.status}: {outcome.error}"), markup=False)
    if outcome.status in WAITING:
        _show_waiting(outcome)
    if outcome.answer:
        out.print(visible(outcome.answer), markup=False, soft_wrap=True)
    notes.print(
        f"trace {outcome.trace_id[:12]} · {outcome.model_calls} model calls, {outcome.tool_calls} tool calls, "
        f"{outcome.usage.output_tokens} tokens generated, {outcome.seconds:.1f} s",
        style="dim",
        markup=False,
    )


def exit_code(outcomes: list[Outcome], broken: list[BrokenLine]) -> Exit:
    """Partial where something, but not everything, came out well."""
    statuses = {outcome.status for outcome in outcomes}
    if "needs_input" in statuses:
        return Exit.NEEDS_INPUT
    if "over_budget" in statuses:
        return Exit.OVER_BUDGET
    if "paused" in statuses:
        return Exit.PARTIAL
    good = sum(outcome.status == "ok" for outcome in outcomes)
    flawed = len(broken) + sum(outcome.status != "ok" or outcome.error is not None for outcome in outcomes)
    if not flawed:
        return Exit.OK
    return Exit.PARTIAL if good else Exit.FAILED
