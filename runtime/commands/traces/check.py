"""The command `journeyman traces check`: whether the record is as OpenTelemetry's GenAI conventions want it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from journeyman.runtime.console import Exit, JsonOption, WorkspaceOption, emit, notes, out, progress
from journeyman.runtime.workspace import find_workspace
from journeyman.traces.base import Record
from journeyman.traces.capture.log import LogReader, SpanRecord
from journeyman.traces.conventions import conventions
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.reports.check import Finding, check

if TYPE_CHECKING:
    from journeyman.traces.storage.store import TraceStore

RUNS = 200
"""Runs that are in memory at once."""

SHOWN = 50
"""Findings that a person is shown; `--json` has all."""


class Checked(Record):
    """What was looked at, and what was found in it."""

    conventions: str
    """Repository and commit that the spans were held against."""
    spans: int
    findings: tuple[Finding, ...]


def check_command(
    trace: Annotated[list[str] | None, typer.Argument(metavar="TRACE", help="Runs; only the newest if none")] = None,
    all_runs: Annotated[bool, typer.Option("--all", help="Every run")] = False,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An OTLP JSON file, an export, or a folder of span logs instead")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the newest run, the runs named, or with --all every run, against the GenAI conventions.

    It ends with 0 if all spans conform, with 3 if something was found.

    It needs no network. With nothing to check it ends with 1.

    Example: journeyman traces check --all
    """
    if sum((bool(trace), all_runs, file is not None)) > 1:
        raise ConfigError("name runs, or --all, or --file FILE: only one of them")
    if file is not None:
        spans, findings = _checked(_in_file(file))
    else:
        store = find_workspace(workspace).store
        wanted = _wanted(store, trace or [], all_runs=all_runs)
        spans, findings = _runs(store, wanted)
        if wanted and not (trace or all_runs):
            notes.print(f"run {wanted[0][:8]} alone, the newest: --all checks every run", style="dim")
    if not spans:
        raise StoreError("there is nothing to check: no span was found")
    table = conventions()
    checked = Checked(conventions=f"{table.repository}@{table.commit}", spans=spans, findings=tuple(findings))
    emit(checked, as_json, lambda: _show(checked))
    if findings:
        raise typer.Exit(Exit.PARTIAL)


def _wanted(store: "TraceStore", prefixes: Sequence[str], *, all_runs: bool) -> list[str]:
    if prefixes:
        return [store.get(prefix).trace_id for prefix in prefixes]
    ids = store.ids(newest_first=True)
    return ids if all_runs else ids[:1]


def _runs(store: "TraceStore", ids: Sequence[str]) -> tuple[int, list[Finding]]:
    spans, findings = 0, list[Finding]()
    with progress() as bar:
        row = bar.add_task("checking, run", total=len(ids))
        for start in range(0, len(ids), RUNS):
            some = ids[start : start + RUNS]
            count, found = _checked(store.spans(ids=some))
            spans += count
            findings += found
            bar.advance(row, len(some))
    return spans, findings


def _checked(spans: Iterator[SpanRecord]) -> tuple[int, list[Finding]]:
    known = list(spans)
    return len(known), check(known)


def _in_file(path: Path) -> Iterator[SpanRecord]:
    from journeyman.traces.exchange.importing import Broken, detect, read_file

    if path.is_dir():
        yield from LogReader(path)
        return
    for entry in read_file(path, detect(path), agent="agent", family="default", as_sent=True):
        if isinstance(entry, Broken):
            notes.print(f"{path}: {entry.where}: {entry.reason}", style="yellow", markup=False)
        else:
            yield from entry.spans


def _show(checked: Checked) -> None:
    for finding in checked.findings[:SHOWN]:
        where = f"{(finding.trace_id or '')[:8]} {finding.span_id or ''}"
        colour = "red" if finding.severity == "error" else "yellow"
        out.print(
            f"[{colour}]{finding.rule:<12}[/] [dim]{where}[/] {escape(finding.subject)}: {escape(finding.message)}",
            soft_wrap=True,
        )
    if len(checked.findings) > SHOWN:
        notes.print(f"and {len(checked.findings) - SHOWN} more: --json has all", style="dim")
    rules = Counter(finding.rule for finding in checked.findings)
    told = ", ".join(f"{count} {rule}" for rule, count in rules.most_common()) or "all conform"
    out.print(f"{checked.spans} spans: {told}")
