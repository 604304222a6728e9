"""The `journeyman runs` commands: runs that wait, were interrupted or ended, and what a person may say to them."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import time_ns
from typing import Annotated, Any, Literal, TypeVar

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from journeyman.runtime.commands.moments import moment_ns
from journeyman.runtime.commands.run import exit_code, show_outcome
from journeyman.runtime.console import AttachOption, Exit, JsonOption, WorkspaceOption, emit, notes, out
from journeyman.runtime.flow.control import answer, cancel, decide
from journeyman.runtime.store.questions import Consent, Question
from journeyman.runtime.store.run_store import WAITING, RunRecord, RunStatus, RunStore
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.reports.wording import age, line, visible
from journeyman.traces.trace import Outcome

T = TypeVar("T")

RunState = Literal[RunStatus, "interrupted"]
"""A run's status; `interrupted` where its process died."""

DAY_NS = 86_400 * 10**9
_MADE_UP = re.compile(r"[0-9a-f]{32}")
"""An id that nobody chose: its start is enough to tell it."""

app = typer.Typer(no_args_is_help=True, help="Runs that wait for a person, were interrupted, or ended.")

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run id, or the start of one")]
QuestionOption = Annotated[
    str | None, typer.Option("--question", metavar="ID", help="Which question, where the run asks several")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with the run at once")]
CrewOption = Annotated[
    Path | None, typer.Option("--crew", metavar="FILE", help="The crew's TOML file (default: the run's own)")
]


@app.command("list")
def list_runs(
    status: Annotated[RunState | None, typer.Option(help="Only runs that are so")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first")] = 20,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first; `interrupted` are those whose process died.

    Example: journeyman runs list
    """

    async def found(runs: RunStore) -> list[tuple[RunRecord, str]]:
        if status != "running" and status != "interrupted":
            return [(record, await _state(runs, record)) for record in await runs.find(status, limit)]
        # Which of the two it is says only the run's lock.
        rows = [(record, await _state(runs, record)) for record in await runs.find("running")]
        return [row for row in rows if row[1] == status][:limit]

    workspace = find_workspace(folder)
    rows = _with_runs(workspace, found) if workspace.has_runs else []
    emit([_written(*row) for row in rows], as_json, lambda: out.print(_table(rows)) if rows else None)
    if not rows:
        notes.print("no such runs", markup=False)


@app.command()
def show(run: RunArgument, folder: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Show one run: what it is, what it asks, how it ended.

    Example: journeyman runs show 7c1e
    """

    async def found(runs: RunStore) -> tuple[RunRecord, str]:
        record = await _record(runs, run)
        return record, await _state(runs, record)

    record, state = _with_runs(find_workspace(folder), found)
    emit(_written(record, state), as_json, lambda: out.print(_told(record, state), soft_wrap=True))


@app.command()
def approve(
    run: RunArgument,
    deny: Annotated[str | None, typer.Option("--deny", metavar="REASON", help="Say no, and why")] = None,
    question: QuestionOption = None,
    resume: ResumeOption = False,
    crew: CrewOption = None,
    attach: AttachOption = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say yes to what a run wants to do, or no with --deny. It takes that up when it is resumed.

    Example: journeyman runs approve 7c1e --resume
    """
    word = Consent(approved=deny is None, reason=deny or "")

    async def said(runs: RunStore) -> RunRecord:
        return await decide(runs, await runs.complete_id(run), word, question_id=question)

    _intervened(find_workspace(folder), said, resume, crew, attach, as_json)


@app.command("answer")
def answer_command(
    run: RunArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The answer")],
    question: QuestionOption = None,
    resume: ResumeOption = False,
    crew: CrewOption = None,
    attach: AttachOption = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer what a run asks. It takes that up when it is resumed.

    Example: journeyman runs answer 7c1e "the blue one" --resume
    """

    async def said(runs: RunStore) -> RunRecord:
        return await answer(runs, await runs.complete_id(run), text, question_id=question)

    _intervened(find_workspace(folder), said, resume, crew, attach, as_json)


@app.command("cancel")
def cancel_command(run: RunArgument, folder: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """End a run: one that waits at once, one at work in another process as soon as that looks.

    Example: journeyman runs cancel 7c1e
    """

    from journeyman.runtime.recording.recording import Recording

    workspace = find_workspace(folder)

    async def cancelled(runs: RunStore) -> RunRecord:
        run_id = await runs.complete_id(run)
        with Recording(workspace) as recording:
            return await cancel(runs, run_id, recording.tracer)

    record = _with_runs(workspace, cancelled)
    told = "is told to end" if record.status == "running" else "is cancelled"
    emit(_written(record, record.status), as_json, lambda: out.print(f"run {record.id} {told}", markup=False))


@app.command()
def resume(
    run: RunArgument,
    crew: CrewOption = None,
    attach: AttachOption = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run that was interrupted, stopped, or has its answers; what was done is not done again.

    Example: journeyman runs resume 7c1e
    """
    workspace = find_workspace(folder)

    async def found(runs: RunStore) -> RunRecord:
        return await _record(runs, run)

    record = _with_runs(workspace, found)
    if record.outcome is not None and record.status not in WAITING:
        ended = record.outcome
        emit(ended, as_json, lambda: show_outcome(ended))
        raise typer.Exit(exit_code([ended], []))
    if record.status == "needs_input" and not record.answers:
        emit(_written(record, record.status), as_json, lambda: out.print(_told(record, record.status), soft_wrap=True))
        raise typer.Exit(Exit.NEEDS_INPUT)
    _resume(workspace, record, crew, attach, as_json)


@app.command()
def prune(
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Runs that ended longer ago: 30d, 12h (default: [runs] keep_days)")
    ] = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget runs that ended; their traces stay. Runs that can be taken up again stay too: cancel them first.

    Example: journeyman runs prune --older-than 30d
    """
    workspace = find_workspace(folder)
    days = workspace.config.runs.keep_days
    if older_than is not None:
        now_ns = time_ns()
        days = (now_ns - moment_ns(older_than, now_ns=now_ns)) / DAY_NS

    async def pruned(runs: RunStore) -> int:
        return await runs.prune(days)

    count = _with_runs(workspace, pruned) if workspace.has_runs else 0
    emit({"pruned": count}, as_json, lambda: out.print(f"{count} runs forgotten"))


def _with_runs(workspace: Workspace, work: Callable[[RunStore], Awaitable[T]]) -> T:
    """What `work` makes of the workspace's run store; raises `ConfigError` where there is none yet."""
    if not workspace.has_runs:
        raise ConfigError(f"there are no runs in {workspace.root}: name another workspace with -C DIR")

    async def opened() -> T:
        runs = await workspace.runs.open()
        try:
            return await work(runs)
        finally:
            await runs.aclose()

    return asyncio.run(opened())


async def _record(runs: RunStore, prefix: str) -> RunRecord:
    record = await runs.get(await runs.complete_id(prefix))
    if record is None:
        raise ConfigError(f"run {prefix!r} was pruned just now: nothing is left to show")
    return record


async def _state(runs: RunStore, record: RunRecord) -> str:
    """The status, or `interrupted` where nobody is at work on a run that says it is running."""
    return "interrupted" if record.status == "running" and not await runs.alive(record.id) else record.status


def _intervened(
    workspace: Workspace,
    say: Callable[[RunStore], Awaitable[RunRecord]],
    resume: bool,
    crew: Path | None,
    attach: str | None,
    as_json: bool,
) -> None:
    record = _with_runs(workspace, say)
    if resume:
        _resume(workspace, record, crew, attach, as_json)
        return
    emit(_written(record, record.status), as_json, lambda: out.print(_kept(record), markup=False, soft_wrap=True))


def _resume(workspace: Workspace, record: RunRecord, crew: Path | None, attach: str | None, as_json: bool) -> None:
    from journeyman.runtime.api.draining import drains
    from journeyman.runtime.runtime import Runtime

    path = crew or record.crew_path
    if path is None:
        raise ConfigError(f"the crew of run {record.id} was made in Python: name its TOML file with --crew")
    runtime = Runtime.open(path, workspace=workspace, attach=attach)

    async def resumed() -> Outcome:
        async with runtime, drains(runtime):
            return await runtime.resume(record.id)

    outcome = asyncio.run(resumed())
    emit(outcome, as_json, lambda: show_outcome(outcome))
    raise typer.Exit(exit_code([outcome], []))


def _kept(record: RunRecord) -> str:
    left = len(record.open_questions)
    more = f"; {left} more to answer" if left else ""
    return f"kept{more}; go on with: journeyman runs resume {record.id}"


def _written(record: RunRecord, state: str) -> dict[str, Any]:
    return {**record.model_dump(mode="json"), "state": state}


def _table(rows: list[tuple[RunRecord, str]]) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0), expand=True)
    grid.add_column("RUN", no_wrap=True, style="cyan", max_width=24, overflow="ellipsis")
    grid.add_column("AGE", justify="right", no_wrap=True)
    grid.add_column("CREW", no_wrap=True, max_width=12, overflow="ellipsis")
    grid.add_column("TASK", no_wrap=True, ratio=1, min_width=16, overflow="ellipsis")
    grid.add_column("STATUS", no_wrap=True)
    grid.add_column("ASKS", justify="right", no_wrap=True)
    for record, state in rows:
        asks = len(record.open_questions)
        style = "yellow" if state in ("needs_input", "interrupted", "paused") else ""
        grid.add_row(
            Text(record.id[:8] if _MADE_UP.fullmatch(record.id) else record.id),
            age(time_ns() - record.created_ns),
            Text(record.crew),
            Text(line(record.task.prompt)),
            Text(state, style=style),
            str(asks) if asks else "",
        )
    return grid


def _told(record: RunRecord, state: str) -> str:
    """A run in words, in rich's markup."""
    lines = [
        f"[bold]run {escape(record.id)}[/] · {state} · trace {record.trace_id[:12]} · part {record.attempt}",
        f"task {escape(line(record.task.prompt))}",
        f"crew {escape(record.crew)} · {escape(record.crew_path or 'made in Python')}",
    ]
    for question in record.pending:
        lines += _asked(record, question)
    if record.outcome is not None:
        said = record.outcome.error or line(record.outcome.answer)
        lines.append(f"{record.outcome.status}: {escape(said)}")
    return visible("\n".join(lines))


def _asked(record: RunRecord, question: Question) -> list[str]:
    who = question.agent if question.assignment is None else f"{question.agent} ({question.assignment})"
    lines = [f"[yellow]? {escape(question.id)}[/] {escape(who)}: {escape(question.text)}"]
    if question.tool is not None:
        call = f"{question.tool}({json.dumps(question.arguments or {}, ensure_ascii=False)})"
        lines.append(f"    {escape(call)}")
    if question.content is not None:
        lines.append(f"    {escape(question.content)}")
    if question.id in record.answers:
        lines.append(f"    answered: {escape(json.dumps(record.answers[question.id], ensure_ascii=False))}")
    else:
        which = f" --question {question.id}" if len(record.pending) > 1 else ""
        command, word = ("answer", "TEXT") if question.kind == "answer" else ("approve", "[--deny REASON]")
        lines.append(f"    journeyman runs {command} {escape(f'{record.id}{which} {word}')}")
    return lines
