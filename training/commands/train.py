"""The `journeyman train` command: a dataset, or a crew's runs on tasks, becomes an adapter."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from journeyman.agents.model import BASE
from journeyman.runtime.adapters.adapter import Adapter
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.adapters.prompts import weights_of
from journeyman.runtime.console import JsonOption, WorkspaceOption, emit, notes, out, progress
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.reports.wording import duration
from journeyman.training.commands.evaluate import SCORER, find_tasks
from journeyman.training.data.datasets.shelf import KnownDataset, open_dataset, shelve
from journeyman.training.data.samples import read_samples
from journeyman.training.improve.from_tasks import TaskJob, Watcher, driver_of
from journeyman.training.methods.checkpoints import Checkpoint
from journeyman.training.methods.job import load_recipe, plan_job, start_of, train_adapter, try_job
from journeyman.training.methods.plan import Choice, Trial
from journeyman.training.methods.recipe import Recipe, Step, read_override
from journeyman.training.trainings.launched import follows
from journeyman.training.trainings.yielding import give_way

SHOWN = {
    "eval_loss": "held-out loss",
    "reward": "reward",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "kl": "KL",
    "entropy": "entropy",
}
"""Metrics that the progress tells beside the loss, where a method has them."""
SPEED = "tokens_per_second"


def train(
    agent: Annotated[str, typer.Option(help="The agent that learns")],
    data: Annotated[
        str | None, typer.Option(metavar="DATASET", help="What `journeyman mine` wrote: a file, or its name or digest")
    ] = None,
    crew: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The crew, for a recipe that learns from tasks")
    ] = None,
    tasks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Tasks to learn from: JSON lines, or a set's name")
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(metavar="MODULE:FUNCTION", help="What an answer to a task is worth, 0..1")
    ] = None,
    reflect: Annotated[
        str | None, typer.Option(metavar="POLICY", help="Who writes new instructions, for the recipe prompt")
    ] = None,
    recipe: Annotated[str, typer.Option(help="A recipe's name, or a .toml file")] = "sft",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, e.g. trl.max_steps=20")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="POLICY", help="Start from these weights, e.g. clerk@2 or base"),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show every number, where it is from and why; train nothing")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run, and its price by two steps; keep nothing")
    ] = False,
    model: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="The base model (default: the server's)")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(metavar="URI", help="MLflow (default: a store in the workspace)")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait while another training runs in this workspace")] = False,
    discard: Annotated[
        bool, typer.Option("--discard", help="Remove the checkpoints of the agent's other unfinished trainings")
    ] = False,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train an adapter for one agent; a run that was killed goes on where it was.

    How long and how fast it learns follows from the rows and the model, where the recipe leaves it open. Of 60 rows or
    more a tenth is held out: training stops when their loss falls no more, and keeps the best checkpoint.

    Ctrl-C and SIGTERM save a checkpoint first; a second Ctrl-C ends at once. The same command goes on.

    A recipe that learns from tasks takes --crew and --tasks in the place of --data: it makes the crew's runs itself.

    Example: journeyman train --agent clerk --data .journeyman/datasets/clerk.jsonl --set trl.max_steps=20
    """
    if explain and dry_run:
        raise ConfigError("--explain trains nothing and --dry-run makes two steps: leave out one of them")
    workspace = find_workspace(folder)
    written = {} if reflect is None else {"prompt.reflect": reflect}
    settings = load_recipe(recipe, written | dict(map(read_override, overrides or [])))
    if settings.driver is not None:
        if data is not None or crew is None or tasks is None:
            raise ConfigError(f"method {settings.method} learns from tasks: give --crew and --tasks, and no --data")
        base_model = pull_model(model or workspace.config.server.model)
        parent = Journal(workspace.journal).in_service(agent)
        job = TaskJob(
            workspace=workspace,
            agent=agent,
            recipe=settings,
            crew=crew,
            tasks=tuple(find_tasks(workspace, tasks)),
            source=tasks.name,
            scorer=scorer or SCORER,
            base_model=base_model,
            parent=parent,
            start=weights_of(workspace.adapters, start or start_of(settings, parent)),
            mlflow_uri=mlflow or workspace.mlflow_uri,
            wait=wait,
            discard=discard,
        )
        train_on_tasks(job, plan_only=explain or dry_run, as_json=as_json)
        return
    if data is None or crew is not None or tasks is not None or scorer is not None:
        raise ConfigError(f"method {settings.method} learns from rows: give --data, and no crew, tasks or scorer")
    dataset = open_dataset(workspace, data)
    samples = read_samples(dataset.path, settings.learns_from, *settings.also_from)
    base_model = pull_model(model or workspace.config.server.model)
    parent = Journal(workspace.journal).in_service(agent)
    start = weights_of(workspace.adapters, start or start_of(settings, parent))
    if (notice := settings.notice(base_model, workspace)) is not None:
        notes.print(notice, markup=False)
    if explain:
        plan = plan_job(
            samples,
            agent=agent,
            recipe=settings,
            base_model=base_model,
            workspace=workspace,
            parent=parent,
            start=start,
            dataset=dataset,
        )
        emit(plan, as_json, lambda: _show_choices(str(plan), plan.choices))
        return
    if dry_run:
        notes.print("two steps are tried", markup=False)
        trial = try_job(
            samples,
            agent=agent,
            recipe=settings,
            base_model=base_model,
            workspace=workspace,
            parent=parent,
            start=start,
            dataset=dataset,
        )
        energy = _watt_hours(trial, workspace)
        report = {**trial.model_dump(mode="json"), "seconds": trial.seconds, "watt_hours": energy}
        emit(report, as_json, lambda: _show_trial(trial, energy))
        return
    notes.quiet = follows()  # The process that leads speaks for all.
    if yielding := give_way(workspace):
        notes.print(yielding, markup=False)
    keep = {"wait": wait, "discard": discard, "mlflow_uri": mlflow or workspace.mlflow_uri}
    adapter = _train(samples, dataset, agent, settings, base_model, workspace, parent, start, **keep)
    if not follows():
        emit(adapter, as_json, lambda: _show(adapter, workspace))


def _train(
    samples: list[Any],
    dataset: KnownDataset,
    agent: str,
    recipe: Recipe,
    base_model: Path,
    workspace: Workspace,
    parent: str,
    start: str,
    **how: Any,
) -> Adapter:
    """`how` goes to `train_adapter` as it is."""
    notes.print(f"{len(samples)} samples for {agent}; base model {base_model.name}", markup=False)
    with progress() as bar:
        task = bar.add_task("loading the model", total=None)

        def tell(checkpoint: Checkpoint | None) -> None:
            notes.print(_beginning(base_model, parent, start, checkpoint), markup=False)

        def show(step: Step) -> None:
            bar.update(task, description=_doing(step), completed=step.number, total=step.steps)

        return train_adapter(
            samples,
            agent=agent,
            recipe=recipe,
            base_model=base_model,
            workspace=workspace,
            parent=parent,
            dataset=shelve(workspace, dataset, agent),
            start=start,
            **how,
            on_start=tell,
            on_plan=lambda plan: notes.print(f"planned: {plan}", markup=False),
            on_step=show,
            say=lambda line: notes.print(line, markup=False),
        )


def train_on_tasks(job: TaskJob, *, plan_only: bool, as_json: bool) -> None:
    """Makes what the job says, and shows how it comes on."""
    driver = driver_of(job)
    if plan_only:
        plan = driver.plan()
        emit(plan, as_json, lambda: _show_choices(str(plan), plan.choices))
        return
    notes.print(f"planned: {driver.plan()}", markup=False)
    with progress() as bar:
        row = bar.add_task("runs", total=None)

        def run(made: int, runs: int) -> None:
            bar.update(row, description="runs", completed=made, total=runs)

        def step(step: Step) -> None:
            bar.update(row, description=_doing(step), completed=step.number, total=step.steps)

        adapter = driver.train(Watcher(on_step=step, on_run=run, say=lambda line: notes.print(line, markup=False)))
    emit(adapter, as_json, lambda: _show(adapter, job.workspace))


def _doing(step: Step) -> str:
    """The step's loss, and what else of it says how training goes."""
    told = [f"{word} {step.metrics[name]:.3f}" for name, word in SHOWN.items() if name in step.metrics]
    speed = [f"{step.metrics[SPEED]:,.0f} tokens/s"] if SPEED in step.metrics else []
    return ", ".join(["training", f"loss {step.loss:.3f}", *told, *speed, "step"])


def _beginning(base_model: Path, parent: str, start: str, checkpoint: Checkpoint | None) -> str:
    weights = f"the base model {base_model.name}" if start == BASE else f"the weights of {start}"
    aside = "" if parent in (BASE, start) else f", not from {parent}, which the adapter would replace"
    if checkpoint is None:
        return f"training starts from {weights}{aside}"
    return (
        f"training goes on from step {checkpoint.step}, where a run that was cut short left its last checkpoint; "
        f"that run started from {weights}{aside}"
    )


def _watt_hours(trial: Trial, workspace: Workspace) -> float | None:
    watts = workspace.config.traces.watts
    return None if watts is None else watts * trial.seconds / 3600


def _show_choices(summary: str, choices: Iterable[Choice]) -> None:
    out.print(summary, markup=False)
    table = Table("key", "value", "from", "why", box=None)
    for choice in choices:
        table.add_row(choice.key, str(choice.value), choice.source, choice.why)
    out.print(table)


def _show_trial(trial: Trial, energy: float | None) -> None:
    out.print(str(trial.plan), markup=False)
    energy_text = "" if energy is None else f", {energy:.1f} Wh"
    out.print(
        f"a step takes {trial.step_seconds:.1f} s: about {duration(trial.seconds)}{energy_text}, "
        f"within {trial.peak_mb:,.0f} MB",
        markup=False,
        soft_wrap=True,
    )


def _show(adapter: Adapter, workspace: Workspace) -> None:
    weights = "all weights" if adapter.is_model else f"rank {adapter.rank}"
    epochs = "" if adapter.epochs is None else f", {adapter.epochs:.1f} epochs"
    held_out = "" if adapter.eval_loss is None else f", loss of held-out rows {adapter.eval_loss:.3f}"
    out.print(
        f"{adapter.policy}: {adapter.rows} rows{epochs}{held_out}, {weights}, trained "
        f"in {adapter.train_seconds:.0f} s to replace {adapter.parent}, digest {adapter.digest[:12]}",
        soft_wrap=True,
    )
    if adapter.metrics:
        told = ", ".join(f"{name} {value:.3f}" for name, value in adapter.metrics.items())
        out.print(f"at its end: {told}", markup=False, soft_wrap=True)
    for line in _guarded(adapter):
        out.print(line, markup=False, soft_wrap=True)
    if adapter.old is not None and adapter.old.lost:
        notes.print(
            f"the loss of old rows rose by more than guard.worst = {adapter.old.worst:g}: evaluate {adapter.policy} on "
            "earlier tasks, or train with a larger guard.replay",
            markup=False,
        )
    out.print(f"{workspace.adapters / adapter.policy}", markup=False, soft_wrap=True)


def _guarded(adapter: Adapter) -> Iterator[str]:
    """What was done against forgetting, and what came of it."""
    if adapter.replayed:
        rows = sum(len(part.numbers) for part in adapter.replayed)
        yield f"{rows} rows replayed of {', '.join(part.dataset_digest[:12] for part in adapter.replayed)}"
    if old := adapter.old:
        yield f"loss of {old.rows} old rows: {old.before:.3f} under {old.against}, {old.after:.3f} now"
    if drift := adapter.drift:
        yield (
            f"on neutral prompts: KL to the base model {drift.kl:.3f} nats a token, "
            f"{drift.agreement:.0%} of its tokens the same"
        )
