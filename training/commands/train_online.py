"""`journeyman train` where the method learns from what a crew does: rounds are told as they end."""

from pathlib import Path
from typing import NamedTuple

from journeyman.agents.crew_file import load_crew
from journeyman.runtime.adapters.adapter import Adapter
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.console import notes, progress
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError
from journeyman.training.commands.evaluate import find_tasks
from journeyman.training.data.tasks.heldout import less_held_out
from journeyman.training.methods.checkpoints import Checkpoint
from journeyman.training.methods.grpo import GRPORecipe
from journeyman.training.methods.job import start_of
from journeyman.training.methods.online import train_online
from journeyman.training.methods.rounds import Round


class Rolled(NamedTuple):
    """What is rolled out, as the command was given it."""

    agent: str
    data: str | None
    crew: Path | None
    tasks: Path | None
    scorer: str
    start: str | None


def train_on_rollouts(
    workspace: Workspace, recipe: GRPORecipe, asked: Rolled, model: str | None, mlflow_uri: str
) -> Adapter:
    from journeyman.runtime.serving.backend import open_backend  # langchain takes a second to import.

    if asked.crew is None or asked.tasks is None or asked.data is not None:
        raise ConfigError(f"{recipe.method} learns from runs of a crew: give --crew and --tasks, without --data")
    crew = load_crew(asked.crew)
    named, left_out = less_held_out(workspace, find_tasks(workspace, asked.tasks), asked.tasks.name)
    for reason, count in left_out.items():
        notes.print(f"{count} tasks are left out: {reason}", markup=False)
    base_model = pull_model(model or workspace.config.server.model)
    parent = Journal(workspace.journal).in_service(asked.agent)
    start = asked.start or start_of(recipe, parent)
    with progress() as bar:
        row = bar.add_task("rolling out", total=None)

        def tell(checkpoint: Checkpoint | None) -> None:
            began = f"training starts from {start}"
            if checkpoint is not None:
                began = f"training goes on from step {checkpoint.step}, where a run was cut short"
            notes.print(f"{began}; {len(named)} tasks for {asked.agent} of crew {crew.name}", markup=False)

        def show(one: Round) -> None:
            bar.update(row, description=f"score {one.score:.3f}, round", completed=one.number)
            notes.print(_told(one), markup=False, soft_wrap=True)

        return train_online(
            named,
            crew,
            agent=asked.agent,
            recipe=recipe,
            base_model=base_model,
            workspace=workspace,
            backend=open_backend(workspace),
            scorer=asked.scorer,
            source=asked.tasks.name,
            parent=parent,
            start=start,
            mlflow_uri=mlflow_uri,
            on_start=tell,
            on_round=show,
        )


def _told(one: Round) -> str:
    lines = [
        f"round {one.number}: score {one.score:.3f} over {one.runs} runs, {one.rows} rows of {one.groups} groups "
        f"({one.flat} flat, {one.masked} masked), sampled in {one.sample_seconds:.0f} s, swapped in "
        f"{one.swap_ms:.0f} ms"
    ]
    if one.step is not None:
        lines += [f"learned in {one.step.seconds:.0f} s, loss {one.step.loss:.4f}", *map(str, one.step.alarms)]
    if one.held_out is not None:
        lines.append(f"held-out tasks {one.held_out:.3f}")
    return "; ".join(lines)
