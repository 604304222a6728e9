"""The `journeyman traces` commands: what was recorded, as a table, as a tree, and what is said of it."""

import getpass
import math
from itertools import islice
from time import time_ns
from typing import Annotated

import typer

from journeyman.runtime.config import Workspace, find_workspace
from journeyman.runtime.console import JsonOption, WorkspaceOption, emit, notes, out
from journeyman.traces.errors import StoreError
from journeyman.traces.labels import Label
from journeyman.traces.report import summarise, table, tree
from journeyman.traces.store import Ending, TraceStore

app = typer.Typer(no_args_is_help=True, help="Show what was recorded: every run, agent, model call and tool call.")

TraceArgument = Annotated[str, typer.Argument(metavar="TRACE", help="Trace id, or the start of one")]


@app.command("list")
def list_traces(
    agent: Annotated[str | None, typer.Option(help="Only runs in which this agent took part")] = None,
    policy: Annotated[str | None, typer.Option(help="Only runs in which this policy was asked, e.g. worker@8")] = None,
    family: Annotated[str | None, typer.Option(help="Only tasks of this family")] = None,
    status: Annotated[Ending | None, typer.Option(help="Only runs that ended so")] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many, newest first; 0 for all")] = 20,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first: task, status, score, turns, tokens, time."""
    place = find_workspace(workspace)
    store = _store(place)
    found = store.traces(agent=agent, policy=policy, family=family, status=status, newest_first=True)
    summaries = [summarise(trace) for trace in islice(found, limit or None)]
    more = next(found, None) is not None
    emit(summaries, as_json, lambda: out.print(table(summaries, now_ns=time_ns())) if summaries else None)
    if not summaries:
        notes.print(f"no such traces in {place.spans}", markup=False, soft_wrap=True)
    elif more:
        notes.print(f"the newest {limit}: --limit 0 shows all", style="dim")
    _note_damage(store)


@app.command()
def show(
    trace: TraceArgument,
    full: Annotated[bool, typer.Option("--full", help="Show whole texts, and the prompts")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one run as a tree: agents, turns and tool calls with times, tokens and policies."""
    store = _store(find_workspace(workspace))
    found = store.get(trace)
    emit(found, as_json, lambda: out.print(tree(found, full=full)))
    _note_damage(store)


@app.command()
def label(
    trace: TraceArgument,
    name: Annotated[str, typer.Argument(help="What is stated, e.g. score")],
    value: Annotated[str, typer.Argument(help="true, false, a number, or a word")],
    span: Annotated[str | None, typer.Option(help="A span of the trace, where the label is of that alone")] = None,
    comment: Annotated[str | None, typer.Option(help="Why")] = None,
    source: Annotated[str | None, typer.Option(help="Who says so (default: the user's name)")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say something of a run or of one span of it; the record itself is never edited."""
    store = _store(find_workspace(workspace))
    found = store.get(trace)
    spans = {trajectory.span_id for trajectory in found.trajectories} | {turn.span_id for turn in found.turns}
    if span is not None and span not in spans:
        raise StoreError(
            f"trace {found.trace_id[:8]} has no agent or turn {span!r}: `--json` of `traces show` has their ids"
        )
    said = Label(
        trace_id=found.trace_id,
        span_id=span,
        name=name,
        source=source or getpass.getuser(),
        value=_value(value),
        comment=comment,
    )
    store.label(said)
    emit(said, as_json, lambda: out.print(f"{said.name} = {said.value} on {found.trace_id[:8]}", markup=False))


def _store(place: Workspace) -> TraceStore:
    return TraceStore(place.spans, place.labels)


def _value(text: str) -> bool | float | str:
    if text in ("true", "false"):
        return text == "true"
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _note_damage(store: TraceStore) -> None:
    if store.damage:
        notes.print(f"left out: {store.damage}", style="yellow", markup=False, soft_wrap=True)
