"""The part of SFT that needs torch: TRL's trainer, the finished files and the probe."""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import monotonic
from typing import Any, NamedTuple, get_type_hints

import torch
from datasets import Dataset, disable_progress_bars  # type: ignore[import-untyped]
from peft import LoraConfig, PeftModel
from peft.helpers import disable_input_dtype_casting
from pydantic import TypeAdapter, ValidationError
from safetensors import safe_open
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import SaveStrategy
from transformers.utils.logging import disable_progress_bar
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from journeyman.runtime.adapters.adapter import CONFIG, Probe
from journeyman.traces.errors import ConfigError, TrainingError
from journeyman.training.data.samples import SFTSample
from journeyman.training.methods.checkpoints import CHECKPOINTS, Checkpoint, mark_whole
from journeyman.training.methods.plan import Facts, Fitted, Plan, Trial, hold_out, plan_training
from journeyman.training.methods.recipe import OnStep
from journeyman.training.methods.rows import read_tokenizer, stops_of, write_rows
from journeyman.training.methods.sft import SFTRecipe

PROBE_TOKENS = 96

SHOWN = ("lr_scheduler_type", "warmup_steps", "optim", "weight_decay", "max_grad_norm", "neftune_noise_alpha")
"""Defaults of TRL that a plan tells."""

EAGER_TOKENS = 512
"""Longest row for which attention written out is the faster one on a CPU; its memory grows with the square."""


def fit(
    samples: Sequence[SFTSample],
    recipe: SFTRecipe,
    base_model: Path,
    partial: Path,
    checkpoint: Checkpoint | None,
    on_step: OnStep,
    *,
    start: Path | None = None,
    on_plan: Callable[[Plan], None] = lambda plan: None,
) -> Fitted:
    """Trains in `partial`, from `checkpoint` where there is one, and leaves PEFT's two files in `partial/adapter`.

    Without a checkpoint it goes on from the adapter in `start`, or begins with a fresh one.
    """
    watch = _Watch(on_step, 0.0 if checkpoint is None else checkpoint.seconds)
    rows = read_rows(samples, recipe, base_model)
    on_plan(rows.plan)
    trainer = prepare(rows, recipe, base_model, partial / CHECKPOINTS, start)
    trainer.add_callback(watch)
    model = trainer.model
    assert isinstance(model, PeftModel)
    # Autocast makes LoRA's float32 weights bfloat16 for each product; PEFT would make the far larger inputs float32.
    with disable_input_dtype_casting(model, active=bool(trainer.args.bf16)):
        _go_on(trainer, checkpoint)
    _save(model, partial / "adapter")
    return Fitted(
        seconds=watch.seconds,
        probe=_probe(model, rows.learned[0]["input_ids"][-PROBE_TOKENS:]),
        steps=trainer.state.global_step,
        epochs=round(trainer.state.global_step / rows.plan.epoch_steps, 3),
        eval_loss=trainer.state.best_metric,
    )


def plan(samples: Sequence[SFTSample], recipe: SFTRecipe, base_model: Path) -> Plan:
    """What `fit` would do."""
    rows = read_rows(samples, recipe, base_model)
    _arguments(rows.plan.trl | recipe.trl, Path(CHECKPOINTS), evaluates=bool(rows.held_out))
    return rows.plan


def attempt(
    samples: Sequence[SFTSample], recipe: SFTRecipe, base_model: Path, folder: Path, start: Path | None
) -> Trial:
    """The plan, and what a step of it takes: two steps are made, and the second one counts. Nothing is kept."""
    ends: list[float] = []
    rows = read_rows(samples, recipe, base_model)
    short = recipe.model_copy(update={"trl": recipe.trl | {"max_steps": 2}})
    trainer = prepare(rows._replace(held_out=[]), short, base_model, folder, start)
    trainer.args.save_strategy = SaveStrategy.NO
    trainer.add_callback(_Watch(lambda step, total, loss: ends.append(monotonic()), 0.0))
    trainer.train()
    return Trial(plan=rows.plan, step_seconds=ends[-1] - ends[-2], peak_mb=_peak_mb())


def _peak_mb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return getrusage(RUSAGE_SELF).ru_maxrss / 1000


class Rows(NamedTuple):
    """A dataset as the trainer takes it."""

    learned: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    plan: Plan
    tokenizer: PreTrainedTokenizerBase


def read_rows(samples: Sequence[SFTSample], recipe: SFTRecipe, base_model: Path) -> Rows:
    """The samples as rows of tokens, some of them held out, and what is planned with them."""
    given = _given(recipe)
    tokenizer = read_tokenizer(base_model)
    stops = stops_of(base_model, tokenizer)
    learned, held_out = (write_rows(side, tokenizer, stops) for side in hold_out(samples, recipe))
    _check_lengths([*learned, *held_out], given.get("max_length"))
    facts = Facts(
        rows=len(learned),
        held_out=len(held_out),
        longest=max(len(row["input_ids"]) for row in [*learned, *held_out]),
        parameters=_parameters(base_model),
    )
    theirs = {field.name: field.default for field in fields(SFTConfig) if field.name in SHOWN}
    return Rows(learned, held_out, plan_training(recipe, given, facts, theirs), tokenizer)


def prepare(
    rows: Rows, recipe: SFTRecipe, base_model: Path, checkpoints: Path, start: Path | None = None
) -> "CompletionTrainer":
    """A trainer of those rows, and of the adapter in `start` or of a fresh one on the base model."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    disable_progress_bars()
    arguments = _arguments(rows.plan.trl | recipe.trl, checkpoints, evaluates=bool(rows.held_out))
    base = _base(base_model, longest=max(len(row["input_ids"]) for row in [*rows.learned, *rows.held_out]))
    try:
        trainer = CompletionTrainer(
            model=base if start is None else _begun(base, start, recipe),
            args=arguments,
            train_dataset=Dataset.from_list(rows.learned),
            eval_dataset=Dataset.from_list(rows.held_out) if rows.held_out else None,
            processing_class=rows.tokenizer,
            data_collator=WeightCollator(rows.tokenizer.pad_token_id),
            peft_config=None if start is not None else _lora(recipe, base_model),
        )
    except (ImportError, ValueError) as error:  # Each library checks its own part of the recipe.
        raise ConfigError(f"the recipe can't be used: {str(error).splitlines()[0]}") from None
    trainer.remove_callback(PrinterCallback)
    if rows.held_out:
        trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=recipe.eval.patience))
    return trainer


def _go_on(trainer: "CompletionTrainer", checkpoint: Checkpoint | None) -> None:
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


class CompletionTrainer(SFTTrainer):
    """TRL's trainer with its own loss, computed where there is one: over completions."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Mean negative log-likelihood of the batch's completion tokens, each times its row's weight.

        Without a GPU, TRL projects every token on the vocabulary, which for short completions is half of all the work.
        """
        labels = inputs["labels"][:, 1:]
        learned = labels != -100
        with self.accelerator.autocast():
            base = self.accelerator.unwrap_model(model).get_base_model()
            states = base.base_model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
            ).last_hidden_state
            logits = base.get_output_embeddings()(states[:, :-1][learned])
        losses = cross_entropy(logits.float(), labels[learned], reduction="none")
        weights = inputs["weight"].unsqueeze(1).expand_as(labels)[learned]
        loss = (losses * weights).sum() / (learned.sum() if num_items_in_batch is None else num_items_in_batch)
        return (loss, {"loss": loss}) if return_outputs else loss


class WeightCollator(DataCollatorForLanguageModeling):
    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        batch["weight"] = torch.tensor([example["weight"] for example in examples])
        return batch


class _Watch(TrainerCallback):
    """Tells of each step, stops at a loss that is no number, and marks checkpoints as whole."""

    def __init__(self, on_step: OnStep, seconds_before: float) -> None:
        self._on_step = on_step
        self._before = seconds_before
        self._began = monotonic()

    @property
    def seconds(self) -> float:
        return self._before + monotonic() - self._began

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began = monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        if not (math.isfinite(logs["loss"]) and math.isfinite(logs.get("grad_norm", 0.0))):
            raise TrainingError(
                f"the loss is {logs['loss']:g} at step {state.global_step}, its gradient {logs.get('grad_norm'):g}: "
                "lower trl.learning_rate"
            )
        self._on_step(state.global_step, state.max_steps, logs["loss"])

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        mark_whole(Path(str(args.output_dir)), state.global_step, self.seconds)


def _given(recipe: SFTRecipe) -> dict[str, Any]:
    """The recipe's table `[trl]`, once each value is of the type that TRL says."""
    hints = get_type_hints(SFTConfig)
    known = {field.name: hints[field.name] for field in fields(SFTConfig) if field.init}
    if unknown := recipe.trl.keys() - known:
        raise ConfigError(f"recipe: unknown key {'trl.' + min(unknown)!r}: the table takes what TRL's SFTConfig takes")
    for key, value in recipe.trl.items():
        try:
            TypeAdapter(known[key]).validate_python(value, strict=True)
        except ValidationError as error:
            raise ConfigError(f"recipe: trl.{key} = {json.dumps(value)}: {error.errors()[0]['msg']}") from None
    return recipe.trl


def _arguments(given: Mapping[str, Any], folder: Path, *, evaluates: bool) -> SFTConfig:
    ours: dict[str, Any] = {
        "output_dir": str(folder),
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        "completion_only_loss": True,
        "save_strategy": "steps",
        "save_total_limit": 2,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    stops = {
        "eval_strategy": "steps",
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "prediction_loss_only": True,
        "restore_callback_states_from_checkpoint": True,  # How often their loss has not fallen counts on.
    }
    try:
        return SFTConfig(**(ours | (stops if evaluates else {}) | dict(given)))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"recipe: trl: {str(error).splitlines()[0]}") from None


def _check_lengths(rows: Sequence[dict[str, Any]], limit: int | None) -> None:
    lengths = [len(row["input_ids"]) for row in rows]
    if limit is not None and (too_long := sum(length > limit for length in lengths)):
        raise TrainingError(
            f"{too_long} of {len(rows)} samples are longer than trl.max_length = {limit} and would be cut: "
            f"set it to {max(lengths)}, or leave them out"
        )


def _parameters(base_model: Path) -> int:
    count = 0
    for path in base_model.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return count


def _base(folder: Path, *, longest: int) -> PreTrainedModel:
    eager = longest <= EAGER_TOKENS and not torch.cuda.is_available()
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16,
        attn_implementation="eager" if eager else "sdpa",
        local_files_only=True,
        use_safetensors=True,
    )
    return model


def _begun(base: PreTrainedModel, start: Path, recipe: SFTRecipe) -> PeftModel:
    """The adapter in `start`, to go on from."""
    config = LoraConfig.from_pretrained(str(start))
    head = base.get_output_embeddings()  # type: ignore[no-untyped-call]
    linear = [name for name, one in base.named_modules() if isinstance(one, torch.nn.Linear) and one is not head]
    targets = recipe.lora.target_modules
    asked = {name.rpartition(".")[2] for name in linear} if targets == "all-linear" else set(targets)
    if asked != (theirs := set(config.target_modules)):
        raise ConfigError(
            f"{start.name} is on the layers {', '.join(sorted(theirs))}, the recipe says {', '.join(sorted(asked))}: "
            f"add --set 'lora.target_modules={json.dumps(sorted(theirs))}', or start from the base model"
        )
    config.lora_dropout = recipe.lora.dropout
    return PeftModel.from_pretrained(base, str(start), is_trainable=True, config=config)


def _lora(recipe: SFTRecipe, base_model: Path) -> LoraConfig:
    targets = recipe.lora.target_modules
    return LoraConfig(
        r=recipe.lora.r,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_model.name,
    )


def _save(model: PeftModel, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    for path in folder.iterdir():
        if path.suffix == ".md":
            path.unlink()
    # PEFT writes the layers in the order of a set, which changes from process to process, and the digest with it.
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _probe(model: PeftModel, token_ids: list[int]) -> Probe:
    model.eval()
    with model.disable_adapter():
        base = _logprobs(model, token_ids)
    return Probe(token_ids=tuple(token_ids), adapter_logprobs=_logprobs(model, token_ids), base_logprobs=base)


@torch.no_grad()
def _logprobs(model: PeftModel, token_ids: list[int]) -> tuple[float, ...]:
    tokens = torch.tensor([token_ids], device=model.device)
    logprobs = model(input_ids=tokens, use_cache=False).logits[0, :-1].float().log_softmax(dim=-1)
    return tuple(logprobs.gather(1, tokens[0, 1:, None])[:, 0].tolist())
