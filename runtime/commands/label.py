"""The `journeyman label` command: what a person says of a run, or of one span of it."""

import getpass
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError

from journeyman.runtime.commands.traces.scope import label_value
from journeyman.runtime.config import read_headers
from journeyman.runtime.console import Exit, JsonOption, WorkspaceOption, emit, notes, out
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces import attributes as a
from journeyman.traces.base import first_mistake, read_text
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.exchange.mlflow_form import EDIT
from journeyman.traces.labels import Label, LabelLog, numbered, unsaid

if TYPE_CHECKING:
    from journeyman.traces.storage.store import TraceStore

THUMBS = "thumbs"
COMMENT = "comment"


def label(
    trace: Annotated[str | None, typer.Argument(metavar="TRACE", help="Trace id, or the start of one")] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="What is stated, e.g. score")] = None,
    value: Annotated[str | None, typer.Argument(metavar="VALUE", help="true, false, a number, or a word")] = None,
    up: Annotated[bool | None, typer.Option("--up/--down", help="Thumbs: the label `thumbs`, true or false")] = None,
    edit: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A better reply, to be learned from: the label `edit`")
    ] = None,
    comment: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why; with nothing else stated, the label `comment`")
    ] = None,
    span: Annotated[
        str | None, typer.Option(metavar="ID", help="A span of the trace, where the label is of that alone")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Who says so (default: the user's name)")] = None,
    source_type: Annotated[
        Literal["human", "code", "llm_judge"], typer.Option(help="What kind of source that is")
    ] = "human",
    version: Annotated[int, typer.Option(min=1, help="Of the source's statement: the highest counts")] = 1,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="JSON lines of labels: trace_id, name, value, …")
    ] = None,
    from_mlflow: Annotated[
        str | None, typer.Option("--from-mlflow", metavar="URI", help="Take over what was said on an MLflow server")
    ] = None,
    headers_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Variable with name=value,… headers for that server")
    ] = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say something of a run or of one span of it; the record itself is never edited.

    An edit is of a run's answer, or with --span of one model call; `journeyman mine` makes training data of it.

    Example: journeyman label 3fa9 --down --comment "wrong river"
    """
    workspace = find_workspace(folder)
    if [trace, file, from_mlflow].count(None) != 2:
        raise ConfigError("label one TRACE, or --file FILE, or --from-mlflow URI")
    if trace is None and any(said is not None for said in (up, edit, comment, span, source)):
        raise ConfigError("--up, --down, --edit, --comment, --span and --source are said of one TRACE: name it")
    if headers_env is not None and from_mlflow is None:
        raise ConfigError("--headers-env is for --from-mlflow: leave it out, or name an MLflow server")
    if file is not None:
        _label_from_file(workspace, file, as_json)
    elif from_mlflow is not None:
        _label_from_mlflow(workspace, from_mlflow, headers_env, as_json)
    else:
        assert trace is not None
        common = {
            "source": source or getpass.getuser(),
            "source_type": source_type,
            "version": version,
        }
        statements = list(_statements(name, value, up, edit, comment))
        labels = _labels_of(workspace.store, trace, span, statements, common)
        _keep(workspace, labels)
        emit(labels, as_json, lambda: _print(labels))


def _statements(
    name: str | None, value: str | None, up: bool | None, edit: str | None, comment: str | None
) -> Iterator[dict[str, Any]]:
    if any(said is not None and not said.strip() for said in (name, value, edit, comment)):
        raise ConfigError("a label without a name or without words says nothing: write some")
    if name is not None and value is None:
        raise ConfigError(f"what is {name}? Give a value: true, false, a number, or a word")
    if name is not None and value is not None:
        yield {"name": name, "value": label_value(value), "comment": comment}
    if up is not None:
        yield {"name": THUMBS, "value": up, "comment": comment}
    if edit is not None:
        yield {"name": EDIT, "value": edit, "comment": comment}
    if name is None and up is None and edit is None:
        if comment is None:
            raise ConfigError("nothing is said: give NAME VALUE, --up, --down, --edit TEXT or --comment TEXT")
        yield {"name": COMMENT, "value": comment}


def _labels_of(
    store: "TraceStore", prefix: str, span: str | None, statements: list[dict[str, Any]], common: dict[str, Any]
) -> list[Label]:
    trace_id = store.get(prefix).trace_id
    if span is not None:
        spoken = _span(store, trace_id, span)
        span, operation = spoken.span_id, spoken.attributes.get(a.OPERATION)
        if operation not in a.INFERENCE and any(statement["name"] == EDIT for statement in statements):
            raise StoreError(f"span {span} isn't a model call ({operation}), so it has no reply: edit one that is")
    return [Label(trace_id=trace_id, span_id=span, **statement, **common) for statement in statements]


def _span(store: "TraceStore", trace_id: str, prefix: str) -> SpanRecord:
    known = {span.span_id: span for span in store.spans(ids=[trace_id]) if span.span_id.startswith(prefix.lower())}
    if len(known) != 1:
        raise StoreError(
            f"trace {trace_id[:8]} has {len(known) or 'no'} spans {prefix!r}: `--json` of `traces show` has their ids"
        )
    return next(iter(known.values()))


def _label_from_file(workspace: Workspace, file: Path, as_json: bool) -> None:
    """Labels of every line that can be read; the others are named by number."""
    labels: list[Label] = []
    broken: dict[int, str] = {}
    known = set(workspace.store.ids())
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            read = _read_label(line)
            if read.trace_id not in known:
                raise StoreError(f"there is no trace {read.trace_id!r}: a file has whole ids")
            labels.append(read)
        except StoreError as error:
            broken[number] = str(error)
    if labels:
        _keep(workspace, labels)
    emit(
        {"labels": len(labels), "broken": broken},
        as_json,
        lambda: out.print(f"{len(labels)} labels from {file}", markup=False, soft_wrap=True),
    )
    for number, reason in broken.items():
        notes.print(f"{file}: line {number}: {reason}", style="yellow", markup=False)
    if broken:
        raise typer.Exit(Exit.PARTIAL if labels else Exit.FAILED)


def _keep(workspace: Workspace, labels: list[Label], *, shown: bool = True) -> None:
    from journeyman.runtime.recording.recording import Recording

    with Recording(workspace) as recording:
        recording.label(*labels, shown=shown)


def _read_label(line: str) -> Label:
    """A label as people write it into a file: they need not say who and what they are."""
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise StoreError("a label is a JSON object with trace_id, name and value")
        return Label.model_validate({"source": getpass.getuser(), "source_type": "human"} | row)
    except ValidationError as error:
        mistake = first_mistake(error, Label)
        if mistake.startswith("'value."):  # One for each type that it might have had.
            mistake = "'value': it is true, false, a finite number, or a text"
        raise StoreError(mistake) from None
    except ValueError as error:
        raise StoreError(f"no JSON: {error}") from None


def _label_from_mlflow(workspace: Workspace, uri: str, headers_env: str | None, as_json: bool) -> None:
    from journeyman.runtime.recording.assessments import Assessments

    known = list(LabelLog(workspace.labels))
    traces = set(workspace.store.ids())
    with Assessments(uri, read_headers(headers_env)) as assessments:
        found = list(assessments.labels())
    ours = [label for label in found if label.trace_id in traces]
    labels = numbered(unsaid(ours, known), known)
    if labels:
        _keep(workspace, labels, shown=False)
    foreign = len(found) - len(ours)
    emit({"labels": len(labels), "known": len(ours) - len(labels), "foreign": foreign}, as_json, lambda: _print(labels))
    if not as_json:
        notes.print(f"{len(labels)} new labels, {len(ours) - len(labels)} known already", style="dim")
    if foreign:
        notes.print(f"{foreign} assessments are of traces that are not in this workspace", style="dim")


def _print(labels: list[Label]) -> None:
    for said in labels:
        where = said.trace_id[:8] + (f", span {said.span_id}" if said.span_id else "")
        out.print(f"{said.name} = {said.value} on {where}", markup=False, soft_wrap=True)
