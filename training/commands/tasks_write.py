"""`journeyman tasks write`: new tasks like those that there are, each of them checked."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.table import Table

from journeyman.agents.budget import Budget
from journeyman.agents.model import BASE
from journeyman.runtime.console import AttachOption, Exit, JsonOption, WorkspaceOption, emit, notes, out, progress
from journeyman.runtime.run.ledger import Ledger, check_prices
from journeyman.runtime.serving.backend import open_backend
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces.base import parse_config
from journeyman.traces.errors import ConfigError
from journeyman.traces.reports.wording import line
from journeyman.training.data.tasks.heldout import HELD_OUT, HeldOut
from journeyman.training.data.tasks.sets import read_set, workspace_sets
from journeyman.training.data.writing.asking import Asker
from journeyman.training.data.writing.checks import KNOWN, parse_checks
from journeyman.training.data.writing.drafts import WAYS, Way, attempts
from journeyman.training.data.writing.sources import Sources, find_sources
from journeyman.training.data.writing.ways import Writer
from journeyman.training.data.writing.write import Standing, Writing, WrittenTasks, open_tasks

EXAMPLE = 100
"""Letters of a refused draft that a person is shown; the file beside the tasks has all."""


def write_command(
    like: Annotated[Path, typer.Option(metavar="FILE", help="Tasks to write from: a file, or a set's name")],
    to: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the tasks go; a file of their own")],
    policy: Annotated[
        str,
        typer.Option("--with", metavar="POLICY", help="Who writes: base, an adapter, or an endpoint of the project's"),
    ] = BASE,
    number: Annotated[int, typer.Option("-n", min=1, help="How many tasks the file is to have")] = 50,
    how: Annotated[
        list[str] | None,
        typer.Option(metavar="WAY", help=f"{', '.join(WAYS)}; repeatable (default: paraphrase)"),
    ] = None,
    check: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help=f"What each task has to pass: {KNOWN}; repeatable")
    ] = None,
    documents: Annotated[
        Path | None, typer.Option(metavar="PATH", help="What the way documents writes from: a folder or a file")
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Held-out tasks besides the workspace's own; repeatable")
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=NUMBER", help="What it may spend: tokens, model_calls, seconds or cost; repeatable"),
    ] = None,
    tries: Annotated[int, typer.Option(min=1, help="Attempts for each task that is wanted, at most")] = 5,
    near: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=1.0, help="Similarity from which there is such a task already (default: the workspace's)"
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Attempts at once")] = 8,
    seed: Annotated[int, typer.Option(help="Another seed writes other tasks")] = 0,
    attach: AttachOption = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write new tasks to learn from, each checked by code or by asking again, and say what was refused.

    What is near a task of gate, test or vault is refused; so is what is near a task that there is.
    Run it again to go on: tasks in the file stay, and nothing is tried twice.

    Example: journeyman tasks write --like train --how values --check sql:shop.db -n 200 --out written.jsonl
    """
    workspace = find_workspace(folder)
    config = workspace.config
    ways, checks = _ways(how), parse_checks(check or [])
    limits = _budget(budget or [])
    check_prices(limits, config.traces.prices)
    config.check_policy(policy)
    tasks = [*read_set(workspace.task_file(like)).values()]
    held_out = _held_out(workspace, against or [])
    sources = find_sources(ways, tasks, held_out, gold=checks.gold, documents=documents, seed=seed)
    _note_sources(sources, references=checks.references)
    backend = None if ways == ["values"] else open_backend(workspace, attach)
    standing = Standing(
        held_out,
        [*tasks, *workspace_sets(workspace, ("train",)).get("train", ())],
        config.tasks.near if near is None else near,
    )

    async def work() -> WrittenTasks:
        with open_tasks(to) as file, progress() as bar:
            row = bar.add_task("writing, task", total=number, completed=len(file.tasks))
            asker = None
            if backend is not None:
                asker = Asker(backend.models[policy], policy, Ledger(limits, config.traces.prices))
            writer = Writer(
                checks,
                standing.clear,
                asker=asker,
                templates=sources.templates,
                examples=[task.prompt for task in tasks if held_out.task(task) is None],
                terms=None if backend is None else backend.models.terms.get(policy),
            )
            conditions = [str(seed), policy, *sorted(check or [])]
            writing = Writing(file, writer, standing, wanted=number, conditions=conditions)
            try:
                return await writing.go_on(
                    attempts(sources.of),
                    tries * number,
                    concurrency=concurrency,
                    on_settled=lambda tasks: bar.update(row, completed=tasks),
                )
            finally:
                if backend is not None:
                    await backend.models.aclose()

    written = asyncio.run(work())
    emit(written, as_json, lambda: _show(written))
    raise typer.Exit(_exit_code(written))


def _ways(named: Sequence[str] | None) -> list[Way]:
    ways = [*dict.fromkeys(named or ["paraphrase"])]
    if unknown := [way for way in ways if way not in WAYS]:
        raise ConfigError(f"--how {unknown[0]}: there is no such way; have {', '.join(WAYS)}")
    return cast("list[Way]", ways)


def _budget(named: Sequence[str]) -> Budget:
    limits = {}
    for text in named:
        name, equals, limit = text.partition("=")
        if not equals:
            raise ConfigError(f"--budget {text!r}: write KEY=NUMBER, as in tokens=50000 or model_calls=200")
        if name in limits:
            raise ConfigError(f"--budget names {name} twice: give it one limit")
        limits[name] = limit
    return parse_config(Budget, {"reserve": 0.0, **limits}, "--budget")


def _held_out(workspace: Workspace, against: Sequence[Path]) -> HeldOut:
    sets = {name: [*tasks] for name, tasks in workspace_sets(workspace, HELD_OUT).items()}
    sets |= {str(path): [*read_set(workspace.task_file(path)).values()] for path in against}
    return HeldOut(sets, workspace.config.tasks.near)


def _note_sources(sources: Sources, *, references: bool) -> None:
    for reason, count in sources.refused.most_common():
        notes.print(f"not written from: {reason} ({count})", markup=False)
    if not references and {"harder", "easier", "documents"} & sources.of.keys():
        notes.print(f"tasks without a reference: nothing would check it; add --check {KNOWN}", markup=False)


def _show(written: WrittenTasks) -> None:
    ways = ", ".join(f"{way} {count}" for way, count in written.by_way.items())
    out.print(f"{written.path}: {written.tasks} tasks of {written.wanted}, {written.added} new", markup=False)
    if written.tasks:
        bare = f"; {written.without_reference} without a reference" if written.without_reference else ""
        out.print(f"{ways}{bare}", markup=False)
    if written.refused:
        table = Table("refused", "drafts", "such as", box=None)
        for reason, count in written.refused.items():
            table.add_row(reason, str(count), line(written.examples[reason])[:EXAMPLE])
        out.print(table)
        out.print(f"all of them: {written.refusals}", markup=False)
    if written.stopped is not None:
        notes.print(f"fewer than wanted: {written.stopped}", markup=False)


def _exit_code(written: WrittenTasks) -> Exit:
    if written.stopped is None:
        return Exit.OK
    if written.over_budget:
        return Exit.OVER_BUDGET
    return Exit.PARTIAL if written.tasks else Exit.FAILED
