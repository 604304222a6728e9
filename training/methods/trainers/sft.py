"""SFT through TRL's SFTTrainer, with its own loss, computed where there is one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch.func import functional_call
from torch.nn.functional import cross_entropy, log_softmax
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from journeyman.training.data.samples import SFTSample
from journeyman.training.methods.rows import write_rows
from journeyman.training.methods.sft import SFTRecipe
from journeyman.training.methods.trainers.packing import check_separates, pack
from journeyman.training.methods.trainers.skeleton import Row, Rows, TRLMethod

READ = ("input_ids", "attention_mask", "position_ids")
"""What of a batch the model reads."""


class SFT(TRLMethod[SFTSample, SFTRecipe]):
    """Completions of one agent are imitated."""

    config = SFTConfig
    ours = {"completion_only_loss": True}  # noqa: RUF012

    def rows(
        self, samples: Sequence[SFTSample], recipe: SFTRecipe, tokenizer: PreTrainedTokenizerBase, stops: frozenset[int]
    ) -> list[Row]:
        return write_rows(samples, tokenizer, stops)

    def tokens(self, row: Row) -> list[int]:
        ids: list[int] = row["input_ids"]
        return ids

    def batched(self, learned: list[Row], recipe: SFTRecipe) -> list[Row]:
        return pack(learned, cast("int | None", recipe.trl.get("max_length"))) if recipe.trl.get("packing") else learned

    def base(self, folder: Path, recipe: SFTRecipe, longest: int) -> PreTrainedModel:
        model = super().base(folder, recipe, longest)
        if recipe.trl.get("packing"):
            check_separates(model)
        return model

    def arguments(self, rows: Rows, recipe: SFTRecipe, folder: Path) -> Any:
        arguments = super().arguments(rows, recipe, folder)
        arguments.packing = False  # TRL's would leave the weights behind: rows are packed when they come.
        return arguments

    def trainer(self, rows: Rows, recipe: SFTRecipe, **given: Any) -> Trainer:
        collator = WeightCollator(rows.tokenizer.pad_token_id)
        return CompletionTrainer(kl=recipe.guard.kl, data_collator=collator, **given)


class CompletionTrainer(SFTTrainer):
    """TRL's trainer with its own loss, computed where there is one: over completions."""

    def __init__(self, *, kl: float = 0.0, **given: Any) -> None:
        """`kl` is the recipe's `guard.kl`."""
        super().__init__(**given)
        self._kl = kl
        backbone = self._base(self.model).base_model
        trained = ((name, weights) for name, weights in backbone.named_parameters() if weights.requires_grad)
        self._start = {name: weights.detach().clone() for name, weights in trained} if kl else {}
        """The adapter's weights as training starts, whatever checkpoint it goes on from."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Mean negative log-likelihood of the batch's completion tokens, each times its row's weight.

        In training the KL to where it started is added, times `guard.kl`. Without a GPU, TRL projects every token on
        the vocabulary, which for short completions is half of all the work.
        """
        labels = inputs["labels"][:, 1:]
        learned = labels != -100
        read: dict[str, torch.Tensor] = {key: inputs[key] for key in READ if key in inputs}
        with self.accelerator.autocast():
            base = self._base(model)
            if self.accelerator.num_processes == 1:
                states = base.base_model(**read, use_cache=False).last_hidden_state
            else:  # Gradients of several processes meet only where the wrapped model was called.
                shown: Any = model(**read, use_cache=False, logits_to_keep=1, output_hidden_states=True)
                states = shown.hidden_states[-1]
            logits = base.get_output_embeddings()(states[:, :-1][learned])
        losses = cross_entropy(logits.float(), labels[learned], reduction="none")
        tokens = learned.sum() if num_items_in_batch is None else num_items_in_batch
        loss = (losses * _weights(inputs["weight"], labels)[learned]).sum() / tokens
        if self._kl and model.training:
            kl = self._to_start(base, read, logits, learned)
            self._metrics["train"]["kl"].append(kl.mean().item())
            loss = loss + self._kl * kl.sum() / tokens
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # Those of all are counted, and gradients are averaged.
        return (loss, {"loss": loss}) if return_outputs else loss

    def _to_start(
        self, base: PreTrainedModel, read: Mapping[str, torch.Tensor], logits: torch.Tensor, learned: torch.Tensor
    ) -> torch.Tensor:
        """KL(learner ‖ where it started) at each completion token, over all the vocabulary, in nats."""
        backbone = base.base_model
        backbone.eval()  # The start is neither dropped out nor noised.
        with torch.no_grad(), self.accelerator.autocast():
            states = functional_call(backbone, self._start, (), {**read, "use_cache": False}).last_hidden_state
            start = base.get_output_embeddings()(states[:, :-1][learned])  # type: ignore[no-untyped-call]
        backbone.train()
        ours, theirs = log_softmax(logits.float(), dim=-1), log_softmax(start.float(), dim=-1)
        return (ours.exp() * (ours - theirs)).sum(dim=-1)

    def _base(self, model: Any) -> Any:
        """The causal language model within; of all weights it is the whole."""
        whole: Any = self.accelerator.unwrap_model(model)
        return whole.get_base_model() if isinstance(whole, PeftModel) else whole


class WeightCollator(DataCollatorForLanguageModeling):
    """Each row's weight travels beside its tokens. Packs are computed without padding."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        self.padding_free = "seq_lengths" in examples[0]
        batch: dict[str, Any] = super().torch_call(examples)
        weights = [torch.tensor(example["weight"]) for example in examples]
        batch["weight"] = torch.cat(weights)[None] if self.padding_free else torch.stack(weights)
        return batch


def _weights(weights: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """One a token that is learned: of packs there is one a token already, else one a row."""
    return weights[:, 1:] if weights.dim() == 2 else weights.unsqueeze(1).expand_as(labels)
