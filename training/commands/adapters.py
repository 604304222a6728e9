"""`journeyman adapters`: what was trained, what is in service, and how that changes."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from journeyman.runtime.adapters.adapter import adapter_folders, find_adapter, load_adapter
from journeyman.runtime.adapters.journal import Journal, State
from journeyman.runtime.adapters.live import Promotion, Swap, swap_in
from journeyman.runtime.console import AttachOption, JsonOption, WorkspaceOption, emit, notes, out
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.serving.server import ServerState, attach, running, status
from journeyman.runtime.workspace import PROJECT_FILE, Workspace, find_workspace
from journeyman.traces.base import Record
from journeyman.traces.errors import AdapterError, ConfigError
from journeyman.training.evaluation.gate import read_verdict
from journeyman.training.improve.mirror import register_adapter
from journeyman.training.improve.promote import promote, rollback
from journeyman.training.methods.export import export_adapter, export_merged
from journeyman.training.registry import read_registration

app = typer.Typer(no_args_is_help=True, help="List adapters, promote them into service, roll back.")

PolicyArgument = Annotated[str, typer.Argument(metavar="ADAPTER", help="As in worker@8")]
MlflowOption = Annotated[str | None, typer.Option("--mlflow", metavar="URI", help="MLflow (default: the workspace's)")]


class AdapterRow(Record):
    """An adapter in `adapters list`."""

    policy: str
    state: State
    rows: int | None = None
    """Samples it was trained on."""
    dataset_digest: str | None = None
    parent: str | None = None
    method: str | None = None
    """How it was trained."""
    start: str | None = None
    """The policy whose weights its training started from; a prompt candidate's are answered by them."""
    drift: float | None = None
    """KL to the base model on neutral prompts, in nats a token."""
    old_before: float | None = None
    """Loss of old rows under the policy that knew them."""
    old_after: float | None = None
    """The same under this one."""
    verdict: str | None = None
    mlflow_version: str | None = None
    error: str | None = None
    """Why it can't be served: a damaged folder."""


@app.command("list")
def list_command(folder: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """List every adapter with its state, data, verdict and MLflow version.

    Example: journeyman adapters list
    """
    workspace = find_workspace(folder)
    states = Journal(workspace.journal).states()
    rows = [_row(folder, states.get(folder.name, "candidate")) for folder in adapter_folders(workspace.adapters)]
    emit(rows, as_json, lambda: _show(rows))


@app.command("register")
def register_command(
    policy: PolicyArgument, mlflow: MlflowOption = None, folder: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Register an adapter in MLflow with its lineage; doing so again changes nothing.

    Example: journeyman adapters register clerk@2
    """
    workspace = find_workspace(folder)
    registration = register_adapter(find_adapter(workspace.adapters, policy), mlflow or workspace.mlflow_uri)
    emit(registration, as_json, lambda: out.print(f"{policy} is version {registration.version} of {registration.name}"))


@app.command("promote")
def promote_command(
    policy: PolicyArgument,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for the journal (default: the verdict)")] = None,
    force: Annotated[bool, typer.Option("--force", help="Without a verdict of the gate that says promote")] = False,
    attach: AttachOption = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put an adapter in service: loaded into the live server, proved by a probe, written into the journal.

    Example: journeyman adapters promote clerk@2
    """
    workspace = find_workspace(folder)
    promotion = promote(workspace, policy, server=_server(workspace, attach), reason=reason, force=force)
    note_override(workspace, promotion.entry.agent)
    emit(promotion, as_json, lambda: _tell(promotion))


@app.command("swap")
def swap_command(
    policy: PolicyArgument, attach: AttachOption = None, folder: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Load an adapter into the live server and probe it, without putting it in service.

    Example: journeyman adapters swap clerk@2
    """
    workspace = find_workspace(folder)
    server = _server(workspace, attach) or running(workspace)
    with workspace.lock("swap"):
        swap = swap_in(workspace, server, policy)
    emit(swap, as_json, lambda: _tell_swap(policy, swap))


@app.command("rollback")
def rollback_command(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="Whose policy goes back to the one before")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the journal")] = "asked for",
    attach: AttachOption = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the policy back in service that the present one replaced.

    Example: journeyman adapters rollback clerk --reason "slower than before"
    """
    workspace = find_workspace(folder)
    promotion = rollback(workspace, agent, reason=reason, server=_server(workspace, attach))
    note_override(workspace, promotion.entry.agent)
    emit(promotion, as_json, lambda: _tell(promotion))


@app.command("export")
def export_command(
    policy: PolicyArgument,
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write, which isn't there yet")],
    merged: Annotated[bool, typer.Option("--merged", help="The base model with the adapter in its weights")] = False,
    model: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="The base model to merge into (default: the server's)")
    ] = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write an adapter for other programs: PEFT's two files, or merged weights that transformers and vLLM load.

    Example: journeyman adapters export clerk@2 clerk-2 --merged
    """
    workspace = find_workspace(folder)
    if model is not None and not merged:
        raise ConfigError("--model names what an adapter is merged into: add --merged")
    if merged:
        export_merged(workspace, policy, target, pull_model(model or workspace.config.server.model))
    else:
        export_adapter(workspace, policy, target)
    form = "a model of its own" if merged else "PEFT's adapter"
    emit({"policy": policy, "folder": target}, as_json, lambda: out.print(f"{policy} is {form} in {target}"))


def _server(workspace: Workspace, url: str | None) -> ServerState | None:
    """The server to swap in; None where none was started, so that there is nothing to prove yet."""
    if url:
        return attach(workspace, url)
    if status(workspace).condition in ("none", "dead"):
        notes.print("no server is running: nothing was proved, the next one is brought in line with the journal")
        return None
    return running(workspace)


def note_override(workspace: Workspace, agent: str) -> None:
    chosen = workspace.config.agents.get(agent)
    if chosen is not None and chosen.policy is not None:
        notes.print(
            f"{PROJECT_FILE} has {chosen.policy} answer {agent}; a promotion changes nothing there", markup=False
        )


def _row(folder: Path, state: State) -> AdapterRow:
    try:
        adapter, verdict, registration = load_adapter(folder), read_verdict(folder), read_registration(folder)
    except AdapterError as error:
        return AdapterRow(policy=folder.name, state=state, error=str(error))
    return AdapterRow(
        policy=adapter.policy,
        state=state,
        rows=adapter.rows,
        dataset_digest=adapter.dataset_digest,
        parent=adapter.parent,
        method=adapter.method,
        start=adapter.start,
        drift=adapter.drift and adapter.drift.kl,
        old_before=adapter.old and adapter.old.before,
        old_after=adapter.old and adapter.old.after,
        verdict=verdict.decision if verdict else None,
        mlflow_version=registration.version if registration else None,
    )


def _show(rows: list[AdapterRow]) -> None:
    if not rows:
        notes.print("there is no adapter yet: `journeyman train` makes one")
        return
    columns = (
        "adapter",
        "state",
        "method",
        "rows",
        "dataset",
        "parent",
        "start",
        "old rows",
        "drift",
        "verdict",
        "MLflow",
    )
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        old = None if row.old_before is None else f"{row.old_before:.2f} to {row.old_after:.2f}"
        drift = None if row.drift is None else f"{row.drift:.3f}"
        digest = (row.dataset_digest or "")[:12]
        cells = (row.method, row.rows, digest, row.parent, row.start, old, drift, row.verdict, row.mlflow_version)
        table.add_row(row.policy, row.state, *("-" if cell in (None, "") else str(cell) for cell in cells))
    out.print(table)
    for row in rows:
        if row.error is not None:
            notes.print(row.error, style="red", markup=False)


def _tell_swap(policy: str, swap: Swap | None) -> None:
    if swap is None:
        out.print(f"{policy} is a prompt on the base model: there is nothing to load")
        return
    what = policy if swap.policy == policy else f"{swap.policy}, whose weights {policy} has,"
    out.print(
        f"{what} is loaded ({swap.swap_ms:.0f} ms) and proved ({swap.probe_ms:.0f} ms: "
        f"{swap.distance.adapter:.3f} a token from the adapter, {swap.distance.base:.3f} from the base model)"
    )


def _tell(promotion: Promotion) -> None:
    entry, swap = promotion.entry, promotion.swap
    proof = f", loaded in {swap.swap_ms:.0f} ms, proved in {swap.probe_ms:.0f} ms" if swap else ""
    out.print(f"{entry.policy} is in service for {entry.agent}, in place of {entry.previous}{proof}")
