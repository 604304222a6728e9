"""The part of SFT that needs torch: rows of tokens, TRL's trainer, the finished files and the probe."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from time import monotonic
from typing import Any, cast

import torch
from datasets import Dataset, disable_progress_bars  # type: ignore[import-untyped]
from peft import LoraConfig, PeftModel
from peft.helpers import disable_input_dtype_casting
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.utils.logging import disable_progress_bar
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from journeyman.runtime.adapters.adapter import CONFIG, Probe
from journeyman.traces.errors import ConfigError, TrainingError
from journeyman.training.data.datasets.rendering import load_tokenizer, write_rows
from journeyman.training.data.samples import SFTSample
from journeyman.training.methods.checkpoints import CHECKPOINTS, Checkpoint, mark_whole
from journeyman.training.methods.recipe import OnStep
from journeyman.training.methods.sft import SFTRecipe

PROBE_TOKENS = 96

EAGER_TOKENS = 512
"""Longest row for which attention written out is the faster one on a CPU; its memory grows with the square."""


def fit(
    samples: Sequence[SFTSample],
    recipe: SFTRecipe,
    base_model: Path,
    partial: Path,
    checkpoint: Checkpoint | None,
    on_step: OnStep,
) -> tuple[float, Probe]:
    """Trains in `partial`, from `checkpoint` where there is one, and leaves PEFT's two files in `partial/adapter`.

    Returns the seconds spent in training, those before a kill included, and the probe.
    """
    watch = _Watch(on_step, 0.0 if checkpoint is None else checkpoint.seconds)
    trainer = prepare(samples, recipe, base_model, partial / CHECKPOINTS)
    trainer.add_callback(watch)
    model = trainer.model
    assert isinstance(model, PeftModel)
    # Autocast makes LoRA's float32 weights bfloat16 for each product; PEFT would make the far larger inputs float32.
    with disable_input_dtype_casting(model, active=bool(trainer.args.bf16)):
        trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
    _save(model, partial / "adapter")
    rows = cast(Sequence[dict[str, Any]], trainer.train_dataset)
    return watch.seconds, _probe(model, rows[0]["input_ids"][-PROBE_TOKENS:])


def prepare(
    samples: Sequence[SFTSample], recipe: SFTRecipe, base_model: Path, checkpoints: Path
) -> "CompletionTrainer":
    """A trainer with the samples as rows of tokens and a fresh adapter on the base model."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    disable_progress_bars()
    arguments = _arguments(recipe, checkpoints)
    tokenizer, stops = load_tokenizer(base_model)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    rows = write_rows(samples, tokenizer, stops)
    _check_lengths(rows, arguments)
    trainer = CompletionTrainer(
        model=_base(base_model, longest=max(len(row["input_ids"]) for row in rows)),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        data_collator=WeightCollator(tokenizer.pad_token_id),
        peft_config=_lora(recipe, base_model),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


class CompletionTrainer(SFTTrainer):
    """TRL's trainer with its own loss, computed where there is one: over completions."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
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
        return (losses * weights).sum() / (learned.sum() if num_items_in_batch is None else num_items_in_batch)


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


def _arguments(recipe: SFTRecipe, folder: Path) -> SFTConfig:
    known = {field.name for field in fields(SFTConfig) if field.init}
    if unknown := set(recipe.trl) - known:
        raise ConfigError(f"recipe: unknown key {'trl.' + min(unknown)!r}: the table takes what TRL's SFTConfig takes")
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
    try:
        return SFTConfig(**(ours | recipe.trl))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"recipe: trl: {str(error).splitlines()[0]}") from None


def _check_lengths(rows: Sequence[dict[str, Any]], arguments: SFTConfig) -> None:
    limit = arguments.max_length
    lengths = [len(row["input_ids"]) for row in rows]
    if limit is not None and (too_long := sum(length > limit for length in lengths)):
        raise TrainingError(
            f"{too_long} of {len(rows)} samples are longer than trl.max_length = {limit} and would be cut: "
            f"set it to {max(lengths)}, or leave them out"
        )


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
