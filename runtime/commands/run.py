"""`journeyman run`: one task, or a file of them."""

import asyncio
import json
import os
from pathlib import Path
from typing import Annotated

import typer

from journeyman.runtime.config import find_workspace
from journeyman.runtime.console import Exit, JsonOption, WorkspaceOption, emit, notes, out, progress
from journeyman.runtime.events import Ended, Event, PlanMade, ReportFiled
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.tasks import BrokenLine, read_tasks
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Outcome, Task


def run(
    question: Annotated[str | None, typer.Argument(help="The task, in words")] = None,
    crew: Annotated[Path, typer.Option("--crew", metavar="FILE", help="The crew's TOML file")] = Path("crew.toml"),
    tasks: Annotated[Path | None, typer.Option("--tasks", metavar="FILE", help="Tasks as JSON lines")] = None,
    results: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where outcomes go, JSON lines")] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Tasks at once")] = 8,
    attach: Annotated[str | None, typer.Option("--attach", metavar="URL", help="A server someone else runs")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Sampling seed of every model call")] = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run one task, or every task of a file, with a crew.

    With --tasks and --out, tasks whose outcomes are already in the file are not run again.
    """
    if (question is None) == (tasks is None):
        raise ConfigError(
            'give either a question or --tasks FILE, e.g. journeyman run --crew crew.toml "How many ...?"'
        )
    runtime = Runtime.open(crew, workspace=find_workspace(workspace), attach=attach, seed=seed)
    if tasks is None:
        assert question is not None
        outcome = asyncio.run(_one(runtime, question))
        emit(outcome, as_json, lambda: _show(outcome))
        raise typer.Exit(_exit([outcome], []))
    if results is None:
        raise ConfigError("--tasks needs --out FILE for the outcomes")
    found, broken = read_tasks(tasks)
    for line in broken:
        notes.print(f"{tasks}, line {line.number}: {line.reason}: left out", markup=False)
    outcomes = asyncio.run(_many(runtime, found, results, concurrency))
    summary = {
        "tasks": len(found),
        "ok": sum(outcome.status == "ok" for outcome in outcomes),
        "broken_lines": broken,
        "out": results,
    }
    emit(
        summary,
        as_json,
        lambda: out.print(f"{summary['ok']} of {len(found)} tasks ok, outcomes in {results}", soft_wrap=True),
    )
    raise typer.Exit(_exit(outcomes, broken))


async def _one(runtime: Runtime, question: str) -> Outcome:
    async with runtime:
        async for event in runtime.stream(question):
            if isinstance(event, Ended):
                return event.outcome
            _note(event)
    raise AssertionError("a run ends with `Ended`")


async def _many(runtime: Runtime, tasks: list[Task], path: Path, concurrency: int) -> list[Outcome]:
    """Runs the tasks that `path` has no outcome of; each outcome is written the moment it is there."""
    done = {outcome.task_id: outcome for outcome in _read_outcomes(path)}
    outcomes = [done[task.id] for task in tasks if task.id in done]
    places = asyncio.Semaphore(concurrency)
    async with runtime:
        with path.open("a", encoding="utf-8") as file, progress() as bar:
            row = bar.add_task("tasks", total=len(tasks), completed=len(outcomes))

            async def one(task: Task) -> None:
                async with places:
                    outcome = await runtime.run(task)
                file.write(outcome.model_dump_json() + "\n")
                file.flush()
                os.fsync(file.fileno())
                outcomes.append(outcome)
                bar.advance(row)

            async with asyncio.TaskGroup() as group:
                for task in tasks:
                    if task.id not in done:
                        group.create_task(one(task))
    return outcomes


def _read_outcomes(path: Path) -> list[Outcome]:
    """The outcomes of an earlier call; a line that a crash cut short is cut off, so that its task runs again."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        os.truncate(path, len(whole.encode()))
    try:
        return [Outcome.model_validate(json.loads(line)) for line in whole.splitlines()]
    except ValueError:
        raise ConfigError(f"{path} holds something other than outcomes: name another --out file") from None


def _note(event: Event) -> None:
    if isinstance(event, PlanMade):
        for assignment in event.plan.assignments:
            fan = f" (for each value of {assignment.each})" if assignment.each else ""
            notes.print(f"plan {assignment.id}  {assignment.worker}: {assignment.goal}{fan}", style="dim", markup=False)
    elif isinstance(event, ReportFiled):
        report = event.report
        said = ", ".join(report.values) if report.status == "ok" else f"{report.status}: {report.error}"
        notes.print(f"  {report.assignment.id}  {report.assignment.goal} → {said}", style="dim", markup=False)


def _show(outcome: Outcome) -> None:
    if outcome.error is not None:
        notes.print(f"{outcome.status}: {outcome.error}", markup=False)
    out.print(outcome.answer, markup=False, soft_wrap=True)
    notes.print(
        f"trace {outcome.trace_id[:12]} · {outcome.model_calls} model calls, {outcome.tool_calls} tool calls, "
        f"{outcome.usage.output_tokens} tokens generated, {outcome.seconds:.1f} s",
        style="dim",
        markup=False,
    )


def _exit(outcomes: list[Outcome], broken: list[BrokenLine]) -> Exit:
    """Partial where something, but not everything, came out well."""
    if any(outcome.status == "over_budget" for outcome in outcomes):
        return Exit.OVER_BUDGET
    good = sum(outcome.status == "ok" for outcome in outcomes)
    flawed = len(broken) + sum(outcome.status != "ok" or outcome.error is not None for outcome in outcomes)
    if not flawed:
        return Exit.OK
    return Exit.PARTIAL if good else Exit.FAILED
