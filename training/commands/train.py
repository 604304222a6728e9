"""The `journeyman train` command: a dataset, or a crew's runs on tasks, becomes an adapter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from journeyman.runtime.adapters.adapter import Adapter
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.adapters.prompts import weights_of
from journeyman.runtime.console import JsonOption, WorkspaceOption, emit, notes, progress
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces.errors import ConfigError
from journeyman.training.commands.evaluate import SCORER, find_tasks
from journeyman.training.commands.train_shown import (
    beginning,
    doing,
    show_adapter,
    show_choices,
    show_trial,
    watt_hours,
)
from journeyman.training.data.datasets.shelf import KnownDataset, open_dataset, shelve
from journeyman.training.data.samples import read_samples
from journeyman.training.improve.alternate import Alternation
from journeyman.training.improve.from_tasks import Driver, TaskJob, Watcher, driver_of
from journeyman.training.methods.checkpoints import Checkpoint
from journeyman.training.methods.job import plan_job, start_of, train_adapter, try_job
from journeyman.training.methods.recipe import Step, read_override
from journeyman.training.methods.recipes.known import load_recipe
from journeyman.training.trainings.launched import follows
from journeyman.training.trainings.yielding import give_way

ROUNDS = 10
"""Of each agent that learns in turn, before it is the next one's."""


def train(
    agent: Annotated[str | None, typer.Option(help="The agent that learns")] = None,
    agents: Annotated[
        str | None, typer.Option(metavar="A,B", help="Agents that learn in turn, for the recipe grpo")
    ] = None,
    alternate: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Rounds of each of --agents before the next one's turn (default: 10)"),
    ] = None,
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
    By grpo several agents may learn in turn, with --agents: each for some rounds, beside the newest of the others.

    Example: journeyman train --agent clerk --data .journeyman/datasets/clerk.jsonl --set trl.max_steps=20
    """
    if explain and dry_run:
        raise ConfigError("--explain trains nothing and --dry-run makes two steps: leave out one of them")
    workspace = find_workspace(folder)
    written = {} if reflect is None else {"prompt.reflect": reflect}
    settings = load_recipe(recipe, written | dict(map(read_override, overrides or [])))
    learning = _learning(agent, agents, start, alternate)
    base_model = pull_model(model or workspace.config.server.model)
    how: dict[str, Any] = {"wait": wait, "discard": discard, "mlflow_uri": mlflow or workspace.mlflow_uri}

    def job_of(agent: str) -> dict[str, Any]:
        parent = Journal(workspace.journal).in_service(agent)
        return {
            "workspace": workspace,
            "agent": agent,
            "recipe": settings,
            "base_model": base_model,
            "parent": parent,
            "start": weights_of(workspace.adapters, start or start_of(settings, parent)),
        }

    if settings.driver is not None:
        if data is not None or crew is None or tasks is None:
            raise ConfigError(f"method {settings.method} learns from tasks: give --crew and --tasks, and no --data")
        learned, told = tuple(find_tasks(workspace, tasks)), scorer or SCORER
        asked = [
            TaskJob(**job_of(name), **how, crew=crew, tasks=learned, source=tasks.name, scorer=told)
            for name in learning
        ]
        driver = driver_of(asked[0]) if agents is None else Alternation(asked, alternate or ROUNDS)
        _on_tasks(driver, workspace, plan_only=explain or dry_run, as_json=as_json)
        return
    if agents is not None:
        raise ConfigError(f"method {settings.method} teaches one agent at a time: name it with --agent")
    job = job_of(learning[0])
    if data is None or crew is not None or tasks is not None or scorer is not None:
        raise ConfigError(f"method {settings.method} learns from rows: give --data, and no crew, tasks or scorer")
    dataset = open_dataset(workspace, data)
    samples = read_samples(dataset.path, settings.learns_from, *settings.also_from)
    if (notice := settings.notice(base_model, workspace)) is not None:
        notes.print(notice, markup=False)
    if explain:
        plan = plan_job(samples, **job, dataset=dataset)
        emit(plan, as_json, lambda: show_choices(str(plan), plan.choices))
    elif dry_run:
        notes.print("two steps are tried", markup=False)
        trial = try_job(samples, **job, dataset=dataset)
        energy = watt_hours(trial, workspace)
        report = {**trial.model_dump(mode="json"), "seconds": trial.seconds, "watt_hours": energy}
        emit(report, as_json, lambda: show_trial(trial, energy))
    else:
        _on_rows(samples, dataset, {**job, **how}, as_json=as_json)


def _on_rows(samples: list[Any], dataset: KnownDataset, job: Mapping[str, Any], *, as_json: bool) -> None:
    """Trains, and shows how it comes on; `job` goes to `train_adapter` as it is."""
    workspace, agent, base_model = job["workspace"], job["agent"], job["base_model"]
    notes.quiet = follows()  # The process that leads speaks for all.
    if yielding := give_way(workspace):
        notes.print(yielding, markup=False)
    notes.print(f"{len(samples)} samples for {agent}; base model {base_model.name}", markup=False)
    with progress() as bar:
        task = bar.add_task("loading the model", total=None)

        def tell(checkpoint: Checkpoint | None) -> None:
            notes.print(beginning(base_model, job["parent"], job["start"], checkpoint), markup=False)

        def show(step: Step) -> None:
            bar.update(task, description=doing(step), completed=step.number, total=step.steps)

        adapter = train_adapter(
            samples,
            **job,
            dataset=shelve(workspace, dataset, agent),
            on_start=tell,
            on_plan=lambda plan: notes.print(f"planned: {plan}", markup=False),
            on_step=show,
            say=lambda line: notes.print(line, markup=False),
        )
    if not follows():
        emit(adapter, as_json, lambda: show_adapter(adapter, workspace))


def _learning(agent: str | None, agents: str | None, start: str | None, alternate: int | None) -> list[str]:
    """The agents that learn, as the options name them."""
    if agents is None:
        if alternate is not None:
            raise ConfigError("--alternate says how long each of several agents learns: name them with --agents")
        if agent is None:
            raise ConfigError("nobody is named who learns: give --agent, or --agents for several in turn")
        return [agent]
    if agent is not None or start is not None:
        raise ConfigError("--agents names all that learn, each from where it is: give no --agent and no --from")
    return [name for part in agents.split(",") if (name := part.strip())]


def _on_tasks(driver: Driver | Alternation, workspace: Workspace, *, plan_only: bool, as_json: bool) -> None:
    """Makes what the job says, and shows how it comes on."""
    plan = driver.plan()
    if plan_only:
        emit(plan, as_json, lambda: show_choices(str(plan), plan.choices))
        return
    notes.print(f"planned: {plan}", markup=False)
    with progress() as bar:
        row = bar.add_task("runs", total=None)

        def run(made: int, runs: int) -> None:
            bar.update(row, description="runs", completed=made, total=runs)

        def step(step: Step) -> None:
            bar.update(row, description=doing(step), completed=step.number, total=step.steps)

        made = driver.train(Watcher(on_step=step, on_run=run, say=lambda line: notes.print(line, markup=False)))
    adapters = [made] if isinstance(made, Adapter) else [*made.values()]

    def show() -> None:
        for adapter in adapters:
            show_adapter(adapter, workspace)

    emit(made if isinstance(made, Adapter) else adapters, as_json, show)
