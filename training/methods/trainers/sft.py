"""SFT through TRL's SFTTrainer, with its own loss, computed where there is one."""

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase, Trainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from journeyman.training.data.samples import SFTSample
from journeyman.training.methods.rows import write_rows
from journeyman.training.methods.sft import SFTRecipe
from journeyman.training.methods.trainers.skeleton import Row, Rows, TRLMethod


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

    def trainer(self, rows: Rows, recipe: SFTRecipe, **given: Any) -> Trainer:
        return CompletionTrainer(data_collator=WeightCollator(rows.tokenizer.pad_token_id), **given)


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
            whole: Any = self.accelerator.unwrap_model(model)
            base: Any = whole.get_base_model() if isinstance(whole, PeftModel) else whole
            shown = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "use_cache": False}
            if self.accelerator.num_processes == 1:
                states = base.base_model(**shown).last_hidden_state
            else:  # Gradients of several processes meet only where the wrapped model was called.
                states = model(**shown, logits_to_keep=1, output_hidden_states=True).hidden_states[-1]
            logits = base.get_output_embeddings()(states[:, :-1][learned])
        losses = cross_entropy(logits.float(), labels[learned], reduction="none")
        weights = inputs["weight"].unsqueeze(1).expand_as(labels)[learned]
        loss = (losses * weights).sum() / (learned.sum() if num_items_in_batch is None else num_items_in_batch)
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # Those of all are counted, and gradients are averaged.
        return (loss, {"loss": loss}) if return_outputs else loss


class WeightCollator(DataCollatorForLanguageModeling):
    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        batch["weight"] = torch.tensor([example["weight"] for example in examples])
        return batch
