"""`journeyman demo`: the whole loop on the embedded model, and a table of what it was worth."""

import json
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer
from rich.progress import Progress, TaskID
from rich.table import Table

from journeyman.runtime.console import AttachOption, JsonOption, WorkspaceOption, emit, notes, out, progress
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces.errors import StoreError
from journeyman.traces.files import write_whole
from journeyman.training.demo.demo import FULL, Demo, DemoConfig, DemoResult, OnDemand


def demo(
    full: Annotated[bool, typer.Option("--full", help="More tasks and more training steps")] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="Base model: a folder or hub id (default: embedded)")
    ] = None,
    attach: AttachOption = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the whole loop on a real task set: teach, record, mine, train, gate, swap; then show what it was worth.

    The tasks are FanOutQA's as closed look-up. What is finished is kept: a second call goes on from there.

    Example: journeyman demo --full
    """
    workspace = find_workspace(folder).create()
    config = FULL if full else DemoConfig()
    with workspace.lock("demo"):
        result = _run(workspace, config, model, attach)
    path = workspace.root / "demo.json"
    _write(path, result)
    emit(result, as_json, lambda: _show(result, path))


def _run(workspace: Workspace, config: DemoConfig, model: str | None, url: str | None) -> DemoResult:
    from journeyman.runtime.serving.embedded import pull_model

    started = perf_counter()
    server = workspace.config.server
    if model is not None:
        server = server.model_copy(update={"model": model})
    with progress() as bar:
        stages = Stages(bar)
        stages.stage("Model: prepare it, once", 0.3)
        base_model = Path(pull_model(server.model))
        starting = partial(stages.stage, "Server: start vLLM with LoRA on", 0.6)
        with OnDemand(workspace, server, url=url, on_start=starting) as on_demand:
            demo = Demo(workspace, config, base_model=base_model, server=on_demand, progress=stages)
            result = demo.run().model_copy(update={"server_starts": on_demand.starts})
    notes.print(f"done in {_duration((perf_counter() - started) / 60)}")
    return result


class Stages:
    """Says what is being done and how long that will take; a bar where stderr is a terminal."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._row: TaskID | None = None

    def stage(self, title: str, minutes: float) -> None:
        if self._row is not None:
            self._bar.remove_task(self._row)
            self._row = None
        notes.print(f"[bold]{title}[/bold] [dim](about {_duration(minutes)} on two cores)[/dim]", soft_wrap=True)

    def step(self, done: int, total: int, note: str) -> None:
        if self._row is None or self._bar.tasks[-1].total != total:
            self._row = self._bar.add_task(note, total=total)
        self._bar.update(self._row, completed=done, description=note)


def _duration(minutes: float) -> str:
    return f"{minutes * 60:.0f} s" if minutes < 1.95 else f"{minutes:.0f} min"


def _write(path: Path, result: DemoResult) -> None:
    """Writes the result whole or not at all."""
    try:
        write_whole(path, json.dumps(result.model_dump(mode="json"), indent=2) + "\n")
    except OSError as error:
        raise StoreError(f"{path} was not written: {error.strerror}") from error


def _show(result: DemoResult, path: Path) -> None:
    table = Table(
        title=f"FanOutQA as closed look-up, {result.tasks} held-out tasks",
        box=None,
        pad_edge=False,
        title_justify="left",
    )
    for column in ("crew", "score", "95% interval", "solved", "tokens", "calls", "P50 s", "P90 s"):
        table.add_column(column, justify="left" if column == "crew" else "right", no_wrap=True)
    for row in result.rows:
        table.add_row(
            row.name.replace("_", " "),
            f"{row.score:.3f}",
            f"{row.low:.3f} .. {row.high:.3f}",
            str(row.solved),
            f"{row.tokens_per_task:.0f}",
            f"{row.calls_per_task:.1f}",
            f"{row.p50_s:.1f}",
            f"{row.p90_s:.1f}",
        )
    out.print(table)
    out.print(
        "tokens are generated ones and calls model calls, a task; seconds are a task's, a dozen at once", style="dim"
    )
    for adapter in result.adapters:
        swap = "not served" if adapter.swap_ms is None else f"swapped in and proved in {adapter.swap_ms:.0f} ms"
        out.print(
            f"{adapter.policy}: {adapter.rows} rows, trained in {adapter.train_s:.0f} s; "
            f"gate: {adapter.verdict} ({'; '.join(adapter.reasons)}); {swap}"
        )
    out.print(f"The same as JSON: {path}")
