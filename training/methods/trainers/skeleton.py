"""The skeleton of methods whose trainer is TRL's: rows, a trainer, an adapter. Each method fills in what is its own."""

import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import monotonic
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast

import torch
from datasets import Dataset, disable_progress_bars  # type: ignore[import-untyped]
from peft import LoraConfig, PeftModel
from peft.helpers import disable_input_dtype_casting
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerState,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import SaveStrategy
from transformers.utils.logging import disable_progress_bar

from journeyman.runtime.adapters.adapter import Probe
from journeyman.traces.errors import ConfigError, TrainingError
from journeyman.training.data.samples import Sample
from journeyman.training.methods.checkpoints import CHECKPOINTS, Checkpoint, last_whole
from journeyman.training.methods.earlier import NOTHING, Earlier
from journeyman.training.methods.plan import Facts, Fitted, Plan, Trial, hold_out, plan_training
from journeyman.training.methods.recipe import OnStep, Rule, TRLRecipe
from journeyman.training.methods.rows import read_tokenizer, stops_of
from journeyman.training.methods.trainers.batches import Batches
from journeyman.training.methods.trainers.config import check_optimiser, typed
from journeyman.training.methods.trainers.guard import drift_of, old_rows, take_old_rows
from journeyman.training.methods.trainers.watch import Watch
from journeyman.training.methods.trainers.weights import (
    asked_layers,
    begun,
    load_base,
    lora,
    parameters_of,
    probe_of,
    save,
)
from journeyman.training.trainings.launched import processes

PROBE_TOKENS = 96

SHOWN = ("beta", "lr_scheduler_type", "warmup_steps", "optim", "weight_decay", "max_grad_norm", "neftune_noise_alpha")
"""Defaults of TRL that a plan tells."""

OURS: Mapping[str, Any] = {
    "report_to": "none",
    "disable_tqdm": True,
    "logging_steps": 1,
    "logging_nan_inf_filter": False,
    "remove_unused_columns": False,
    "save_strategy": "steps",
    "save_total_limit": 2,
}
"""What every method says to TRL."""

STOPS: Mapping[str, Any] = {
    "eval_strategy": "steps",
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_loss",
    "greater_is_better": False,
    "prediction_loss_only": True,
    "restore_callback_states_from_checkpoint": True,  # How often their loss has not fallen counts on.
}
"""The same where rows are held out."""


OUT_OF_MEMORY = ("can't allocate memory", "Cannot allocate memory", "bad_alloc", "ALLOC_FAILED")
"""What libraries say where memory runs out and the error's class doesn't."""


S = TypeVar("S", bound=Sample)
R = TypeVar("R", bound=TRLRecipe)

Row = dict[str, Any]
"""A sample as its trainer's collator takes it."""


class Rows(NamedTuple):
    """A dataset as the trainer takes it."""

    learned: list[Row]
    held_out: list[Row]
    measured: list[Row]
    """Of earlier datasets: their loss is measured before and after."""
    longest: int
    """Tokens of the longest row."""
    plan: Plan
    tokenizer: PreTrainedTokenizerBase


class TRLMethod(ABC, Generic[S, R]):
    """What training is, whatever the method: samples become rows, TRL's trainer learns, an adapter is written."""

    config: ClassVar[type[Any]]
    """TRL's arguments of the method, which the recipe's table `[trl]` goes to."""
    ours: ClassVar[Mapping[str, Any]] = {}
    """What the method says to `config` besides `OURS`."""
    kept: ClassVar[Sequence[str]] = ()
    """Metrics whose last value is told of an adapter, that of held-out rows too where there are any."""

    @abstractmethod
    def rows(
        self, samples: Sequence[S], recipe: R, tokenizer: PreTrainedTokenizerBase, stops: frozenset[int]
    ) -> list[Row]:
        """Samples as rows of tokens; `stops` are those at which a server ends a reply."""

    @abstractmethod
    def tokens(self, row: Row) -> list[int]:
        """The longest sequence of tokens that a row shows the model."""

    def batched(self, learned: list[Row], recipe: R) -> list[Row]:
        """The rows that are learned from as steps count them: several may become one."""
        return learned

    def rules(self, rows: Sequence[Row]) -> Sequence[Rule]:
        """What follows from the rows' tokens, for this method alone."""
        return ()

    @abstractmethod
    def trainer(self, rows: Rows, recipe: R, **given: Any) -> Trainer:
        """TRL's trainer; `given` are `model`, `args`, `train_dataset`, `eval_dataset`, `processing_class` and
        `peft_config`, as all of TRL's trainers take them."""

    def fit(
        self,
        samples: Sequence[S],
        recipe: R,
        base_model: Path,
        partial: Path,
        checkpoint: Checkpoint | None,
        on_step: OnStep,
        *,
        start: Path | None = None,
        earlier: Earlier = NOTHING,
        on_plan: Callable[[Plan], None] = lambda plan: None,
    ) -> Fitted:
        """Trains in `partial`, from `checkpoint` where there is one, and leaves PEFT's two files in `partial/adapter`.

        Without a checkpoint it goes on from the adapter in `start`, or begins with a fresh one. Where memory runs out
        it goes on in smaller pieces, and tells the new plan. `on_step` may raise `KeyboardInterrupt`: a checkpoint is
        saved before it travels on.
        """
        rows = self.read_rows(samples, recipe, base_model, earlier)
        while True:
            on_plan(rows.plan)
            try:
                return self._fit(samples, rows, recipe, base_model, partial, checkpoint, on_step, start, earlier)
            except (RuntimeError, MemoryError) as error:
                smaller = rows.plan.in_smaller_pieces() if processes() == 1 and _is_out_of_memory(error) else None
                if smaller is None:
                    raise
            gc.collect()  # Beyond the block above, whose error holds on to the trainer that is too large.
            torch.cuda.empty_cache()
            rows, checkpoint = rows._replace(plan=smaller), last_whole(partial / CHECKPOINTS)

    def _fit(
        self,
        samples: Sequence[S],
        rows: Rows,
        recipe: R,
        base_model: Path,
        partial: Path,
        checkpoint: Checkpoint | None,
        on_step: OnStep,
        start: Path | None,
        earlier: Earlier,
    ) -> Fitted:
        trainer = self.prepare(rows, recipe, base_model, partial / CHECKPOINTS, start)
        old = take_old_rows(trainer, len(rows.held_out))
        batches = Batches(trainer.train_dataset, [len(self.tokens(row)) for row in rows.learned])
        if len(batches) == len(rows.learned):
            trainer.train_dataset = batches
        shown: list[Sample] = [*hold_out(samples, recipe)[0], *earlier.replayed]
        names = [_name(sample) for sample in shown] if len(shown) == len(rows.learned) else []  # A pack has no name.
        watch = Watch(on_step, 0.0 if checkpoint is None else checkpoint.seconds, trainer, batches, names)
        trainer.add_callback(watch)
        model = trainer.model
        assert isinstance(model, PreTrainedModel | PeftModel)
        before = self.measure(model, rows.tokenizer)
        # Autocast makes LoRA's float32 weights bfloat16 in each product; PEFT would make the larger inputs float32.
        with disable_input_dtype_casting(model, active=bool(trainer.args.bf16)):
            _go_on(trainer, checkpoint)
        if trainer.is_world_process_zero():
            self.save(model, base_model, partial / "adapter")
        return Fitted(
            seconds=watch.seconds,
            probe=self.probe(model, base_model, self.tokens(rows.learned[0])[-PROBE_TOKENS:]),
            steps=trainer.state.global_step,
            epochs=round(trainer.state.global_step / rows.plan.epoch_steps, 3),
            eval_loss=trainer.state.best_metric,
            metrics=self._last(trainer.state.log_history) | _paired(before, self.measure(model, rows.tokenizer)),
            old=old_rows(trainer, old, earlier, recipe.guard.worst),
            drift=drift_of(model, rows.tokenizer) if isinstance(model, PeftModel) else None,
        )

    def measure(self, model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
        """What the method wants to know of the model before and after training, by name."""
        return {}

    def _last(self, history: Sequence[Mapping[str, float]]) -> dict[str, float]:
        last = {key: value for logged in history for key, value in logged.items()}
        names = [name for key in self.kept for name in (key, f"eval_{key}")]
        return {name: round(last[name], 6) for name in names if name in last}

    def plan(self, samples: Sequence[S], recipe: R, base_model: Path, earlier: Earlier = NOTHING) -> Plan:
        """What `fit` would do."""
        rows = self.read_rows(samples, recipe, base_model, earlier)
        self.arguments(rows, recipe, Path(CHECKPOINTS))
        return rows.plan

    def attempt(
        self,
        samples: Sequence[S],
        recipe: R,
        base_model: Path,
        folder: Path,
        start: Path | None,
        earlier: Earlier = NOTHING,
    ) -> Trial:
        """The plan, and what a step of it takes: two steps are made, and the second one counts. Nothing is kept."""
        ends: list[float] = []
        rows = self.read_rows(samples, recipe, base_model, earlier)
        short = recipe.model_copy(update={"trl": recipe.trl | {"max_steps": 2}})
        few = rows.learned[:: max(1, len(rows.learned) // (2 * rows.plan.batch))]
        trainer = self.prepare(rows._replace(learned=few, held_out=[], measured=[]), short, base_model, folder, start)
        trainer.args.save_strategy = SaveStrategy.NO
        trainer.add_callback(Watch(lambda step: ends.append(monotonic()), 0.0, trainer))
        trainer.train()
        return Trial(plan=rows.plan, step_seconds=ends[-1] - ends[-2], peak_mb=_peak_mb())

    def read_rows(self, samples: Sequence[S], recipe: R, base_model: Path, earlier: Earlier = NOTHING) -> Rows:
        """The samples and those of `earlier` as rows of tokens, some of them held out, and what is planned."""
        given = typed(self.config, recipe.trl)
        tokenizer = read_tokenizer(base_model)
        stops = stops_of(base_model, tokenizer)
        fresh, aside = hold_out(samples, recipe)
        sides = ([*fresh, *earlier.replayed], aside, earlier.measured)
        learned, held_out, measured = (self.rows(cast("list[S]", side), recipe, tokenizer, stops) for side in sides)
        lengths = [len(self.tokens(row)) for row in [*learned, *held_out, *measured]]
        _check_lengths(lengths, given.get("max_length"))
        learned = self.batched(learned, recipe)
        facts = Facts(
            rows=len(learned),
            held_out=len(held_out),
            longest=max(*lengths, *(len(self.tokens(row)) for row in learned)),
            parameters=parameters_of(base_model),
            replayed=len(earlier.replayed),
            measured=len(measured),
            earlier=str(earlier),
        )
        theirs = {field.name: field.default for field in fields(self.config) if field.name in SHOWN}
        own = [*recipe.rules(fresh), *self.rules(learned)]
        plan = self._fitting(plan_training(recipe, given, facts, theirs, own))
        return Rows(learned, held_out, measured, facts.longest, plan, tokenizer)

    def prepare(self, rows: Rows, recipe: R, base_model: Path, checkpoints: Path, start: Path | None = None) -> Trainer:
        """A trainer of those rows, and of the adapter in `start` or of a fresh one on the base model."""
        disable_progress_bar()  # type: ignore[no-untyped-call]
        disable_progress_bars()
        arguments = self.arguments(rows, recipe, checkpoints)
        model, adapter = self.model(base_model, recipe, rows.longest, start)
        try:
            trainer = self.trainer(
                rows,
                recipe,
                model=model,
                args=arguments,
                train_dataset=Dataset.from_list(rows.learned),
                eval_dataset=Dataset.from_list(aside) if (aside := [*rows.held_out, *rows.measured]) else None,
                processing_class=rows.tokenizer,
                peft_config=adapter,
            )
        except (ImportError, ValueError) as error:  # Each library checks its own part of the recipe.
            raise ConfigError(f"the recipe can't be used: {str(error).splitlines()[0]}") from None
        trainer.remove_callback(PrinterCallback)
        if rows.held_out:
            trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=recipe.eval.patience))
        return trainer

    def model(
        self, base_model: Path, recipe: R, longest: int, start: Path | None
    ) -> tuple[PreTrainedModel | PeftModel, LoraConfig | None]:
        """What is trained, and the fresh adapter that TRL is to put on it."""
        base = self.base(base_model, recipe, longest)
        asked_layers(base, recipe)
        return (base, lora(recipe, base_model)) if start is None else (begun(base, start, recipe), None)

    def save(self, model: PreTrainedModel | PeftModel, base_model: Path, folder: Path) -> None:
        """Leaves in `folder` what a server loads."""
        assert isinstance(model, PeftModel)
        save(model, folder)

    def probe(self, model: PreTrainedModel | PeftModel, base_model: Path, token_ids: list[int]) -> Probe:
        """What a server of the saved weights must compute."""
        assert isinstance(model, PeftModel)
        return probe_of(model, token_ids)

    def base(self, folder: Path, recipe: R, longest: int) -> PreTrainedModel:
        """The base model, for rows of up to `longest` tokens."""
        return load_base(folder, longest=longest)

    def arguments(self, rows: Rows, recipe: R, folder: Path) -> Any:
        """Of the method's `config`; raises `ConfigError` where TRL refuses the recipe's."""
        given = rows.plan.trl | recipe.trl | rows.plan.pieces(processes())
        machine = {"use_cpu": not torch.cuda.is_available(), "dataloader_pin_memory": torch.cuda.is_available()}
        stops = STOPS if rows.held_out else {}
        try:
            made = self.config(**{"output_dir": str(folder), **OURS, **machine, **stops, **self.ours, **given})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"recipe: trl: {str(error).splitlines()[0]}") from None
        check_optimiser(made)
        return made

    def _fitting(self, plan: Plan) -> Plan:
        """The plan without what TRL's config of the method has no key for."""
        keys = {f"trl.{field.name}" for field in fields(self.config)}
        told = [choice for choice in plan.choices if not choice.key.startswith("trl.") or choice.key in keys]
        return plan.model_copy(update={"choices": tuple(told)})


def _go_on(trainer: Trainer, checkpoint: Checkpoint | None) -> None:
    if checkpoint is None:
        trainer.train()
        return
    state = TrainerState.load_from_json(str(checkpoint.folder / TRAINER_STATE_NAME))
    if not state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]:
        trainer.train(resume_from_checkpoint=str(checkpoint.folder))
        return
    trainer.state = state  # Nothing but the end was cut short; to train on would be another step.
    if trainer.eval_dataset is None:
        trainer._load_from_checkpoint(str(checkpoint.folder))
    else:
        trainer._load_best_model()


def _name(sample: Sample) -> str:
    """What a user finds the sample by."""
    spans: Sequence[str] = getattr(sample, "span_ids", ())
    return f"the row of trace {sample.source}, span {spans[-1]}" if spans else f"the row of {sample.source}"


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(said in str(error) for said in OUT_OF_MEMORY)


def _paired(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {
        f"{name}_{when}": round(value, 6)
        for when, values in (("before", before), ("after", after))
        for name, value in values.items()
    }


def _check_lengths(lengths: Sequence[int], limit: int | None) -> None:
    if limit is not None and (too_long := sum(length > limit for length in lengths)):
        raise TrainingError(
            f"{too_long} of {len(lengths)} samples are longer than trl.max_length = {limit} and would be cut: "
            f"set it to {max(lengths)}, or leave them out"
        )


def _peak_mb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return getrusage(RUSAGE_SELF).ru_maxrss / 1000
