"""`journeyman train --recipe prompt`: what is announced before a search for a prompt, and shown of what it found."""

from pathlib import Path

import typer

from journeyman.agents.crew_file import load_crew
from journeyman.runtime.console import Exit, emit, notes, out, progress
from journeyman.runtime.serving.backend import open_backend
from journeyman.runtime.serving.embedded import model_digest, pull_model
from journeyman.runtime.workspace import Workspace
from journeyman.training.commands.evaluate import find_tasks
from journeyman.training.commands.teach import reckoning
from journeyman.training.improve.prompt_job import Prompted
from journeyman.training.improve.prompting import Prompting
from journeyman.training.methods.prompt import PromptRecipe

WEAK = 1_000_000_000
"""Bytes of a base model's folder below which what it writes about prompts is mostly of no use."""


def train_prompt(
    workspace: Workspace,
    crew: Path,
    agent: str,
    tasks: Path,
    recipe: PromptRecipe,
    start: str | None,
    scorer: str,
    concurrency: int,
    model: str | None,
    mlflow_uri: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    base_model = pull_model(model or workspace.config.server.model)
    prompting = Prompting(
        workspace,
        load_crew(crew),
        agent,
        find_tasks(workspace, tasks),
        recipe,
        conditions=[crew.read_text(encoding="utf-8")],
        base_digest=model_digest(base_model),
        backend=open_backend(workspace),
        start=start,
        source=tasks.name,
        scorer=scorer,
        concurrency=concurrency,
    )
    _announce(prompting, recipe, base_model, workspace)
    if dry_run:
        emit({"job": prompting.job, "estimate": prompting.estimate}, as_json, lambda: None)
        return
    with progress() as bar:
        row = bar.add_task("looking for a prompt, run", total=recipe.prompt.metric_calls)
        prompted = prompting.optimise(mlflow_uri=mlflow_uri, on_run=lambda episode: bar.advance(row))
    emit(prompted, as_json, lambda: _show(prompted, workspace))
    if prompted.adapter is None:
        search = prompted.search
        notes.print(
            f"nothing was written: of {search.tried} prompts none scored above the present one's "
            f"{search.first_score:.3f} on {search.tasks} tasks",
            markup=False,
        )
        raise typer.Exit(Exit.FAILED)


def _announce(prompting: Prompting, recipe: PromptRecipe, base_model: Path, workspace: Workspace) -> None:
    """What is looked for, by whom, and what it is likely to cost."""
    job, table = prompting.job, recipe.prompt
    notes.print(
        f"{len(prompting.tasks)} tasks for {job.agent}: {len(prompting.learn)} to learn from, "
        f"{len(prompting.select)} to choose on; a prompt on the weights of {job.start}, to replace {job.parent}",
        markup=False,
    )
    for reason, count in prompting.passed_over.items():
        notes.print(f"{count} tasks are left out: {reason}", markup=False)
    if table.reflect is None:
        notes.print("examples are chosen from the record; --reflect POLICY has instructions written, too")
    elif "@" in table.reflect or table.reflect == "base":
        size = sum(file.stat().st_size for file in base_model.glob("*.safetensors"))
        if size < WEAK:
            notes.print(
                f"{table.reflect} is a model of {size / 1e6:,.0f} MB: it copies what it is shown and seldom writes a "
                "better instruction; an endpoint of [models] that is larger does",
                markup=False,
            )
    notes.print(f"at most {reckoning(prompting.estimate, workspace.config.traces.currency)}", markup=False)


def _show(prompted: Prompted, workspace: Workspace) -> None:
    adapter, search = prompted.adapter, prompted.search
    if adapter is None:
        return
    out.print(
        f"{adapter.policy}: score {search.first_score:.3f} → {search.score:.3f} on the {search.tasks} tasks it was "
        f"chosen on, the best of {search.tried} prompts after {search.metric_calls} scored runs; on the weights of "
        f"{adapter.start}, to replace {adapter.parent}, digest {adapter.digest[:12]}",
        soft_wrap=True,
    )
    out.print(f"{workspace.adapters / adapter.policy}", markup=False, soft_wrap=True)
    out.print(
        f"that score is too good, since it was chosen by it: journeyman gate {adapter.policy} tells", markup=False
    )
