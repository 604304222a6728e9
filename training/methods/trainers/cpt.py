"""Continued pre-training through TRL's SFTTrainer: text, every token of it, and a look at whether instructions still
work."""

from collections.abc import Sequence
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from trl.trainer.sft_config import SFTConfig

from journeyman.training.data.samples import DocumentSample
from journeyman.training.methods.recipes.cpt import CPTRecipe
from journeyman.training.methods.trainers.instructions import followed
from journeyman.training.methods.trainers.sft import CompletionTrainer, WeightCollator
from journeyman.training.methods.trainers.skeleton import Row, Rows, TRLMethod


class CPT(TRLMethod[DocumentSample, CPTRecipe]):
    """Text becomes more likely."""

    config = SFTConfig
    ours = {"completion_only_loss": True}  # noqa: RUF012

    def rows(
        self,
        samples: Sequence[DocumentSample],
        recipe: CPTRecipe,
        tokenizer: PreTrainedTokenizerBase,
        stops: frozenset[int],
    ) -> list[Row]:
        """No token ends a row: its text goes on in the next, and a chat's end of turn has no business in it."""
        texts = [tokenizer(sample.text)["input_ids"] for sample in samples]
        return [
            {"input_ids": ids, "completion_mask": [1] * len(ids), "weight": sample.weight}
            for ids, sample in zip(texts, samples, strict=True)
        ]

    def tokens(self, row: Row) -> list[int]:
        ids: list[int] = row["input_ids"]
        return ids

    def trainer(self, rows: Rows, recipe: CPTRecipe, **given: Any) -> Trainer:
        return CompletionTrainer(data_collator=WeightCollator(rows.tokenizer.pad_token_id), **given)

    def measure(self, model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
        return {} if tokenizer.chat_template is None else {"instructions": followed(model, tokenizer)}
