"""The job: any method's training as this workspace does it, locked, reserved, resumed and finished."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time_ns
from typing import Any, NamedTuple, Protocol

from journeyman.agents.model import BASE
from journeyman.runtime.adapters.adapter import (
    Adapter,
    Replayed,
    adapter_folders,
    digest_files,
    find_adapter,
    load_adapter,
    read_adapter,
    split_policy,
    write_adapter,
    write_prompt,
)
from journeyman.runtime.adapters.prompts import prompt_in_form, weights_of
from journeyman.runtime.serving.embedded import model_digest
from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import Record, parse_config
from journeyman.traces.errors import AdapterError, ConfigError, TrainingError
from journeyman.traces.files import publish
from journeyman.training.data.datasets.shelf import KnownDataset
from journeyman.training.data.samples import Sample, digest_samples, prompt_forms
from journeyman.training.methods.checkpoints import CHECKPOINTS, Checkpoint, last_whole, partial_of, reserve
from journeyman.training.methods.cpt import CPTRecipe
from journeyman.training.methods.distill import DistillRecipe
from journeyman.training.methods.dpo import DPORecipe
from journeyman.training.methods.earlier import Earlier, earlier_rows
from journeyman.training.methods.full import FullRecipe
from journeyman.training.methods.grpo import GRPORecipe
from journeyman.training.methods.kto import KTORecipe
from journeyman.training.methods.method import OnPlan, method_of
from journeyman.training.methods.plan import Fitted, Plan, Trial
from journeyman.training.methods.prompt import PromptRecipe
from journeyman.training.methods.qlora import QLoRARecipe
from journeyman.training.methods.recipe import OnStep, Recipe, Step, read_recipe
from journeyman.training.methods.rft import RFTRecipe
from journeyman.training.methods.sft import SFTRecipe
from journeyman.training.registry import dataset_name
from journeyman.training.tracking import TrackedRun, track
from journeyman.training.trainings.journal import TrainingJournal, journalled
from journeyman.training.trainings.launched import follows, share
from journeyman.training.trainings.stopping import Say, Stop, stoppable
from journeyman.training.trainings.trainings import training_lock

METHODS: Mapping[str, type[Recipe]] = {
    "prompt": PromptRecipe,
    "sft": SFTRecipe,
    "rft": RFTRecipe,
    "distill": DistillRecipe,
    "dpo": DPORecipe,
    "kto": KTORecipe,
    "grpo": GRPORecipe,
    "cpt": CPTRecipe,
    "full": FullRecipe,
    "qlora": QLoRARecipe,
}
"""A recipe's `method`, and what such a recipe may say. A new method is a row here, a module beside `sft`, and one in
`trainers`."""

OnStart = Callable[[Checkpoint | None], None]
"""Called before training with the checkpoint that it goes on from; None where it starts from the base model. Not called
where the same job was trained before."""


class Work(NamedTuple):
    """A job that is being done."""

    policy: str
    partial: Path
    """Folder of the unfinished run."""
    checkpoint: Checkpoint | None
    run: TrackedRun
    journal: TrainingJournal
    stop: Stop


class Job(Record):
    """What is trained from what: two runs of the same job give the same adapter."""

    agent: str
    parent: str
    """The policy that the adapter would replace."""
    start: str = BASE
    """The policy whose weights training starts from."""
    start_digest: str | None = None
    """Of its files; None for the base model."""
    base_digest: str
    dataset_digest: str | None = None
    """Of the rows; None where they come of rollouts while it learns."""
    tasks_digest: str | None = None
    """Of the tasks that are rolled out, with crew and scorer; None where there is a dataset."""
    replayed: tuple[Replayed, ...] = ()
    """Rows of earlier datasets that are learned from besides."""
    recipe_digest: str
    method: str = "sft"


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
    start = weights_of(workspace.adapters, start or start_of(recipe, parent))
    recipe = recipe.bound(agent, start, base_model, workspace)
    began = start_folder(start, recipe, base_model, workspace)
    earlier = _earlier(samples, recipe, base_model, workspace, dataset, (parent, start))
    job = Job(
        agent=agent,
        parent=parent,
        start=start,
        start_digest=None if began is None else read_adapter(began).digest,
        base_digest=model_digest(base_model),
        dataset_digest=digest_samples(samples) if dataset is None else dataset.digest,
        replayed=earlier.used,
        recipe_digest=recipe.digest,
        method=recipe.method,
    )
    if follows():
        return _followed(samples, recipe, base_model, workspace, began, earlier)

    def learn(work: Work) -> Adapter:
        if dataset is not None:
            work.run.learns_from(dataset, dataset_name(job.agent, job.method))
        steps = _Steps(work.checkpoint, work, on_step)

        def planned(plan: Plan) -> None:
            work.journal.plan(plan)
            on_plan(plan)

        with method_of(recipe) as method, one_line(work.policy, steps):
            fitted = method.fit(
                samples,
                recipe,
                base_model,
                work.partial,
                work.checkpoint,
                steps,
                start=began,
                earlier=earlier,
                on_plan=planned,
            )
            form = next(iter(prompt_forms(samples)), None)
            return written(fitted, recipe, work, job, rows=len(samples), prompt_form=form)

    how: dict[str, Any] = {"wait": wait, "discard": discard, "say": say, "dataset": dataset}
    return carry_out(job, recipe, workspace, learn, number=number, mlflow_uri=mlflow_uri, on_start=on_start, **how)


def _followed(
    samples: Sequence[Sample],
    recipe: Recipe,
    base_model: Path,
    workspace: Workspace,
    began: Path | None,
    earlier: Earlier,
) -> Adapter:
    """The adapter, once another process has led this one through its training."""
    policy, checkpoint = share() or ("", None)
    if not (workspace.adapters / policy).exists():
        with method_of(recipe) as method, one_line(policy, _Steps(checkpoint)):
            partial = partial_of(workspace.adapters, policy)
            method.fit(
                samples,
                recipe,
                base_model,
                partial,
                checkpoint,
                lambda step: None,
                start=began,
                earlier=earlier,
                on_plan=lambda plan: None,
            )
        share()
    return load_adapter(workspace.adapters / policy)


def carry_out(
    job: Job,
    recipe: Recipe,
    workspace: Workspace,
    learn: Callable[[Work], Adapter],
    *,
    number: int | None,
    mlflow_uri: str | None,
    on_start: OnStart,
    wait: bool = False,
    discard: bool = False,
    say: Say = lambda line: None,
    dataset: KnownDataset | None = None,
) -> Adapter:
    """The adapter of a job, which `learn` leaves in `adapter` of the unfinished run's folder; one that was trained
    before is returned as it is. For `wait`, `discard` and `say` see `train_adapter`.

    One process at a time does it. Raises `TrainingError` for a number that is taken, and what `learn` raises.
    """
    with training_lock(workspace, wait=wait, say=say):
        if trained := _already_trained(workspace.adapters, job):
            shutil.rmtree(partial_of(workspace.adapters, trained.policy), ignore_errors=True)
            share((trained.policy, None))
            return trained
        policy = reserve(workspace.adapters, job.agent, job.model_dump_json(), number, discard=discard, say=say)
        partial = partial_of(workspace.adapters, policy)
        checkpoint = last_whole(partial / CHECKPOINTS)
        on_start(checkpoint)
        share((policy, checkpoint))
        told = job.model_dump(exclude_none=True, exclude={"replayed"})  # MLflow's tags have texts.
        by = recipe.model_dump(mode="json")
        with (
            track(mlflow_uri, partial, policy=policy, job=told, recipe=by) as run,
            journalled(workspace, policy, told, by, checkpoint.step if checkpoint else 0) as journal,
            stoppable(say) as stop,
        ):
            adapter = learn(Work(policy, partial, checkpoint, run, journal, stop))
            publish(partial / "adapter", workspace.adapters / policy)
            journal.digest = adapter.digest
            run.finish(adapter, workspace.adapters / policy, dataset)
        share(None)
        shutil.rmtree(partial, ignore_errors=True)
        return adapter


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
    parent: str = BASE,
    start: str = BASE,
    dataset: KnownDataset | None = None,
) -> Plan:
    """What `train_adapter` would do; nothing is trained. Raises like it."""
    _check(samples, agent, recipe, workspace)
    recipe = recipe.bound(agent, start, base_model, workspace)
    start_folder(start, recipe, base_model, workspace)
    earlier = _earlier(samples, recipe, base_model, workspace, dataset, (parent, start))
    with method_of(recipe) as method:
        return method.plan(samples, recipe, base_model, earlier)


def try_job(
    samples: Sequence[Sample],
    *,
    agent: str,
    recipe: Recipe,
    base_model: Path,
    workspace: Workspace,
    parent: str = BASE,
    start: str = BASE,
    dataset: KnownDataset | None = None,
) -> Trial:
    """The plan, and what a step takes: two are made, and nothing of them is kept. Raises like `train_adapter`."""
    _check(samples, agent, recipe, workspace)
    recipe = recipe.bound(agent, start, base_model, workspace)
    began = start_folder(start, recipe, base_model, workspace)
    earlier = _earlier(samples, recipe, base_model, workspace, dataset, (parent, start))
    with (
        tempfile.TemporaryDirectory() as folder,
        method_of(recipe) as method,
        one_line(f"the trial of {agent}", _Steps()),
    ):
        return method.attempt(samples, recipe, base_model, Path(folder), began, earlier)


class Progress(Protocol):
    """How far a training came."""

    @property
    def done(self) -> int: ...


class _Steps:
    """Tells of each step, and knows how far training came."""

    def __init__(
        self, checkpoint: Checkpoint | None = None, work: Work | None = None, on_step: OnStep | None = None
    ) -> None:
        self.done = 0 if checkpoint is None else checkpoint.step
        self._work = work
        self._on_step = on_step

    def __call__(self, step: Step) -> None:
        """Raises `KeyboardInterrupt` where a signal asks to stop."""
        # A look at held-out rows is told as more of the step that was made before it.
        metrics = {**step.metrics} if step.number == self.done else {"loss": step.loss, **step.metrics}
        self.done = step.number
        if self._work is not None:
            self._work.run.step(step.number, metrics)
            self._work.journal.step(step.number, step.steps, metrics)
        if self._on_step is not None:
            self._on_step(step)
        if self._work is not None:
            self._work.stop.check()


def start_folder(start: str, recipe: Recipe, base_model: Path, workspace: Workspace) -> Path | None:
    """The folder of the adapter whose weights training starts from, once it fits; None for the base model.

    A prompt candidate has the weights that it stands on.
    """
    start = weights_of(workspace.adapters, start)
    if start == BASE:
        return None
    folder = find_adapter(workspace.adapters, start)
    adapter = load_adapter(folder)
    if adapter.base_digest != (digest := model_digest(base_model)):
        raise AdapterError(f"{start} was trained on base model {adapter.base_digest[:12]}, not on {digest[:12]}")
    if recipe.rank and adapter.is_model:
        raise ConfigError(
            f"{start} is a model of its own, and no adapter to go on from: add --model {folder} --from base, "
            "or train all weights with --recipe full"
        )
    if recipe.rank and adapter.rank > recipe.rank:
        raise ConfigError(
            f"{start} has rank {adapter.rank}, which doesn't fit into the recipe's {recipe.rank}: "
            f"add --set lora.r={adapter.rank}, or start from the base model with --from base"
        )
    return folder


def _earlier(
    samples: Sequence[Sample],
    recipe: Recipe,
    base_model: Path,
    workspace: Workspace,
    dataset: KnownDataset | None,
    policies: Sequence[str],
) -> Earlier:
    return earlier_rows(
        samples,
        recipe=recipe,
        workspace=workspace,
        base_digest=model_digest(base_model),
        dataset_digest=digest_samples(samples) if dataset is None else dataset.digest,
        policies=policies,
    )


def _check(samples: Sequence[Sample], agent: str, recipe: Recipe, workspace: Workspace) -> None:
    if not samples:
        raise TrainingError(f"there are no samples to train {agent} on: mine some with `journeyman mine`")
    if len(prompt_forms(samples)) > 1:
        raise TrainingError(f"the samples show {agent} in different prompts: mine them again, with --crew FILE")
    taken = (recipe.learns_from, *recipe.also_from)
    if wrong := next((sample for sample in samples if not isinstance(sample, taken)), None):
        wanted = recipe.learns_from.model_fields["kind"].default
        raise TrainingError(
            f"method {recipe.method} learns from rows of kind {wanted}, these are of kind {wrong.kind}: "
            f"mine some with --kind {wanted}"
        )
    if other := next((sample.agent for sample in samples if sample.agent != agent), None):
        raise TrainingError(f"the samples are of {other}, not of {agent}: an adapter learns from its own agent")
    if recipe.rank > (limit := workspace.config.server.max_lora_rank):
        raise ConfigError(f"recipe: lora.r is {recipe.rank}, the server takes {limit} (server.max_lora_rank)")


def _already_trained(adapters: Path, job: Job) -> Adapter | None:
    for folder in adapter_folders(adapters):
        if split_policy(folder.name)[0] == job.agent:
            with suppress(AdapterError):  # A damaged adapter is no reason not to train a whole one.
                adapter = load_adapter(folder)
                told = job.model_dump(exclude_none=True)  # Which rows came of rollouts, only the adapter knows.
                if adapter.model_dump(include=set(told)) == told:
                    return adapter
    return None


def written(
    fitted: Fitted,
    recipe: Recipe,
    work: Work,
    job: Job,
    *,
    rows: int,
    prompt_form: str | None,
    dataset_digest: str | None = None,
) -> Adapter:
    """The adapter, once its folder is whole; `dataset_digest` is that of rows which came while it learned."""
    _, number = split_policy(work.policy)
    prompt = None if prompt_form is None else prompt_in_form(work.partial.parent, job.agent, prompt_form)
    if prompt is not None:
        # It has learned to answer in a prompt candidate's words, so it is asked in them, too.
        own = {"weights": work.policy, "weights_digest": None, "examples": ()}
        write_prompt(work.partial / "adapter", prompt.model_copy(update=own))
    adapter = Adapter(
        number=number,
        digest=digest_files(work.partial / "adapter"),
        rows=rows,
        prompt_form=prompt_form,
        rank=recipe.rank,
        steps=fitted.steps,
        epochs=fitted.epochs,
        eval_loss=fitted.eval_loss,
        old=fitted.old,
        drift=fitted.drift,
        metrics=dict(fitted.metrics),
        train_seconds=round(fitted.seconds, 3),
        created_ns=time_ns(),
        **job.model_dump() | ({} if dataset_digest is None else {"dataset_digest": dataset_digest}),
    )
    write_adapter(work.partial / "adapter", adapter, fitted.probe)
    return adapter


@contextmanager
def one_line(policy: str, steps: Progress) -> Iterator[None]:
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
