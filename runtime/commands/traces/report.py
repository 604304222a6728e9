"""`journeyman traces report`: what many runs have in common, at a terminal, as JSON or as a page with plots."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
from journeyman.runtime.console import JsonOption, WorkspaceOption, emit, notes, out
from journeyman.runtime.workspace import find_workspace
from journeyman.traces.errors import ConfigError

if TYPE_CHECKING:
    from journeyman.traces.reports.report import Report


def report_command(
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
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with plots")] = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Report on runs: success, where it broke first, compounding errors, latency, cost for each solved task.

    Example: journeyman traces report --html report.html
    """
    from journeyman.traces.reports.report import report
    from journeyman.traces.reports.scope import Scope
    from journeyman.traces.reports.shown.plots import require_plots
    from journeyman.traces.reports.shown.printed import printed

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
    if html is not None:
        require_plots()
    workspace = find_workspace(folder)
    config, store = workspace.config.traces, workspace.store
    found = report(store, Scope(**asked), prices=config.prices, currency=config.currency, watts=config.watts)
    if html is not None:
        _write(html, found)
    emit(found, as_json, lambda: out.print(printed(found)))
    if store.damage:
        notes.print(f"left out: {store.damage}", style="yellow", markup=False)


def _write(path: Path, found: "Report") -> None:
    from journeyman.traces.reports.shown.html import html

    try:
        path.write_text(html(found), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    notes.print(f"written: {path}", markup=False)
