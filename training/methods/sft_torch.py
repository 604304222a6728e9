"""The part of SFT that needs torch: rows of tokens, TRL's trainer, the finished files and the probe."""

import json
import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, cast

import torch
from datasets import Dataset, disable_progress_bars  # type: ignore[import-untyped]
from jinja2 import TemplateError
from peft import LoraConfig, PeftModel
from peft.helpers import disable_input_dtype_casting
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
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
from journeyman.traces.messages import Message, chat_message, chat_tool
from journeyman.training.data.samples import SFTSample
from journeyman.training.methods.checkpoints import CHECKPOINTS, Checkpoint, mark_whole
from journeyman.training.methods.recipe import OnStep
from journeyman.training.methods.sft import SFTRecipe

PROBE_TOKENS = 96

MARK = "journeyman's reply"
"""Stands for a reply where it is asked what a template writes around one."""

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
    tokenizer = AutoTokenizer.from_pretrained(base_model, local_files_only=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    rows = write_rows(samples, tokenizer, _stops(base_model, tokenizer))
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


def write_rows(
    samples: Sequence[SFTSample], tokenizer: PreTrainedTokenizerBase, stops: frozenset[int]
) -> list[dict[str, Any]]:
    """Samples as tokens; `stops` are those at which a server ends a reply.

    Raises `TrainingError` where the model's template can't write a sample as a server would.
    """
    rows, unwritable = [], Counter[str]()
    frame = _frame(tokenizer, stops)
    for sample in samples:
        try:
            rows.append(_row(sample, tokenizer, frame))
        except (TemplateError, _UnwritableError) as error:
            unwritable[str(error).splitlines()[0]] += 1
    if unwritable:
        reason, count = unwritable.most_common(1)[0]
        raise TrainingError(
            f"the base model's chat template can't write {unwritable.total()} of {len(samples)} samples "
            f"({count}: {reason}): leave them out, or train a model whose template can"
        )
    return rows


class _Frame(NamedTuple):
    """What a template writes around the text of a reply."""

    before: str
    """Such as an empty thought: it stands in a history, and no model learns to begin with it."""
    end: int
    """The token that ends a turn, which need not be the tokenizer's own end."""
    stops: frozenset[int]


def _stops(base_model: Path, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens at which vLLM ends a reply of the model: the tokenizer's own, and those of its generation config."""
    path = base_model / "generation_config.json"
    named = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.exists() else None
    more = named if isinstance(named, list) else [named]
    return frozenset(token for token in (tokenizer.eos_token_id, *more) if isinstance(token, int))


def _frame(tokenizer: PreTrainedTokenizerBase, stops: frozenset[int]) -> _Frame:
    bare = _Frame("", cast(int, tokenizer.eos_token_id), stops)
    if tokenizer.chat_template is None:
        return bare
    asked = Message(role="user", content="question")
    try:
        prompt = _shown(tokenizer, (asked,), None, True)
        whole = _shown(tokenizer, (asked, Message(role="assistant", content=MARK)), None, False)
    except TemplateError:
        return bare
    before, mark, after = whole.removeprefix(prompt).partition(MARK)
    if not mark or not whole.startswith(prompt):
        return bare
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    return _Frame(before, next((token for token in ids if token in stops), bare.end), stops)


class _UnwritableError(Exception):
    """Why a template can't write a demonstration."""


def _row(sample: SFTSample, tokenizer: PreTrainedTokenizerBase, frame: _Frame) -> dict[str, Any]:
    """Token ids, a mask that is 1 on what is learned, and the weight; the server's own ids are taken as they are."""
    if sample.prompt_token_ids and sample.token_ids:
        prompt, completion = list(sample.prompt_token_ids), list(sample.token_ids)
    else:
        prompt = write_prompt(sample, tokenizer)
        completion = (_called if sample.tool_calls else _said)(sample, tokenizer, frame)
    return {
        "input_ids": prompt + completion,
        "completion_mask": [0] * len(prompt) + [1] * len(completion),
        "weight": sample.weight,
    }


def _said(sample: SFTSample, tokenizer: PreTrainedTokenizerBase, frame: _Frame) -> list[int]:
    return [*tokenizer(sample.completion, add_special_tokens=False)["input_ids"], frame.end]


def _called(sample: SFTSample, tokenizer: PreTrainedTokenizerBase, frame: _Frame) -> list[int]:
    """What the template writes for a reply with calls, to the end of the turn."""
    reply = Message(role="assistant", content=sample.completion, tool_calls=sample.tool_calls or ())
    mute = reply.model_copy(update={"tool_calls": ()})
    prompt = _shown(tokenizer, sample.messages, sample.tools, True)
    whole, without = (_shown(tokenizer, (*sample.messages, one), sample.tools, False) for one in (reply, mute))
    if whole == without:
        raise _UnwritableError("it leaves tool calls out")
    written = whole.removeprefix(prompt).removeprefix(frame.before)
    ids: list[int] = tokenizer(written, add_special_tokens=False)["input_ids"]
    ends = [place for place, token in enumerate(ids) if token in frame.stops]
    if not whole.startswith(prompt) or not ends:
        raise _UnwritableError("a reply with calls doesn't follow on the prompt")
    return ids[: ends[-1] + 1]


def write_prompt(sample: SFTSample, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of a demonstration's prompt: those that a server of the model makes of the same messages and tools."""
    if tokenizer.chat_template is None:
        raise ConfigError("the base model has no chat template, so demonstrations can't be turned into prompts")
    ids = tokenizer.apply_chat_template(
        _chat(sample.messages), tools=_functions(sample.tools), add_generation_prompt=True, return_dict=False
    )
    return cast(list[int], ids)


def _shown(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None,
    replies: bool,
) -> str:
    chat, functions = _chat(messages), _functions(tools)
    text = tokenizer.apply_chat_template(chat, tools=functions, add_generation_prompt=replies, tokenize=False)
    return cast(str, text)


def _chat(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [chat_message(message, parsed=True) for message in messages]


def _functions(tools: Sequence[Mapping[str, Any]] | None) -> list[Any] | None:
    return None if tools is None else [chat_tool(tool) for tool in tools]


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
