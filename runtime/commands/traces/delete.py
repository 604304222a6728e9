"""`journeyman traces delete` and `lineage`: runs leave the record, and what came of them is told."""

import asyncio
import sys
from collections.abc import Iterable
from time import time_ns
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.tree import Tree

from journeyman.runtime.commands.moments import moment_ns
from journeyman.runtime.commands.traces.store import told
from journeyman.runtime.console import Exit, JsonOption, WorkspaceOption, emit, notes, out
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces.capture.content import ContentPolicy
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.tombstones import Tombstones

if TYPE_CHECKING:
    from journeyman.runtime.adapters.lineage import (
        AdapterLineage,
        Descendant,
        RecordLineage,
        RowLineage,
        Source,
        Use,
    )
    from journeyman.traces.storage.retention import Deletion, Doomed
    from journeyman.traces.storage.store import TraceStore

SHOWN = 20
"""Runs of an adapter that are listed; `--json` has all."""
SHOWN_ROWS = 8
"""Numbers of rows that are listed; `--json` has all."""


def delete_command(
    trace: Annotated[
        list[str] | None, typer.Option("--trace", metavar="ID", help="This run, by the start of its id; repeatable")
    ] = None,
    session: Annotated[str | None, typer.Option(help="The runs of this session")] = None,
    user: Annotated[str | None, typer.Option(help="The runs of this user")] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Runs that ended longer ago, e.g. 30d, 12h")
    ] = None,
    beyond_gb: Annotated[
        float | None, typer.Option(min=0.0, help="The oldest runs beyond so many GB of the compacted record")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing")] = False,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete the runs that meet every condition given, and say which datasets and adapters were made from them.

    What is kept to resume those runs goes too, and with nothing but --user or --session what is remembered of them.
    What a crash cut short is finished by the next deletion.

    Example: journeyman traces delete --older-than 90d
    """
    from journeyman.runtime.adapters.lineage import uses
    from journeyman.runtime.recording.forgetting import forget
    from journeyman.traces.storage.compact import compact
    from journeyman.traces.storage.retention import GB, Deletion, delete, find_doomed, size
    from journeyman.traces.storage.segments import Segments

    workspace = find_workspace(folder)
    if not any((trace, session, user, older_than, beyond_gb is not None)):
        raise ConfigError("say which runs: --trace, --session, --user, --older-than or --beyond-gb")
    store, segments = workspace.store, Segments(workspace.segments)
    if beyond_gb is not None and not dry_run:
        compact(workspace.spans, segments)
    runs = find_doomed(
        store,
        ids=_ids(workspace, store, trace) if trace else None,
        sessions=_names(workspace, session) if session else None,
        users=_names(workspace, user) if user else None,
        ended_before_ns=moment_ns(older_than, now_ns=time_ns()) if older_than else None,
        keep_share=None if beyond_gb is None else beyond_gb * GB / max(1, size(workspace.spans, segments)),
    )
    made = uses(workspace, runs.trace_ids, runs.span_ids) if runs.trace_ids else ()
    deletion = Deletion()
    forgotten = None
    if not dry_run:
        if runs.trace_ids and not yes:
            _confirm(runs, made)
        reason = _reason(trace, session, user, older_than)
        with told() as tell:
            deletion = delete(workspace.spans, workspace.labels, segments, runs, reason=reason, progress=tell)
        # With other conditions a user or a session is not forgotten whole.
        alone = not (trace or older_than or beyond_gb is not None)
        whole = {"user": user, "session": session} if alone else {}
        kept, memories = asyncio.run(forget(workspace, runs.trace_ids, **whole))
        forgotten = {"kept_runs": kept, "memories": memories}
    found = {
        "traces": runs.trace_ids,
        "spans": runs.spans,
        "datasets": made,
        "deleted": None if dry_run else deletion,
        "forgotten": forgotten,
    }
    emit(found, as_json, lambda: _show_deletion(runs, made, None if dry_run else deletion))
    if forgotten is not None and any(forgotten.values()):
        notes.print(f"forgotten besides: {forgotten['kept_runs']} kept runs, {forgotten['memories']} memories")
    if runs.trace_ids and workspace.config.traces.views:
        notes.print("What views and exports were sent is not in this workspace: delete it there too")
    if not deletion.finished:
        notes.print("a compaction was at work all the time: the spans are hidden now, and gone after the next one")
        raise typer.Exit(Exit.PARTIAL)


def lineage_command(
    name: Annotated[
        str, typer.Argument(metavar="ADAPTER|DATASET:ROW|TRACE|SPAN", help="worker@8, clerk.jsonl:3, or an id's start")
    ],
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what an adapter learned from, where a dataset's row came from, or what came of a run or a span.

    Example: journeyman traces lineage clerk@2
    """
    from journeyman.runtime.adapters.lineage import trace_lineage

    found = trace_lineage(find_workspace(folder), name)
    emit(found, as_json, lambda: out.print(_tree(found)))


def _ids(workspace: Workspace, store: "TraceStore", prefixes: Iterable[str]) -> list[str]:
    """Whole ids; one that was deleted before is left out: deleting it again finishes what was begun."""
    ids = []
    deleted = Tombstones(workspace.spans).trace_ids()
    for prefix in prefixes:
        query = "SELECT DISTINCT trace_id FROM spans WHERE starts_with(trace_id, ?) LIMIT 2"
        found = store.sql(query, [prefix.lower()])["trace_id"].to_pylist()
        if len(found) > 1:
            raise StoreError(f"more than one trace starts with {prefix!r}: give more of the id")
        if not found and not any(one.startswith(prefix.lower()) for one in deleted):
            raise StoreError(
                f"no trace {prefix!r} in {workspace.spans}: `journeyman traces list` shows those there are"
            )
        ids += found
    return ids


def _names(workspace: Workspace, name: str) -> list[str]:
    """A user or a session as the record may have it."""
    config = workspace.config.traces
    return sorted({name, ContentPolicy(config.content, config.redact).key(name)})


def _reason(trace: list[str] | None, session: str | None, user: str | None, older_than: str | None) -> str:
    """Why, without saying who: a tombstone outlives the record."""
    given = {"trace": trace, "session": session, "user": user, "age": older_than}
    return "by " + " and ".join([name for name, value in given.items() if value] or ["size"])


def _confirm(runs: "Doomed", made: "tuple[Use, ...]") -> None:
    if not sys.stdin.isatty():
        notes.print(f"{_count(runs)} would be deleted for good: say --yes, or --dry-run to see more", markup=False)
        raise typer.Exit(Exit.NEEDS_INPUT)
    _show_deletion(runs, made, None)
    typer.confirm("Delete for good?", abort=True, err=True)


def _show_deletion(runs: "Doomed", made: "tuple[Use, ...]", deletion: "Deletion | None") -> None:
    labels = "" if deletion is None else f" and {_counted(deletion.labels, 'label')}"
    out.print(f"{'to delete' if deletion is None else 'deleted'}: {_count(runs)}{labels}", markup=False)
    for use in made:
        out.print(_dataset(use))
    if made:
        out.print(
            "Datasets and adapters stay as they are: remove them, or train again, where what they learned must go."
        )
    if deletion is not None and deletion.live:
        out.print(f"{deletion.live} log files are still being written: what they hold of deleted runs goes later")
    if deletion is not None and deletion.aside:
        out.print(f"{deletion.aside} damaged segments in damaged/ cannot be searched: remove them if they may hold it")


def _count(runs: "Doomed") -> str:
    return f"{_counted(len(runs.trace_ids), 'run')} with {_counted(runs.spans, 'span')}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _tree(found: "AdapterLineage | RecordLineage | RowLineage") -> Tree:
    from journeyman.runtime.adapters.lineage import AdapterLineage, RowLineage

    if isinstance(found, AdapterLineage):
        return _adapter(found)
    return _row(found) if isinstance(found, RowLineage) else _record(found)


def _adapter(found: "AdapterLineage") -> Tree:
    adapter = found.adapter
    tree = Tree(f"[bold]{adapter.policy}[/] · {adapter.method} · {adapter.digest[:12]}")
    tree.add(f"base model {adapter.base_digest[:12]} · recipe {adapter.recipe_digest[:12]}")
    tree.add(f"trained to replace {' ← '.join(found.parents)}, from the weights of {' ← '.join(found.starts)}")
    paths = ", ".join(escape(path.name) for path in found.datasets) or "[yellow]its file is not there any more[/]"
    rows = tree.add(f"dataset {adapter.dataset_digest[:12]} · {_counted(adapter.rows, 'row')} · {paths}")
    if found.replayed:
        again = sum(len(one.numbers) for one in adapter.replayed)
        names = ", ".join(escape(path.name) for path in found.replayed)
        rows.add(f"besides {_counted(again, 'row')} replayed of {names}")
    runs = rows.add(_learned(found)) if found.sources else rows
    for source in found.sources[:SHOWN]:
        runs.add(_source(source))
    if len(found.sources) > SHOWN:
        runs.add(f"… {len(found.sources) - SHOWN} more")
    for child in found.children:
        _add(tree, child)
    return tree


def _learned(found: "AdapterLineage") -> str:
    written = sum(source.demonstrations > 0 for source in found.sources)
    shown = f" · {_counted(written, 'run')} of demonstrations" if written else ""
    return f"{_counted(found.spans, 'span')} of {_counted(len(found.sources), 'run')}{shown}"


def _row(found: "RowLineage") -> Tree:
    tree = Tree(f"[bold]row {found.number}[/] of dataset {escape(found.path.name)} · {found.digest[:12]}")
    for source in found.sources:
        branch = tree.add(_source(source))
        for span_id in source.span_ids:
            branch.add(f"span {span_id}")
    for adapter in found.adapters:
        _add(tree, adapter)
    return tree


def _record(found: "RecordLineage") -> Tree:
    what = (
        f"span {found.span_id} of trace {found.trace_id or 'unknown'}" if found.span_id else f"trace {found.trace_id}"
    )
    tree = Tree(f"[bold]{what}[/]{_state(found.state)}")
    for use in found.datasets:
        tree.add(_dataset(use))
    if not found.datasets:
        tree.add("in no dataset")
    return tree


def _source(source: "Source") -> str:
    said = "".join(f" · {escape(f'{label.name} = {label.value}')}" for label in source.labels)
    name = f"trace {source.trace_id[:12]}" if source.trace_id else "of a trace that is not known"
    spans = _counted(len(source.span_ids), "span")
    match source.demonstrations:
        case 0:
            written = ""
        case count if count == len(source.span_ids):
            written = " · demonstration"
        case count:
            written = f" · {_counted(count, 'demonstration')}"
    return f"{name} · {spans}{_state(source.state)}{written}{said}"


def _state(state: str) -> str:
    return {"recorded": "", "deleted": " · [red]deleted[/]", "unknown": " · [yellow]not recorded here[/]"}[state]


def _dataset(use: "Use") -> Tree:
    numbers = ", ".join(map(str, use.numbers[:SHOWN_ROWS])) + (", …" if use.rows > SHOWN_ROWS else "")
    rows = f"{_counted(use.rows, 'row')} from it ({numbers})"
    tree = Tree(f"dataset {escape(use.path.name)} · {rows} · {use.digest[:12]}")
    for adapter in use.adapters:
        _add(tree, adapter)
    return tree


def _add(tree: Tree, adapter: "Descendant") -> None:
    branch = tree.add(f"[bold]{adapter.policy}[/] · {adapter.how} · {adapter.digest[:12]}")
    for child in adapter.children:
        _add(branch, child)
