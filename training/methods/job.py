"""The job: any method's training as this workspace does it, locked, reserved, resumed and finished."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time_ns
from typing import Any

from journeyman.agents.model import BASE
from journeyman.runtime.adapters.adapter import (
    CONFIG,
    Adapter,
    adapter_folders,
    digest_files,
    find_adapter,
    load_adapter,
    read_adapter,
    split_policy,
    write_adapter,
)
from journeyman.runtime.serving.embedded import model_digest
from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import parse_config
from journeyman.traces.errors import AdapterError, ConfigError, TrainingError
from journeyman.traces.files import publish
from journeyman.training.data.datasets.shelf import KnownDataset
from journeyman.training.data.samples import Sample, digest_samples
from journeyman.training.methods.checkpoints import CHECKPOINTS, Checkpoint, last_whole
from journeyman.training.methods.method import OnPlan, method_of
from journeyman.training.methods.plan import Fitted, Plan, Trial
from journeyman.training.methods.recipe import OnStep, Recipe, Step, read_recipe
from journeyman.training.methods.reserved import Job, partial_of, reserve
from journeyman.training.methods.sft import SFTRecipe
from journeyman.training.registry import dataset_name
from journeyman.training.tracking import TrackedRun, track
from journeyman.training.trainings.journal import TrainingJournal, journalled
from journeyman.training.trainings.launched import follows, share
from journeyman.training.trainings.stopping import Say, Stop, stoppable
from journeyman.training.trainings.trainings import LOCK

METHODS: Mapping[str, type[Recipe]] = {"sft": SFTRecipe}
"""A recipe's `method`, and what such a recipe may say. A new method is a row here, a module beside `sft`, and one in
`trainers`."""

OnStart = Callable[[Checkpoint | None], None]
"""Called before training with the checkpoint that it goes on from; None where it starts from the base model. Not called
where the same job was trained before."""


def load_recipe(recipe: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe in a file, or of that name in the package, with `overrides` such as `{"trl.max_steps": 20}`."""
    values, path = read_recipe(recipe, overrides)
    method = values.get("method", "sft")
    if method not in METHODS:
        raise ConfigError(f"{path}: method: unknown method {method!r}; have {', '.join(METHODS)}")
    return parse_config(METHODS[method], values, str(path))


def train_adapter(
    samples: Sequence[Sample],
    *,
    agent: str,
    recipe: Recipe,
    base_model: Path,
    workspace: Workspace,
    parent: str = BASE,
    start: str | None = None,
    number: int | None = None,
    dataset: KnownDataset | None = None,
    mlflow_uri: str | None = None,
    wait: bool = False,
    discard: bool = False,
    on_start: OnStart = lambda checkpoint: None,
    on_plan: OnPlan = lambda plan: None,
    on_step: OnStep | None = None,
    say: Say = lambda line: None,
) -> Adapter:
    """Trains `agent@number`, by default the next one; the same job already trained is returned as it is.

    `dataset` is the file that the samples are from, by whose digest lineage finds them.

    Training starts from the weights of `start`, by default `start_of` the recipe. A run that was killed goes on from
    its last checkpoint when it is called again. The checkpoints of the agent's other unfinished jobs are left as they
    are, unless `discard` says that they are to go. One training at a time runs in a workspace: another one raises
    `ConfigError`, unless it is told to `wait`. SIGINT and SIGTERM save a checkpoint and raise `KeyboardInterrupt`.

    Each process that `accelerate launch` started calls this; the first of them writes.

    Raises `ConfigError` for a recipe that can't be used, `AdapterError` for a `start` that can't, and `TrainingError`
    where the samples, the numbers or the disk don't let it go on.
    """
    _check(samples, agent, recipe, workspace)
    start = start or start_of(recipe, parent)
    began = _start(start, recipe, base_model, workspace)
    job = Job(
        agent=agent,
        parent=parent,
        start=start,
        start_digest=None if began is None else read_adapter(began).digest,
        base_digest=model_digest(base_model),
        dataset_digest=digest_samples(samples) if dataset is None else dataset.digest,
        recipe_digest=recipe.digest,
        method=recipe.method,
    )
    if follows():
        return _followed(samples, recipe, base_model, workspace, began)
    with workspace.lock(LOCK, on_wait=(lambda holder: say(f"{holder}: waiting for it")) if wait else None):
        if trained := _already_trained(workspace.adapters, job):
            shutil.rmtree(partial_of(workspace.adapters, trained.policy), ignore_errors=True)
            share((trained.policy, None))
            return trained
        policy = reserve(workspace.adapters, job, number, discard=discard, say=say)
        partial = partial_of(workspace.adapters, policy)
        checkpoint = last_whole(partial / CHECKPOINTS)
        on_start(checkpoint)
        share((policy, checkpoint))
        told = job.model_dump(exclude_none=True)  # MLflow's tags have texts.
        recipe_told = recipe.model_dump(mode="json")
        with (
            track(mlflow_uri, partial, policy=policy, job=told, recipe=recipe_told) as run,
            journalled(workspace, policy, told, recipe_told, checkpoint.step if checkpoint else 0) as journal,
            stoppable(say) as stop,
        ):
            if dataset is not None:
                run.learns_from(dataset, dataset_name(job.agent, job.method))
            steps = _Steps(checkpoint, run, on_step, journal, stop)

            def planned(plan: Plan) -> None:
                journal.plan(plan)
                on_plan(plan)

            with method_of(recipe) as method, _one_line(policy, steps):
                fitted = method.fit(
                    samples, recipe, base_model, partial, checkpoint, steps, start=began, on_plan=planned
                )
                adapter = _written(fitted, samples, recipe, partial, policy, job)
            publish(partial / "adapter", workspace.adapters / policy)
            journal.digest = adapter.digest
            run.finish(adapter, workspace.adapters / policy, dataset)
        share(None)
        shutil.rmtree(partial, ignore_errors=True)
        return adapter


def _followed(
    samples: Sequence[Sample], recipe: Recipe, base_model: Path, workspace: Workspace, began: Path | None
) -> Adapter:
    """The adapter, once another process has led this one through its training."""
    policy, checkpoint = share() or ("", None)
    if not (workspace.adapters / policy).exists():
        with method_of(recipe) as method, _one_line(policy, _Steps(checkpoint)):
            partial = partial_of(workspace.adapters, policy)
            method.fit(
                samples, recipe, base_model, partial, checkpoint, lambda step: None, start=began, on_plan=lambda p: None
            )
        share()
    return load_adapter(workspace.adapters / policy)


def start_of(recipe: Recipe, parent: str) -> str:
    """The policy that training starts from where nobody names one: `parent`, which is in service, or the base model."""
    return parent if recipe.starts_in_service else BASE


def plan_job(
    samples: Sequence[Sample],
    *,
    agent: str,
    recipe: Recipe,
    base_model: Path,
    workspace: Workspace,
    start: str = BASE,
) -> Plan:
    """What `train_adapter` would do; nothing is trained. Raises like it."""
    _check(samples, agent, recipe, workspace)
    _start(start, recipe, base_model, workspace)
    with method_of(recipe) as method:
        return method.plan(samples, recipe, base_model)


def try_job(
    samples: Sequence[Sample],
    *,
    agent: str,
    recipe: Recipe,
    base_model: Path,
    workspace: Workspace,
    start: str = BASE,
) -> Trial:
    """The plan, and what a step takes: two are made, and nothing of them is kept. Raises like `train_adapter`."""
    _check(samples, agent, recipe, workspace)
    began = _start(start, recipe, base_model, workspace)
    with (
        tempfile.TemporaryDirectory() as folder,
        method_of(recipe) as method,
        _one_line(f"the trial of {agent}", _Steps()),
    ):
        return method.attempt(samples, recipe, base_model, Path(folder), began)


class _Steps:
    """Tells of each step, knows how far training came, and stops it."""

    def __init__(
        self,
        checkpoint: Checkpoint | None = None,
        run: TrackedRun | None = None,
        on_step: OnStep | None = None,
        journal: TrainingJournal | None = None,
        stop: Stop | None = None,
    ) -> None:
        self.done = 0 if checkpoint is None else checkpoint.step
        self._run = run
        self._on_step = on_step
        self._journal = journal
        self._stop = stop

    def __call__(self, step: Step) -> None:
        # A look at held-out rows is told as more of the step that was made before it.
        metrics = {**step.metrics} if step.number == self.done else {"loss": step.loss, **step.metrics}
        self.done = step.number
        if self._run is not None:
            self._run.step(step.number, metrics)
        if self._journal is not None:
            self._journal.step(step.number, step.steps, metrics)
        if self._on_step is not None:
            self._on_step(step)
        if self._stop is not None:
            self._stop.begun = True
            if self._stop.asked:
                raise KeyboardInterrupt


def _start(start: str, recipe: Recipe, base_model: Path, workspace: Workspace) -> Path | None:
    """The folder of the adapter whose weights training starts from, once it fits; None for the base model."""
    if start == BASE:
        return None
    folder = find_adapter(workspace.adapters, start)
    adapter = load_adapter(folder)
    if adapter.base_digest != (digest := model_digest(base_model)):
        raise AdapterError(f"{start} was trained on base model {adapter.base_digest[:12]}, not on {digest[:12]}")
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    theirs, ours = (config["r"], config["lora_alpha"]), (recipe.lora.r, recipe.lora.alpha)
    if theirs != ours:
        raise ConfigError(
            f"{start} has rank {theirs[0]} and alpha {theirs[1]}, the recipe says {ours[0]} and {ours[1]}: "
            f"add --set lora.r={theirs[0]} --set lora.alpha={theirs[1]}, or start from the base model"
        )
    return folder


def _check(samples: Sequence[Sample], agent: str, recipe: Recipe, workspace: Workspace) -> None:
    if not samples:
        raise TrainingError(f"there are no samples to train {agent} on: mine some with `journeyman mine`")
    if len(_prompt_forms(samples)) > 1:
        raise TrainingError(f"the samples show {agent} in different prompts: mine them again, with --crew FILE")
    if wrong := next((sample for sample in samples if not isinstance(sample, recipe.learns_from)), None):
        wanted = recipe.learns_from.model_fields["kind"].default
        raise TrainingError(
            f"method {recipe.method} learns from rows of kind {wanted}, these are of kind {wrong.kind}: "
            f"mine some with --kind {wanted}"
        )
    if other := next((sample.agent for sample in samples if sample.agent != agent), None):
        raise TrainingError(f"the samples are of {other}, not of {agent}: an adapter learns from its own agent")
    if recipe.lora.r > (limit := workspace.config.server.max_lora_rank):
        raise ConfigError(f"recipe: lora.r is {recipe.lora.r}, the server takes {limit} (server.max_lora_rank)")


def _prompt_forms(samples: Sequence[Sample]) -> set[str]:
    forms = (getattr(sample, "prompt_form", None) for sample in samples)  # A document is in no prompt.
    return {form for form in forms if form is not None}


def _already_trained(adapters: Path, job: Job) -> Adapter | None:
    for folder in adapter_folders(adapters):
        if split_policy(folder.name)[0] == job.agent:
            with suppress(AdapterError):  # A damaged adapter is no reason not to train a whole one.
                adapter = load_adapter(folder)
                if adapter.model_dump(include=set(Job.model_fields)) == job.model_dump():
                    return adapter
    return None


def _written(
    fitted: Fitted, samples: Sequence[Sample], recipe: Recipe, partial: Path, policy: str, job: Job
) -> Adapter:
    """The adapter, once its folder is whole."""
    _, number = split_policy(policy)
    adapter = Adapter(
        number=number,
        digest=digest_files(partial / "adapter"),
        rows=len(samples),
        prompt_form=next(iter(_prompt_forms(samples)), None),
        rank=recipe.lora.r,
        steps=fitted.steps,
        epochs=fitted.epochs,
        eval_loss=fitted.eval_loss,
        train_seconds=round(fitted.seconds, 3),
        created_ns=time_ns(),
        **job.model_dump(),
    )
    write_adapter(partial / "adapter", adapter, fitted.probe)
    return adapter


@contextmanager
def _one_line(policy: str, steps: _Steps) -> Iterator[None]:
    """What stops a library is told in one line."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, MemoryError, SafetensorError) as error:
        # A full disk is an error of the library that was writing; torch's is RuntimeError, also for lack of memory.
        cause = (str(error) or type(error).__name__).splitlines()[0]
        raise TrainingError(
            f"training {policy} stopped after step {steps.done}: {cause}; "
            "run it again to go on from its last checkpoint"
        ) from error
