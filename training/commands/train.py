"""The `journeyman train` command: a dataset becomes an adapter."""

from pathlib import Path
from typing import Annotated

import typer

from journeyman.agents.model import BASE
from journeyman.runtime.adapters.adapter import Adapter
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.console import JsonOption, WorkspaceOption, emit, notes, out, progress
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.training.data.samples import SFTSample, read_samples
from journeyman.training.methods.checkpoints import Checkpoint
from journeyman.training.methods.job import load_recipe, train_adapter
from journeyman.training.methods.recipe import Recipe, read_override


def train(
    agent: Annotated[str, typer.Option(help="The agent that learns")],
    data: Annotated[Path, typer.Option(metavar="FILE", help="The dataset that `journeyman mine` wrote")],
    recipe: Annotated[str, typer.Option(help="A recipe's name, or a .toml file")] = "sft",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, e.g. trl.max_steps=20")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="The base model (default: the server's)")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(metavar="URI", help="MLflow (default: a store in the workspace)")
    ] = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train an adapter for one agent; a run that was killed goes on where it was.

    Example: journeyman train --agent clerk --data .journeyman/datasets/clerk.jsonl --set trl.max_steps=20
    """
    workspace = find_workspace(folder)
    settings = load_recipe(recipe, dict(map(read_override, overrides or [])))
    samples = read_samples(data, SFTSample)
    base_model = pull_model(model or workspace.config.server.model)
    adapter = _train(samples, agent, settings, base_model, workspace, mlflow or workspace.mlflow_uri)
    emit(adapter, as_json, lambda: _show(adapter, workspace))


def _train(
    samples: list[SFTSample], agent: str, recipe: Recipe, base_model: Path, workspace: Workspace, mlflow_uri: str
) -> Adapter:
    notes.print(f"{len(samples)} samples for {agent}; base model {base_model.name}", markup=False)
    parent = Journal(workspace.journal).in_service(agent)
    with progress() as bar:
        task = bar.add_task("loading the model", total=None)

        def tell(checkpoint: Checkpoint | None) -> None:
            notes.print(_start(base_model, parent, checkpoint), markup=False)

        def show(step: int, total: int, loss: float) -> None:
            bar.update(task, description=f"training, loss {loss:.3f}, step", completed=step, total=total)

        return train_adapter(
            samples,
            agent=agent,
            recipe=recipe,
            base_model=base_model,
            workspace=workspace,
            parent=parent,
            mlflow_uri=mlflow_uri,
            on_start=tell,
            on_step=show,
        )


def _start(base_model: Path, parent: str, checkpoint: Checkpoint | None) -> str:
    aside = "" if parent == BASE else f", not from {parent}, which the adapter would replace"
    if checkpoint is None:
        return f"training starts from the base model {base_model.name}{aside}"
    return (
        f"training goes on from step {checkpoint.step}, where a run that was cut short left its last checkpoint; "
        f"that run started from the base model {base_model.name}{aside}"
    )


def _show(adapter: Adapter, workspace: Workspace) -> None:
    out.print(
        f"{adapter.policy}: {adapter.rows} rows, rank {adapter.rank}, trained in {adapter.train_seconds:.0f} s "
        f"to replace {adapter.parent}, digest {adapter.digest[:12]}",
        soft_wrap=True,
    )
    out.print(f"{workspace.adapters / adapter.policy}", markup=False, soft_wrap=True)
