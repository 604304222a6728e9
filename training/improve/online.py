"""Online training: an agent learns from rollouts of its crew, whose newest weights sample the next ones."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, cast

from journeyman.agents.agent import Crew
from journeyman.agents.model import BASE
from journeyman.agents.prompt import prompt_form
from journeyman.runtime.adapters.adapter import Adapter, read_adapter
from journeyman.runtime.adapters.live import current_policies, sync
from journeyman.runtime.serving.embedded import model_digest
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError, ConfigError, ServerError
from journeyman.traces.trace import Task, digest_tasks
from journeyman.training.evaluation.bench import with_policies
from journeyman.training.improve.rounds import OnlineMethod, OnRound, Round, Rounds
from journeyman.training.methods.job import (
    Job,
    OnStart,
    Work,
    carry_out,
    one_line,
    start_folder,
    start_of,
    written,
)
from journeyman.training.methods.method import method_of
from journeyman.training.methods.recipes.grpo import GRPORecipe
from journeyman.training.rollouts.collect import Collected, Collector, OnRun
from journeyman.training.rollouts.sample import Exploring
from journeyman.training.rollouts.shelf import keep_rows, shelve_rows
from journeyman.training.rollouts.versions import Versions
from journeyman.training.trainings.stopping import Say

if TYPE_CHECKING:
    from journeyman.runtime.serving.backend import Backend


def train_online(
    tasks: Sequence[Task],
    crew: Crew,
    *,
    agent: str,
    recipe: GRPORecipe,
    base_model: Path,
    workspace: Workspace,
    backend: "Backend",
    scorer: str,
    source: str = "",
    parent: str = BASE,
    start: str | None = None,
    others: Mapping[str, str] = {},
    number: int | None = None,
    mlflow_uri: str | None = None,
    on_start: OnStart = lambda checkpoint: None,
    on_round: OnRound = lambda round: None,
    on_run: OnRun = lambda made, runs: None,
    wait: bool = False,
    discard: bool = False,
    say: Say = lambda line: None,
) -> Adapter:
    """Trains `agent@number` on rollouts of `crew` on `tasks`, none of which may be held out; else as `train_adapter`.

    `others` are policies that answer for other agents in the place of those in service; the server has them. `scorer`
    is a function of a task and an answer, as `module:function`. A training that was killed goes on from its last
    checkpoint, and runs that it made since are not made again.

    Raises `ServerError` where the workspace's server is not there or fails, and else what `train_adapter` raises.
    """
    learned, aside = recipe.rollouts.parted(tasks)
    exploring = Exploring(
        workspace=workspace,
        crew=crew,
        agent=agent,
        tasks=learned,
        held_out=aside,
        scorer=scorer if recipe.rewards.score else None,
        backend=backend,
        source=source,
    )
    exploring.check()
    server = _server(backend, base_model, recipe)
    start = start or start_of(recipe, parent)
    began = start_folder(start, recipe, base_model, workspace)
    job = Job(
        agent=agent,
        parent=parent,
        start=start,
        start_digest=None if began is None else read_adapter(began).digest,
        base_digest=model_digest(base_model),
        tasks_digest=_digest(tasks, crew, scorer, others),
        recipe_digest=recipe.digest,
        method=recipe.method,
    )
    table = with_policies(workspace, current_policies(workspace), others)
    (own,) = (one for one in crew.agents if one.name == agent)
    form = prompt_form(own, crew).digest

    def learn(work: Work) -> Adapter:
        sync(workspace, server)
        versions = Versions(workspace, server, work.policy, work.partial)
        collector = Collector(
            exploring,
            versions,
            table,
            work.partial,
            recipe.rollouts,
            recipe.rewards,
            mask_truncated=recipe.mask_truncated,
            on_run=on_run,
        )

        def keep(number: int, collected: Collected) -> None:
            keep_rows(work.partial, number, collected.rows, collected.version.policy, form)

        def told(one: Round) -> None:
            work.run.step(one.number, one.logged)
            work.journal.step(one.number, total, one.logged)
            on_round(one)
            work.stop.check()

        total = recipe.steps(len(learned))
        try:
            with method_of(recipe) as method:
                learner = cast("OnlineMethod", method).learner(
                    recipe, base_model, began, work.partial, work.checkpoint, steps=total
                )
                rounds = Rounds(
                    learner,
                    collector,
                    versions,
                    work.partial,
                    total=total,
                    staleness=recipe.rollouts.staleness,
                    save_every=int(str(recipe.trl.get("save_steps", 1))),
                    keep=keep,
                    on_round=told,
                )
                with one_line(work.policy, learner):
                    rounds.run()
                    fitted = learner.finish(epochs=len(rounds.done) * recipe.rollouts.tasks / len(learned))
        finally:
            versions.clear()
        numbers = [one.number for one in rounds.done if one.rows]
        dataset = shelve_rows(workspace, work.partial, agent, numbers, recipe.method)
        return written(fitted, recipe, work, job, rows=dataset.rows, prompt_form=form, dataset_digest=dataset.digest)

    return carry_out(
        job,
        recipe,
        workspace,
        learn,
        number=number,
        mlflow_uri=mlflow_uri,
        on_start=on_start,
        wait=wait,
        discard=discard,
        say=say,
    )


def _server(backend: "Backend", base_model: Path, recipe: GRPORecipe) -> ServerState:
    """The server that samples, once it can serve what is trained."""
    server = backend.server
    if server is None:
        raise ServerError("rollouts need the workspace's own server: `journeyman server start`")
    if server.model_digest is not None and server.model_digest != (digest := model_digest(base_model)):
        raise AdapterError(
            f"the server has base model {server.model_digest[:12]}, training has {digest[:12]}: name the server's "
            "with --model"
        )
    if recipe.lora.r > server.max_lora_rank:
        raise ConfigError(f"recipe: lora.r is {recipe.lora.r}, the server takes {server.max_lora_rank}")
    return server


def _digest(tasks: Sequence[Task], crew: Crew, scorer: str, others: Mapping[str, str]) -> str:
    """Of all that says what a run is worth, but for the policies in service."""
    told = [digest_tasks(tasks), crew.model_dump(mode="json", exclude={"tools"}), sorted(crew.tools), scorer, others]
    return sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
