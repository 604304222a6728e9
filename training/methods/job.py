"""The job: any method's training as this workspace does it, locked, reserved, resumed and finished."""

import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from time import time_ns
from typing import Any, Protocol, cast

from journeyman.agents.model import BASE
from journeyman.runtime import variables
from journeyman.runtime.adapters.adapter import (
    Adapter,
    Probe,
    adapter_folders,
    digest_files,
    load_adapter,
    next_number,
    split_policy,
    write_adapter,
)
from journeyman.runtime.serving.embedded import model_digest
from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import Record, parse_config
from journeyman.traces.errors import AdapterError, ConfigError, TrainingError
from journeyman.traces.files import publish
from journeyman.training.data.datasets.shelf import KnownDataset
from journeyman.training.data.samples import SFTSample, digest_samples
from journeyman.training.methods.checkpoints import CHECKPOINTS, Checkpoint, last_whole
from journeyman.training.methods.recipe import OnStep, Recipe, read_recipe
from journeyman.training.methods.sft import SFTRecipe
from journeyman.training.registry import dataset_name
from journeyman.training.tracking import TrackedRun, track

METHODS: Mapping[str, type[Recipe]] = {"sft": SFTRecipe}
"""A recipe's `method`, and what such a recipe may say. A new method is a row here, and a module beside `sft`."""

ENVIRONMENT = {
    variables.OFFLINE: "1",
    # Threads that spin while they wait make training five times slower beside a model server on the same cores.
    variables.WAIT_POLICY: "PASSIVE",
}
"""What the libraries read when they are first imported, unless the user has set it."""


OnStart = Callable[[Checkpoint | None], None]
"""Called before training with the checkpoint that it goes on from; None where it starts from the base model. Not called
where the same job was trained before."""


class Method(Protocol):
    """The module that a recipe's `fit` names."""

    def fit(
        self,
        samples: Sequence[SFTSample],
        recipe: Any,
        base_model: Path,
        folder: Path,
        checkpoint: Checkpoint | None,
        on_step: OnStep,
    ) -> tuple[float, Probe]:
        """Trains by a recipe of the method's own kind, from `checkpoint` where there is one, else from the base model.

        The weights go into `folder/adapter`, checkpoints into `folder/checkpoints`.

        Returns the seconds of training, those before `checkpoint` included, and a probe of the result.
        """
        ...


class Job(Record):
    """What is trained from what: two runs of the same job give the same adapter."""

    agent: str
    parent: str
    """The policy that the adapter would replace. Training starts from the base model all the same."""
    base_digest: str
    dataset_digest: str
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
    samples: Sequence[SFTSample],
    *,
    agent: str,
    recipe: Recipe,
    base_model: Path,
    workspace: Workspace,
    parent: str = BASE,
    number: int | None = None,
    dataset: KnownDataset | None = None,
    mlflow_uri: str | None = None,
    on_start: OnStart = lambda checkpoint: None,
    on_step: OnStep | None = None,
) -> Adapter:
    """Trains `agent@number`, by default the next one; the same job already trained is returned as it is.

    `dataset` is the file that the samples are from, by whose digest lineage finds them.

    Training starts from the base model, whatever `parent` is. A run that was killed goes on from its last checkpoint
    when it is called again. Raises `ConfigError` for a recipe
    that can't be used and `TrainingError` where the samples, the numbers or the disk don't let it go on.
    """
    _check(samples, agent, recipe, workspace)
    job = Job(
        agent=agent,
        parent=parent,
        base_digest=model_digest(base_model),
        dataset_digest=digest_samples(samples) if dataset is None else dataset.digest,
        recipe_digest=recipe.digest,
        method=recipe.method,
    )
    with workspace.lock(f"train-{agent}"):
        if trained := _already_trained(workspace.adapters, job):
            shutil.rmtree(_partial(workspace.adapters, trained.policy), ignore_errors=True)
            return trained
        policy = f"{agent}@{number or next_number(workspace.adapters, agent)}"
        if (workspace.adapters / policy).exists():
            raise TrainingError(f"{policy} was trained from other samples or another recipe: take another number")
        partial = _partial(workspace.adapters, policy)
        _reserve(partial, job)
        checkpoint = last_whole(partial / CHECKPOINTS)
        on_start(checkpoint)
        with track(mlflow_uri, partial, policy=policy, job=job.model_dump(), recipe=recipe.model_dump()) as run:
            if dataset is not None:
                run.learns_from(dataset, dataset_name(job.agent, job.method))
            adapter = _fitted(samples, recipe, base_model, partial, policy, job, checkpoint, _told(run, on_step))
            publish(partial / "adapter", workspace.adapters / policy)
            run.finish(adapter)
        shutil.rmtree(partial, ignore_errors=True)
        return adapter


def _told(run: TrackedRun, on_step: OnStep | None) -> OnStep:
    def report(step: int, total: int, loss: float) -> None:
        run.step(step, loss)
        if on_step is not None:
            on_step(step, total, loss)

    return report


def _check(samples: Sequence[SFTSample], agent: str, recipe: Recipe, workspace: Workspace) -> None:
    if not samples:
        raise TrainingError(f"there are no samples to train {agent} on: mine some with `journeyman mine`")
    if len(_prompt_forms(samples)) > 1:
        raise TrainingError(f"the samples show {agent} in different prompts: mine them again, with --crew FILE")
    if other := next((sample.agent for sample in samples if sample.agent != agent), None):
        raise TrainingError(f"the samples are of {other}, not of {agent}: an adapter learns from its own agent")
    if recipe.lora.r > (limit := workspace.config.server.max_lora_rank):
        raise ConfigError(f"recipe: lora.r is {recipe.lora.r}, the server takes {limit} (server.max_lora_rank)")


def _prompt_forms(samples: Sequence[SFTSample]) -> set[str]:
    return {sample.prompt_form for sample in samples if sample.prompt_form is not None}


def _already_trained(adapters: Path, job: Job) -> Adapter | None:
    for folder in adapter_folders(adapters):
        if split_policy(folder.name)[0] == job.agent:
            with suppress(AdapterError):  # A damaged adapter is no reason not to train a whole one.
                adapter = load_adapter(folder)
                if adapter.model_dump(include=set(Job.model_fields)) == job.model_dump():
                    return adapter
    return None


def _partial(adapters: Path, policy: str) -> Path:
    return adapters / f".{policy}.partial"


def _reserve(partial: Path, job: Job) -> None:
    """Makes the folder of an unfinished run, and empties it first if that run was another job's."""
    record = partial / "job.json"
    try:
        if not record.exists() or record.read_text(encoding="utf-8") != job.model_dump_json():
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            record.write_text(job.model_dump_json(), encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{partial} cannot be written: {error.strerror}") from error


def _fitted(
    samples: Sequence[SFTSample],
    recipe: Recipe,
    base_model: Path,
    partial: Path,
    policy: str,
    job: Job,
    checkpoint: Checkpoint | None,
    on_step: OnStep,
) -> Adapter:
    _, number = split_policy(policy)
    done = 0 if checkpoint is None else checkpoint.step

    def watch(step: int, total: int, loss: float) -> None:
        nonlocal done
        done = step
        on_step(step, total, loss)

    with _quiet():
        try:
            with _environment():
                from safetensors import SafetensorError

                method = cast("Method", import_module(recipe.fit))
        except ImportError as error:
            raise ConfigError(f"training needs {error.name}: pip install 'journeyman[train]'") from None
        try:
            seconds, probe = method.fit(samples, recipe, base_model, partial, checkpoint, watch)
            adapter = Adapter(
                number=number,
                digest=digest_files(partial / "adapter"),
                rows=len(samples),
                prompt_form=next(iter(_prompt_forms(samples)), None),
                rank=recipe.lora.r,
                train_seconds=round(seconds, 3),
                created_ns=time_ns(),
                **job.model_dump(),
            )
            write_adapter(partial / "adapter", adapter, probe)
        except (OSError, RuntimeError, SafetensorError) as error:
            # A full disk is an error of the library that was writing; torch's is RuntimeError, also for lack of memory.
            cause = (str(error) or type(error).__name__).splitlines()[0]
            raise TrainingError(
                f"training {policy} stopped after step {done}: {cause}; run it again to go on from its last checkpoint"
            ) from error
    return adapter


@contextmanager
def _environment() -> Iterator[None]:
    """Sets `ENVIRONMENT` for the imports within; a server that is started later must not inherit it."""
    added = {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what libraries say of their own business away from the user's terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
