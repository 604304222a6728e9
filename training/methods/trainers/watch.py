"""What watches a training: it tells of each step, stops it, names a bad row, and marks checkpoints as whole."""

import math
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from journeyman.traces.errors import TrainingError
from journeyman.training.methods.checkpoints import mark_whole
from journeyman.training.methods.recipe import OnStep, Step
from journeyman.training.methods.trainers.batches import Batches, worst_row
from journeyman.training.trainings.launched import any_of


class Watch(TrainerCallback):
    """Tells of each step, stops at a loss that is no number, and marks checkpoints as whole."""

    def __init__(
        self,
        on_step: OnStep,
        seconds_before: float,
        trainer: Trainer,
        batches: Batches | None = None,
        names: Sequence[str] = (),
    ) -> None:
        """`names` are those of the rows that `batches` numbers."""
        self._on_step = on_step
        self._before = seconds_before
        self._trainer = trainer
        self._batches = batches
        self._names = names
        self._began = self._step_began = monotonic()
        self._step: Step | None = None
        self._stopped = False

    @property
    def seconds(self) -> float:
        return self._before + monotonic() - self._began

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began = monotonic()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._step_began = monotonic()
        if self._batches is not None:
            self._batches.step = []

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._batches is not None:
            self._batches.take()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Before the step is made, so that the weights which say whose loss is worst are whole."""
        if self._batches is None:
            return
        self._batches.take()
        model = self._trainer.model
        assert model is not None
        if all(bool(one.grad.isfinite().all()) for one in model.parameters() if one.grad is not None):
            return
        raise TrainingError(f"the gradient of step {state.global_step + 1} is not finite: {self._whose()}")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs is None or not ("loss" in logs or (self._step and "eval_loss" in logs)):
            return
        told = {key: value for key, value in logs.items() if isinstance(value, int | float) and not _is_timing(key)}
        if "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise TrainingError(f"the loss of step {state.global_step} is {logs['loss']:g}: {self._whose()}")
            if self._batches is not None and self._batches.step:
                told["tokens_per_second"] = self._batches.tokens / (monotonic() - self._step_began)
            self._step = Step(state.global_step, state.max_steps, told.pop("loss"), told)
        else:
            assert self._step is not None
            self._step = self._step._replace(metrics=told)
        asked = self._stopped
        try:
            self._on_step(self._step)
        except KeyboardInterrupt:
            asked = True
        self._stopped = any_of(asked)
        control.should_save = control.should_save or self._stopped

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._trainer.accelerator.wait_for_everyone()  # Each process saves a part.
        if state.is_world_process_zero:
            mark_whole(Path(str(args.output_dir)), state.global_step, self.seconds)
        if self._stopped:
            raise KeyboardInterrupt

    def _whose(self) -> str:
        """The row that is to blame, and what to do."""
        try:
            row = None if self._batches is None else worst_row(self._trainer, self._batches)
        except (RuntimeError, ValueError, LookupError):  # A loss that is only there for several rows at once.
            row = None
        if row is None or row >= len(self._names):
            return "lower trl.learning_rate"
        return f"the worst loss is that of {self._names[row]}; leave that row out, or lower trl.learning_rate"


def _is_timing(key: str) -> bool:
    """Whether it says of a look at held-out rows only how long it took."""
    return key.startswith("eval_") and key.endswith(("_runtime", "_per_second"))
