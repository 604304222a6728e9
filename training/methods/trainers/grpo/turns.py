"""TRL's GRPOTrainer for turns that a crew's server sampled: TRL's loss, and nothing of its generation."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import inf
from typing import Any, NamedTuple, cast

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.kernels import ChunkedLogProbFunction
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import pad, use_adapter

from journeyman.training.methods.trainers.grpo.shared import shares, together
from journeyman.training.rollouts.rows import TurnRow

Batch = dict[str, Any]
"""Rows that are computed in one piece, as TRL's loss takes them; all but `advantages` of shape (rows, tokens)."""

PIECE_TOKENS = 4096
"""Tokens of a piece, padding included, where the recipe gives no number of rows."""
CHUNK = 32768
"""Words of the vocabulary that are projected at once."""
SCALED = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
"""Keys of models whose logits aren't the output layer's alone."""
FORCED = -1e-6
"""Logprobs from here on are of tokens that the server had no choice at: a schema forbade all others, or the weights
were certain. What is sampled so has no gradient, and its ratio would tell of the schema alone."""
CUT = 2.0
"""Ratios count as at most that in their mean, or one token would decide it."""


class Update(NamedTuple):
    """What an optimiser step came to. Means are over the tokens of replies."""

    loss: float
    grad_norm: float
    learning_rate: float
    kl: float | None
    entropy: float
    clip_share: float
    ratio_mean: float
    ratio_truncated: float


class TurnTrainer(GRPOTrainer):
    """TRL's trainer whose loss is computed on rows of ours, one optimiser step at a call."""

    # They are there once `begin` was called; transformers says that they may be missing.
    model: Any
    args: Any
    optimizer: Any
    lr_scheduler: Any
    pad_to_multiple_of: Any

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        args: GRPOConfig,
        tokenizer: PreTrainedTokenizerBase,
        peft_config: LoraConfig | None = None,
        *,
        steps: int,
    ) -> None:
        """`steps` are the optimiser steps in all, which a schedule of the rate is stretched over."""
        super().__init__(
            model=model,
            reward_funcs=cast("Any", _scored_before),
            args=args,
            train_dataset=Dataset.from_list([{"prompt": ""}]),
            processing_class=tokenizer,
            peft_config=peft_config,
        )
        self.use_vllm = True  # Set after TRL's start, which would look for a server: the loss reads ratios then.
        text = self.model.config.get_text_config()
        self._shares = shares(self.accelerator.unwrap_model(self.model).get_base_model())
        self._whole = torch.cuda.is_available() or any(getattr(text, name, None) is not None for name in SCALED)
        self._learning: Batch | None = None
        self._steps = steps

    def begin(self, checkpoint: str | None) -> None:
        """Makes optimiser and schedule, and takes weights, their state and the dice from `checkpoint`."""
        if checkpoint is not None:
            self._load_from_checkpoint(checkpoint)
        self._prepare_for_training(self._steps * self.num_iterations, None, checkpoint)  # type: ignore[no-untyped-call]
        self._load_rng_state(checkpoint)

    def batches(self, rows: Sequence[TurnRow], piece: int | None) -> list[Batch]:
        """Rows in pieces of like lengths, of `piece` rows or of `PIECE_TOKENS`, with the reference's logprobs."""
        tokens = sum(map(_chosen, rows))
        pieces = list(_pieces(_ordered(rows), piece))
        return [self._batch(part, rows, tokens, len(pieces)) for part in pieces]

    def update(self, batches: Sequence[Batch]) -> Update:
        """One optimiser step over all of `batches`. Nothing is changed where its gradient isn't finite."""
        self.current_gradient_accumulation_steps = self.args.steps_per_generation = len(batches)
        self._metrics["train"].clear()
        loss = 0.0
        for number, batch in enumerate(batches, 1):
            self.accelerator.gradient_state._set_sync_gradients(number == len(batches))
            loss += float(self.training_step(self.model_wrapped, batch, None))  # type: ignore[no-untyped-call]
        limit = self.args.max_grad_norm or inf
        norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), limit))
        rate = self.optimizer.param_groups[0]["lr"]
        if norm < inf and loss == loss:
            self.optimizer.step()
            self.lr_scheduler.step()
        self.model_wrapped.zero_grad()
        return Update(loss, norm, rate, **self._measured(batches))

    def lower(self, factor: float) -> None:
        """Multiplies the learning rate, now and in what is left of its schedule."""
        for group in self.optimizer.param_groups:
            group["lr"] *= factor
            group["initial_lr"] *= factor
        self.lr_scheduler.base_lrs = [rate * factor for rate in self.lr_scheduler.base_lrs]

    def logprobs(self, batch: Batch) -> torch.Tensor:
        """Of the replies' tokens under the policy as it is, of shape (rows, tokens); 0 where a row has none."""
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        keep = batch["completion_ids"].size(1)
        with torch.no_grad(), disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            logprobs: torch.Tensor = self._get_per_token_logps_and_entropies(self.model, ids, mask, keep)[0]
        return logprobs

    def _batch(self, part: Sequence[TurnRow], rows: Sequence[TurnRow], tokens: int, pieces: int) -> Batch:
        def padded(values: Sequence[torch.Tensor], value: int, side: str) -> torch.Tensor:
            return pad(list(values), value, side, self.pad_to_multiple_of).to(self.accelerator.device)

        fill = self._tokenizer.pad_token_id
        prompts = [torch.tensor(row.prompt_ids) for row in part]
        replies = [torch.tensor(row.completion_ids) for row in part]
        sampled = padded([torch.tensor(row.old_logprobs) for row in part], 0, "right")
        mine = sum(map(_chosen, part))
        batch: Batch = {
            "prompt_ids": padded(prompts, fill, "left"),
            "prompt_mask": padded([torch.ones_like(ids) for ids in prompts], 0, "left"),
            "completion_ids": padded(replies, fill, "right"),
            "completion_mask": padded([torch.ones_like(ids) for ids in replies], 0, "right"),
            "tool_mask": (sampled < FORCED).long(),  # What TRL learns of; tokens of tools are left out so.
            "sampling_per_token_logps": sampled,
            "advantages": torch.tensor([row.advantage * row.weight for row in part], device=self.accelerator.device),
            "num_items_in_batch": torch.tensor(float(max(tokens, 1)), device=self.accelerator.device),
            "share": pieces * (mine / max(tokens, 1) if self.loss_type == "bnpo" else len(part) / len(rows)),
        }
        if self.beta != 0.0:
            model = self.accelerator.unwrap_model(self.model)
            with use_adapter(model, "ref" if "ref" in model.peft_config else None):
                batch["ref_per_token_logps"] = self.logprobs(batch)
        return batch

    def _prepare_inputs(self, generation_batch: Batch) -> Batch:
        """Rows are sampled and scored already."""
        return generation_batch

    def _compute_loss(self, model: torch.nn.Module, inputs: Batch) -> torch.Tensor:
        """TRL's own. Of the losses that are a mean over a piece, a small piece counts for less."""
        self._learning = inputs
        try:
            loss: torch.Tensor = super()._compute_loss(model, inputs)  # type: ignore[no-untyped-call]
        finally:
            self._learning = None
        return loss if self.loss_type in ("cispo", "dapo", "vespo") else loss * inputs["share"]

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **images: Any,
    ) -> Any:
        """TRL's, and from the first pass over a batch what the loss weighs its tokens by.

        TRL makes a pass of its own for that, with the same weights.
        """
        if self._whole or compute_aux_loss:
            scored = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss
            )
        else:
            scored = self._replies(model, input_ids, attention_mask, logits_to_keep)
        if self._learning is not None and "old_per_token_logps" not in self._learning:
            self._learning["old_per_token_logps"] = scored[0].detach()
            self._learning["importance_sampling_ratio"] = self._ratio(self._learning)
        return scored

    def _replies(
        self, model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor, keep: int
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Logprobs and entropies of the last `keep` tokens. Without a GPU, TRL projects the prompt's as well, and reads
        it again for each row that has it."""
        base = self.accelerator.unwrap_model(model).get_base_model()
        learned = mask[:, -keep:].bool()
        with self.accelerator.autocast():
            if self._shares and (shared := together(ids, mask, keep)) is not None:
                states = base.base_model(
                    input_ids=shared.ids, attention_mask=shared.mask, position_ids=shared.positions, use_cache=False
                ).last_hidden_state[shared.sequence, shared.before]
            else:
                states = base.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
                states = states[:, -keep - 1 : -1][learned]
            head = base.get_output_embeddings()
            given = (states, head.weight, head.bias, ids[:, -keep:][learned])
            scored = ChunkedLogProbFunction.apply(  # type: ignore[no-untyped-call]
                *given, 1.0, CHUNK, None, 1.0, ("log_probs", "entropy")
            )
        logprobs, entropies = (one.new_zeros(learned.shape).masked_scatter(learned, one) for one in scored[:2])
        return logprobs, entropies, None

    def _ratio(self, batch: Batch) -> torch.Tensor:
        """Probability of each token in the trainer over that in the server, truncated or masked as TRL would.

        Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training". Of shape (rows,
        tokens), or (rows, 1) for the modes of whole sequences.
        """
        mask = batch["completion_mask"] * batch["tool_mask"]
        apart = torch.nan_to_num((batch["old_per_token_logps"] - batch["sampling_per_token_logps"]) * mask, nan=0.0)
        sequences = self.vllm_importance_sampling_mode.startswith("sequence")
        ratio = torch.exp(apart.sum(dim=-1, keepdim=True) if sequences else apart)
        least, most = self.vllm_importance_sampling_clip_min, self.vllm_importance_sampling_clip_max
        least, most = -inf if least is None else least, inf if most is None else most
        beyond = (ratio < least) | (ratio > most)
        learned = mask.sum().clamp(min=1)
        batch["ratio_mean"] = float((torch.exp(apart).clamp(max=CUT) * mask).sum() / learned)
        batch["ratio_truncated"] = float((beyond * mask).sum() / learned)
        if self.vllm_importance_sampling_mode.endswith("mask"):
            return ratio.masked_fill(beyond, 0.0)
        return ratio.clamp(min=least, max=most)

    def _measured(self, batches: Sequence[Batch]) -> dict[str, Any]:
        """What TRL measured of each batch and we of its ratios, as means over tokens."""
        tokens = [float((batch["completion_mask"] * batch["tool_mask"]).sum()) for batch in batches]

        def mean(values: Sequence[float]) -> float:
            return sum(value * weight for value, weight in zip(values, tokens, strict=True)) / max(sum(tokens), 1.0)

        told = self._metrics["train"]
        clipped = told.get("clip_ratio/region_mean") or told.get("cispo_clip_ratio")
        return {
            "kl": mean(told["kl"]) if self.beta != 0.0 else None,
            "entropy": mean(told["entropy"]),
            "clip_share": mean(clipped) if clipped else 0.0,
            "ratio_mean": mean([batch["ratio_mean"] for batch in batches]),
            "ratio_truncated": mean([batch["ratio_truncated"] for batch in batches]),
        }

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The adapter that learns, without the reference: transformers would take up that one's weights instead."""
        assert isinstance(self.model, PeftModel)
        self.model.save_pretrained(str(output_dir or self.args.output_dir), selected_adapters=["default"])


def _chosen(row: TurnRow) -> int:
    """Tokens of the reply at which there was a choice."""
    return sum(logprob < FORCED for logprob in row.old_logprobs)


def _length(row: TurnRow) -> int:
    return len(row.prompt_ids) + len(row.completion_ids)


def _ordered(rows: Sequence[TurnRow]) -> list[TurnRow]:
    """By length, rows of one prompt side by side: they are read together."""
    longest: dict[tuple[int, ...], int] = defaultdict(int)
    for row in rows:
        longest[row.prompt_ids] = max(longest[row.prompt_ids], _length(row))
    return sorted(rows, key=lambda row: (longest[row.prompt_ids], row.prompt_ids, _length(row)))


def _pieces(rows: Sequence[TurnRow], piece: int | None) -> Iterator[list[TurnRow]]:
    """In their order; each row is padded to the longest of its piece."""
    part: list[TurnRow] = []
    for row in rows:
        longest = max(map(_length, [*part, row]))
        full = len(part) >= piece if piece is not None else (len(part) + 1) * longest > PIECE_TOKENS
        if part and full:
            yield part
            part = []
        part.append(row)
    yield part


def _scored_before(**rows: Any) -> list[float]:
    raise AssertionError("rows come with their advantages")
