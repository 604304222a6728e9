"""GRPO's learner: rows of rollouts in, one optimiser step at a call, an adapter out. `turns` has TRL's loss."""

import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from statistics import fmean, pstdev
from time import monotonic
from typing import Any, NoReturn, cast

import torch
from datasets import disable_progress_bars  # type: ignore[import-untyped]
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from transformers import PrinterCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils.logging import disable_progress_bar
from trl.trainer.grpo_config import GRPOConfig

from journeyman.runtime.adapters.adapter import CONFIG
from journeyman.traces.base import Record
from journeyman.traces.errors import AdapterError, ConfigError, TrainingError
from journeyman.training.methods.alarms import StepMetrics, ring
from journeyman.training.methods.checkpoints import CHECKPOINTS, PREFIX, Checkpoint, mark_whole
from journeyman.training.methods.plan import Fitted
from journeyman.training.methods.recipes.grpo import GRPORecipe, choose
from journeyman.training.methods.rows import read_tokenizer
from journeyman.training.methods.trainers.config import typed
from journeyman.training.methods.trainers.grpo.turns import Batch, TurnTrainer
from journeyman.training.methods.trainers.skeleton import OURS, PROBE_TOKENS
from journeyman.training.methods.trainers.weights import (
    EAGER_TOKENS,
    begun,
    load_base,
    lora,
    parameters_of,
    probe_of,
    save,
)
from journeyman.training.rollouts.rows import TurnRow

LEARNED = "learned.json"
"""In a checkpoint, beside what transformers writes: how far the learner came."""


class Learned(Record):
    """How far a learner came."""

    recipe_digest: str
    history: tuple[StepMetrics, ...] = ()
    probe_ids: tuple[int, ...] = ()
    """The tokens of a turn that it learned from, which prove the adapter in a server."""


class Learner:
    """An adapter as it learns from one step's rows after another."""

    def __init__(
        self,
        recipe: GRPORecipe,
        base_model: Path,
        start: Path | None,
        folder: Path,
        checkpoint: Checkpoint | None,
        *,
        steps: int,
    ) -> None:
        """It goes on from `checkpoint`, or else from the adapter in `start`, or begins with a fresh one.

        `start`, or the base model, is the reference. Checkpoints go into `folder`/checkpoints; `steps` are those of the
        whole training. Raises `ConfigError` for a recipe that can't be used, `AdapterError` where `start` is gone, and
        `TrainingError` for a checkpoint of another recipe.
        """
        self._recipe = recipe
        self._folder = folder
        self._seconds = 0.0 if checkpoint is None else checkpoint.seconds
        self._learned = _learned(recipe, checkpoint)
        if start is not None and not (start / CONFIG).exists():
            raise AdapterError(
                f"the reference {start.name} is gone from {start.parent}: put it back, or start from another policy"
            )
        self._trainer = _trainer(recipe, base_model, start, folder / CHECKPOINTS, steps)
        if checkpoint is not None:
            self._trainer.state = TrainerState.load_from_json(str(checkpoint.folder / TRAINER_STATE_NAME))
        self._trainer.begin(None if checkpoint is None else str(checkpoint.folder))

    @property
    def done(self) -> int:
        """Steps that were made."""
        return self._trainer.state.global_step

    @property
    def history(self) -> tuple[StepMetrics, ...]:
        return self._learned.history

    def step(self, rows: Sequence[TurnRow], *, flat_share: float = 0.0, held_out: float | None = None) -> StepMetrics:
        """One step over `rows`: `trl.num_iterations` updates, each over all of them. Alarms are rung, rates lowered.

        `flat_share` is the share of groups that taught nothing, and `held_out` the mean reward of held-out tasks where
        they were just tried. Raises `TrainingError` for rows that nothing can be learned from, and for a loss that is
        no number; the weights are then as they were.
        """
        began = monotonic()
        learned = [row for row in rows if row.weight]
        _check(learned)
        trainer = self._trainer
        with disable_input_dtype_casting(self._model, active=bool(trainer.args.bf16)):
            batches = trainer.batches(learned, cast("int | None", self._recipe.trl.get("per_device_train_batch_size")))
            updates = [trainer.update(batches) for _ in range(trainer.num_iterations)]
        if not all(math.isfinite(update.loss) and math.isfinite(update.grad_norm) for update in updates):
            self._refuse(learned, batches)
        trainer.state.global_step += 1
        seconds = monotonic() - began
        self._seconds += seconds
        numbers = {
            name: fmean(getattr(update, name) for update in updates)
            for name in updates[0]._fields
            if updates[0]._asdict()[name] is not None
        }
        rewards = [row.reward for row in learned]
        metrics = StepMetrics(
            step=self.done,
            **{"kl": None, **numbers},
            reward_mean=fmean(rewards),
            reward_std=pstdev(rewards),
            length=fmean(len(row.completion_ids) for row in learned),
            rows=len(learned),
            flat_share=flat_share,
            held_out=held_out,
            seconds=round(seconds, 3),
        )
        return self._watched(metrics, learned[0])

    def save(self, folder: Path) -> None:
        """Writes the adapter as it is now: PEFT's two files."""
        save(self._model, folder)

    def checkpoint(self) -> None:
        """Keeps what a killed process goes on from: weights, optimiser, schedule, dice and history."""
        trainer = self._trainer
        trainer._save_checkpoint(trainer.model, None)  # type: ignore[no-untyped-call]
        folder = self._folder / CHECKPOINTS / f"{PREFIX}{self.done}"
        (folder / LEARNED).write_text(self._learned.model_dump_json(), encoding="utf-8")
        mark_whole(self._folder / CHECKPOINTS, self.done, self._seconds)

    def finish(self, epochs: float = 0.0) -> Fitted:
        """Leaves the adapter in `folder`/adapter; `epochs` are the runs through the tasks that were made."""
        self.save(self._folder / "adapter")
        return Fitted(
            seconds=self._seconds,
            probe=probe_of(self._model, list(self._learned.probe_ids)),
            steps=self.done,
            epochs=epochs,
            eval_loss=None,
        )

    @property
    def _model(self) -> PeftModel:
        model = self._trainer.model
        assert isinstance(model, PeftModel)
        return model

    def _watched(self, metrics: StepMetrics, row: TurnRow) -> StepMetrics:
        """The metrics with the alarms that they ring."""
        alarms = ring((*self.history, metrics), self._recipe.alarms)
        if any(alarm.action == "lower" for alarm in alarms):
            self._trainer.lower(self._recipe.alarms.factor)
        metrics = metrics.model_copy(update={"alarms": alarms})
        probe = (*row.prompt_ids, *row.completion_ids)[-PROBE_TOKENS:]
        self._learned = self._learned.model_copy(update={"history": (*self.history, metrics), "probe_ids": probe})
        return metrics

    def _refuse(self, rows: Sequence[TurnRow], batches: Sequence[Batch]) -> NoReturn:
        """Says which row has no loss, where it is one row's fault."""
        for row in rows:
            (batch,) = self._trainer.batches([row], 1)
            if not torch.isfinite(self._trainer.logprobs(batch)).all():
                raise TrainingError(
                    f"turn {row.span_id} of run {row.trace_id} has no finite logprobs at step {self.done + 1}: "
                    "leave it out, or lower trl.learning_rate and go on from the last checkpoint"
                )
        raise TrainingError(
            f"the loss or its gradient is not finite at step {self.done + 1}: lower trl.learning_rate and go on from "
            "the last checkpoint"
        )


class GRPO:
    """The method, as `method_of` opens it."""

    learner = Learner


def _check(rows: Sequence[TurnRow]) -> None:
    """Raises `TrainingError` where a step can't be made of them."""
    if not rows:
        raise TrainingError("no row is left to learn from: every group is flat, or every reply was cut off")
    for row in rows:
        named = f"turn {row.span_id} of run {row.trace_id}"
        for name in ("reward", "advantage", "weight"):
            if not math.isfinite(value := getattr(row, name)):
                raise TrainingError(f"the {name} of {named} is {value:g}: mend the scorer, or the judge")
        if not row.prompt_ids or not row.completion_ids:
            raise TrainingError(f"{named} has an empty prompt or reply: leave it out")
        if len(row.old_logprobs) != len(row.completion_ids):
            raise TrainingError(
                f"{named} has {len(row.completion_ids)} tokens and {len(row.old_logprobs)} logprobs: leave it out"
            )
    if not any(row.advantage for row in rows):
        raise TrainingError(
            "the reward is constant: no row is better than the rest of its group, so nothing is learned"
        )


def _learned(recipe: GRPORecipe, checkpoint: Checkpoint | None) -> Learned:
    if checkpoint is None:
        return Learned(recipe_digest=recipe.digest)
    try:
        learned = Learned.model_validate_json((checkpoint.folder / LEARNED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise TrainingError(f"{checkpoint.folder} isn't a checkpoint of grpo: remove it to start again") from None
    if learned.recipe_digest != recipe.digest:
        raise TrainingError(
            f"{checkpoint.folder} is of another recipe: train with that one, or remove it to start again"
        )
    return learned


def _trainer(recipe: GRPORecipe, base_model: Path, start: Path | None, checkpoints: Path, steps: int) -> TurnTrainer:
    disable_progress_bar()  # type: ignore[no-untyped-call]
    disable_progress_bars()
    base = load_base(base_model, longest=EAGER_TOKENS + 1)
    model = base if start is None else begun(base, start, recipe)
    try:
        trainer = TurnTrainer(
            model=model,
            args=_arguments(recipe, parameters_of(base_model), checkpoints, steps),
            tokenizer=read_tokenizer(base_model),
            peft_config=lora(recipe, base_model) if start is None else None,
            steps=steps,
        )
    except ConfigError:  # It is a ValueError, too.
        raise
    except (ImportError, ValueError) as error:  # Each library checks its own part of the recipe.
        raise ConfigError(f"the recipe can't be used: {str(error).splitlines()[0]}") from None
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(recipe: GRPORecipe, parameters: int, checkpoints: Path, steps: int) -> GRPOConfig:
    typed(GRPOConfig, recipe.trl)
    known = {field.name for field in fields(GRPOConfig)}
    chosen = {choice.key.removeprefix("trl."): choice.value for choice in choose(recipe, parameters)}
    assert chosen.keys() <= known
    cuda = torch.cuda.is_available()
    ours: dict[str, Any] = {
        **OURS,
        "output_dir": str(checkpoints),
        "use_cpu": not cuda,
        "max_steps": steps,
        "num_generations": recipe.rollouts.group,
        "generation_batch_size": recipe.rollouts.group,
        "per_device_train_batch_size": 1,
    }
    return GRPOConfig(**{**chosen, **ours})
