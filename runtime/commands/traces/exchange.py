"""The commands `journeyman traces export` and `journeyman traces import`: the record for other programs, and theirs."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from journeyman.runtime.config import read_headers
from journeyman.runtime.console import Exit, JsonOption, WorkspaceOption, emit, notes, out, progress, runs_done
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.errors import ConfigError
from journeyman.traces.exchange.export import check_name, send_spans, write_spans
from journeyman.traces.exchange.importing import Broken, Format, detect, read_file
from journeyman.traces.labels import LabelLog
from journeyman.traces.trace import Purpose

if TYPE_CHECKING:
    from journeyman.traces.exchange.endpoint import Endpoint

SHOWN = 20
"""Broken entries that a person is shown."""


def export_command(
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="FILE.jsonl, FILE.parquet, or FILE.json for OTLP JSON")
    ] = None,
    otlp: Annotated[
        str | None, typer.Option(metavar="URL", help="http://host:4318, or grpc://host:4317 for gRPC")
    ] = None,
    mlflow: Annotated[str | None, typer.Option(metavar="URL", help="An MLflow server, which gets labels too")] = None,
    headers_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Variable with name=value,… headers for the endpoint")
    ] = None,
    trace: Annotated[list[str] | None, typer.Option(metavar="TRACE", help="Only these runs (repeat it)")] = None,
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
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write runs to a file, or send them to an OpenTelemetry endpoint or an MLflow server.

    A file has all spans or is not there. An MLflow server has a run and a label once, however often it is sent.

    Example: journeyman traces export --to runs.jsonl
    """
    if [to, otlp, mlflow].count(None) != 2:
        raise ConfigError("export to one of --to FILE, --otlp URL, --mlflow URL")
    workspace = find_workspace(folder)
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
    headers = read_headers(headers_env)
    if to is not None:
        check_name(to)
    store = workspace.store
    if trace:
        asked["ids"] = [store.get(prefix).trace_id for prefix in trace]
    ids = store.ids(**asked)
    with runs_done("exporting, run", len(ids)) as tell:
        report = _export(_noting(store.spans(**asked), tell), to, otlp, mlflow, headers)
    if mlflow is not None:
        report["labels"] = _push_labels(workspace, frozenset(ids), mlflow, headers)
    emit(report, as_json, lambda: out.print(_told(report), markup=False, soft_wrap=True))
    if store.damage:
        notes.print(f"left out: {store.damage}", style="yellow", markup=False)
    if report["refused"]:
        notes.print(f"{report['refused']} spans were refused by {report['to']}", style="yellow", markup=False)
        raise typer.Exit(Exit.PARTIAL)


def _export(
    spans: Iterable[SpanRecord], to: Path | None, otlp: str | None, mlflow: str | None, headers: dict[str, str]
) -> dict[str, Any]:
    if to is not None:
        return {"to": to, "spans": write_spans(spans, to), "refused": 0}
    with closing(_endpoint(otlp, mlflow, headers)) as endpoint:
        sent = send_spans(spans, endpoint)
    return {"to": endpoint.shown, "spans": sent.taken, "refused": sent.refused}


def _noting(spans: Iterable[SpanRecord], tell: Callable[[str], None]) -> Iterator[SpanRecord]:
    """The spans, while it is told of which traces they are."""
    for span in spans:
        tell(span.trace_id)
        yield span


def _push_labels(workspace: Workspace, trace_ids: Collection[str], mlflow: str, headers: dict[str, str]) -> int:
    from journeyman.runtime.recording.assessments import push_labels

    return push_labels([label for label in LabelLog(workspace.labels) if label.trace_id in trace_ids], mlflow, headers)


def _endpoint(otlp: str | None, mlflow: str | None, headers: dict[str, str]) -> "Endpoint":
    from journeyman.traces.exchange.endpoint import open_endpoint

    if mlflow is not None:
        return open_endpoint(mlflow, "mlflow", headers)
    assert otlp is not None
    scheme, _, rest = otlp.partition("://")
    if scheme in ("grpc", "grpcs"):
        return open_endpoint(f"http{scheme.removeprefix('grpc')}://{rest}", "otlp-grpc", headers)
    return open_endpoint(otlp, "otlp-http", headers)


def _told(report: dict[str, Any]) -> str:
    labels = f" and {report['labels']} new labels" if "labels" in report else ""
    return f"{report['spans']} spans{labels} to {report['to']}"


def import_command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Files to import", exists=True, dir_okay=False)],
    format: Annotated[
        Format | None, typer.Option("--format", help="What the files hold (default: found by looking)")
    ] = None,
    agent: Annotated[
        str, typer.Option(help="Agent of chat replies whose log names none (`name` of a message)")
    ] = "assistant",
    family: Annotated[str, typer.Option(help="Task family of imported conversations")] = "default",
    purpose: Annotated[
        Purpose | None,
        typer.Option(help="Why runs were made that don't say it (default: service, for those of other programs)"),
    ] = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take in OTLP JSON, exports of another workspace, and chat logs of OpenAI's API, LangChain and LangGraph.

    Each conversation becomes a run, `score` or `rating` beside it a label.

    No server of ours sampled the replies, so they have no token ids: they are
    demonstrations, which training learns from as text.

    What is imported twice is there once. Redaction applies as in a run.

    Example: journeyman traces import chat.jsonl
    """
    from journeyman.runtime.recording.intake import Intake

    workspace = find_workspace(folder).create()
    formats = {file: format or detect(file) for file in files}
    broken: list[str] = []
    with Intake(workspace) as intake, progress() as bar:
        for file in files:
            row = bar.add_task(f"importing {file.name}, entry", total=None)
            for entry in read_file(file, formats[file], agent=agent, family=family, purpose=purpose):
                bar.advance(row)
                if isinstance(entry, Broken):
                    broken.append(f"{file}: {entry.where}: {entry.reason}")
                else:
                    intake.take(entry)
    report = {
        "spans": intake.spans,
        "known": intake.known,
        "deleted": intake.deleted,
        "labels": intake.labels,
        "broken": broken,
    }
    emit(report, as_json, lambda: out.print(_taken(report), markup=False, soft_wrap=True))
    for line in broken[:SHOWN]:
        notes.print(line, style="yellow", markup=False)
    if len(broken) > SHOWN:
        notes.print(f"and {len(broken) - SHOWN} more: --json has all", style="dim")
    if broken:
        raise typer.Exit(Exit.PARTIAL if intake.spans + intake.known + intake.deleted else Exit.FAILED)


def _taken(report: dict[str, Any]) -> str:
    known = f"; {report['known']} spans were there already" if report["known"] else ""
    deleted = f"; {report['deleted']} are of runs that were deleted here" if report["deleted"] else ""
    return f"{report['spans']} spans and {report['labels']} labels imported{known}{deleted}"
