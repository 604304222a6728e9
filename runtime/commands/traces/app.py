"""The `journeyman traces` commands: what was recorded, as a table, as a tree, as it happens, and two runs compared."""

import sys
from collections import deque
from itertools import islice
from time import sleep, time_ns
from typing import TYPE_CHECKING, Annotated

import typer

from journeyman.runtime.commands.traces.check import check_command
from journeyman.runtime.commands.traces.delete import delete_command, lineage_command
from journeyman.runtime.commands.traces.exchange import export_command, import_command
from journeyman.runtime.commands.traces.receive import receive_command
from journeyman.runtime.commands.traces.report import report_command
from journeyman.runtime.commands.traces.scope import (
    AgentOption,
    CrewOption,
    FamilyOption,
    LabelOption,
    PolicyOption,
    PurposeOption,
    SessionOption,
    SinceOption,
    StatusOption,
    TaskSetOption,
    TextOption,
    UntilOption,
    UserOption,
    conditions,
)
from journeyman.runtime.commands.traces.sql import sql_command
from journeyman.runtime.commands.traces.store import compact_command, doctor_command
from journeyman.runtime.console import JsonOption, WorkspaceOption, emit, notes, out
from journeyman.runtime.workspace import find_workspace
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.exchange.export import span_line
from journeyman.traces.reports.diff import diff
from journeyman.traces.reports.shown.diff_table import diff_table
from journeyman.traces.reports.shown.follow import Follower, told
from journeyman.traces.reports.shown.listing import summarise, table
from journeyman.traces.reports.shown.tree import tree

if TYPE_CHECKING:
    from journeyman.traces.storage.store import TraceStore

app = typer.Typer(no_args_is_help=True, help="Show what was recorded: every run, agent, model call and tool call.")

TraceArgument = Annotated[str, typer.Argument(metavar="TRACE", help="Trace id, or the start of one")]

POLL_S = 0.25
"""How often `tail` looks for more."""


@app.command("list")
def list_traces(
    agent: AgentOption = None,
    policy: PolicyOption = None,
    family: FamilyOption = None,
    status: StatusOption = None,
    session: SessionOption = None,
    user: UserOption = None,
    crew: CrewOption = None,
    task_set: TaskSetOption = None,
    purpose: PurposeOption = None,
    label: LabelOption = None,
    text: TextOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=0, help="How many, newest first; 0 for all")] = 20,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first: task, status, score, turns, tokens, time.

    Example: journeyman traces list --status failed
    """
    workspace = find_workspace(folder)
    store = workspace.store
    asked = conditions(
        agent=agent,
        policy=policy,
        family=family,
        status=status,
        session=session,
        user=user,
        crew=crew,
        task_set=task_set,
        purpose=purpose,
        label=label,
        text=text,
        since=since,
        until=until,
    )
    found = store.traces(newest_first=True, **asked)
    summaries = [summarise(trace) for trace in islice(found, limit or None)]
    more = next(found, None) is not None
    emit(summaries, as_json, lambda: out.print(table(summaries, now_ns=time_ns())) if summaries else None)
    if not summaries:
        notes.print(f"no such traces in {workspace.spans}", markup=False, soft_wrap=True)
    elif more:
        notes.print(f"the newest {limit}: --limit 0 shows all", style="dim")
    if rings := [summary.trace_id[:8] for summary in summaries if summary.in_ring]:
        notes.print(
            f"spans whose parents lead back to themselves are shown as roots: {', '.join(rings)}", style="yellow"
        )
    _note_damage(store)


@app.command()
def show(
    trace: TraceArgument,
    full: Annotated[bool, typer.Option("--full", help="Fold nothing; show whole texts, and the prompts")] = False,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one run as a tree: agents, turns and tool calls with times, tokens and policies.

    Example: journeyman traces show 3fa9
    """
    store = find_workspace(folder).store
    found = store.get(trace)
    emit(found, as_json, lambda: out.print(tree(found, full=full)))
    _note_damage(store)


@app.command()
def tail(
    agent: Annotated[str | None, typer.Option(help="Only what this agent did")] = None,
    runs: Annotated[bool, typer.Option("--runs", help="Only whole runs")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the latest to begin with")] = 10,
    follow: Annotated[bool, typer.Option(help="Go on until Ctrl-C; else end after the latest")] = True,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show runs, agents, model calls and tool calls as they end, whichever process they are in.

    Example: journeyman traces tail
    """
    follower = Follower(find_workspace(folder).spans)

    def wanted(span: SpanRecord) -> bool:
        of_agent = agent is None or span.attributes.get(a.AGENT_NAME) == agent
        of_kind = not runs or span.attributes.get(a.OPERATION) == "invoke_workflow"
        return of_agent and of_kind and told(span) is not None

    try:
        for span in deque(filter(wanted, follower.ended()), maxlen=lines):
            _tell(span, as_json)
        while follow:
            sleep(POLL_S)
            for span in filter(wanted, follower.ended()):
                _tell(span, as_json)
    except KeyboardInterrupt:
        return  # It is how following ends.


@app.command("diff")
def diff_command(
    a: Annotated[str, typer.Argument(metavar="A", help="Trace id of a run, or the start of one")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another run of the same task")],
    full: Annotated[bool, typer.Option("--full", help="Also what is the same, and whole texts")] = False,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two runs of one task step by step: plans, turns, tool calls, and where they parted.

    Example: journeyman traces diff 3fa9 8b02
    """
    store = find_workspace(folder).store
    found = diff(store.get(a), store.get(b))
    emit(found, as_json, lambda: out.print(diff_table(found, full=full)))
    _note_damage(store)


app.command("report")(report_command)
app.command("sql")(sql_command)
app.command("export")(export_command)
app.command("import")(import_command)
app.command("receive")(receive_command)
app.command("check")(check_command)
app.command("doctor")(doctor_command)
app.command("compact")(compact_command)
app.command("delete")(delete_command)
app.command("lineage")(lineage_command)


def _tell(span: SpanRecord, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(span_line(span))
        sys.stdout.flush()
    else:
        out.print(told(span), no_wrap=True, overflow="ellipsis", crop=True)


def _note_damage(store: "TraceStore") -> None:
    if store.damage:
        notes.print(f"left out: {store.damage}", style="yellow", markup=False, soft_wrap=True)
