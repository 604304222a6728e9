"""`journeyman trainings`: what was trained here, how it went, and what it cost. MLflow isn't needed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from journeyman.runtime.console import JsonOption, WorkspaceOption, emit, out
from journeyman.runtime.workspace import find_workspace
from journeyman.traces.reports.wording import duration
from journeyman.training.trainings.plot import plot_trainings
from journeyman.training.trainings.trainings import Training, differences, find_training, list_trainings

app = typer.Typer(no_args_is_help=True, help="List trainings, show one, compare several, draw their curves.")

TrainingArgument = Annotated[str, typer.Argument(metavar="TRAINING", help="Its name, or its adapter, as in worker@8")]
TrainingsArgument = Annotated[
    list[str], typer.Argument(metavar="TRAINING...", help="Names, or adapters, as in worker@8")
]


@app.command("list")
def list_command(folder: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """List every training with its state, steps, loss, time, energy and cost.

    Example: journeyman trainings list
    """
    trainings = list_trainings(find_workspace(folder))
    emit([training.summary() for training in trainings], as_json, lambda: _table(trainings))


@app.command("show")
def show_command(training: TrainingArgument, folder: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Show one training: its plan, what it cost, and the metrics of its steps.

    Example: journeyman trainings show clerk@2
    """
    known = find_training(find_workspace(folder), training)
    full = {**known.summary(), "job": known.began.job, "recipe": known.began.recipe, "versions": known.began.versions}
    emit({**full, "by_step": known.steps}, as_json, lambda: _show(known))


@app.command("compare")
def compare_command(trainings: TrainingsArgument, folder: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Compare trainings: in which keys their jobs and recipes differ, and how they came out.

    Example: journeyman trainings compare clerk@1 clerk@2
    """
    workspace = find_workspace(folder)
    known = [find_training(workspace, name) for name in trainings]
    report = {"trainings": [one.summary() for one in known], "differences": differences(known)}
    emit(report, as_json, lambda: _compare(known))


@app.command("plot")
def plot_command(
    trainings: TrainingsArgument,
    path: Annotated[Path, typer.Option("--out", metavar="FILE", help="A .png, .svg or .html")] = Path("trainings.png"),
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", help="Which ones (default: loss, held-out loss, reward)")
    ] = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw the losses and other metrics of one or several trainings over their steps.

    Example: journeyman trainings plot clerk@1 clerk@2 --out curves.html
    """
    workspace = find_workspace(folder)
    drawn = plot_trainings([find_training(workspace, name) for name in trainings], path, metrics or ())
    emit(
        {"path": str(path), "metrics": drawn},
        as_json,
        lambda: out.print(f"{path}: {', '.join(drawn)}", markup=False, soft_wrap=True),
    )


def _table(trainings: Sequence[Training]) -> None:
    table = Table("training", "method", "state", "step", "loss", "time", "Wh", "cost", box=None)
    for one in trainings:
        losses = [metrics["loss"] for _, metrics in sorted(one.steps.items()) if "loss" in metrics]
        table.add_row(
            one.name,
            str(one.began.job.get("method", "")),
            one.state,
            f"{one.step}{f' of {one.planned_steps}' if one.planned_steps else ''}",
            f"{losses[-1]:.3f}" if losses else "",
            duration(one.seconds),
            "" if one.energy is None else f"{one.energy.watt_hours:.2f}",
            "" if one.cost is None else f"{one.cost:.4f} {one.began.currency}",
        )
    out.print(table)


def _show(training: Training) -> None:
    _table([training])
    for line in (training.plan and f"plan: {training.plan}", training.error):
        if line:
            out.print(line, markup=False, soft_wrap=True)
    steps = training.steps
    columns = list(dict.fromkeys(name for metrics in steps.values() for name in metrics))
    table = Table("step", *columns, box=None)
    for number, metrics in sorted(steps.items()):
        table.add_row(str(number), *(f"{metrics[name]:.4g}" if name in metrics else "" for name in columns))
    out.print(table)


def _compare(trainings: Sequence[Training]) -> None:
    _table(trainings)
    table = Table("key", *(one.name for one in trainings), box=None)
    for key, values in differences(trainings).items():
        table.add_row(key, *map(str, values))
    out.print(table)
