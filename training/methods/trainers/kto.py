"""KTO through TRL's KTOTrainer: single replies, each good or bad."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from transformers import PreTrainedTokenizerBase, Trainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer

from journeyman.training.data.samples import KTOSample
from journeyman.training.methods.recipes.kto import KTORecipe
from journeyman.training.methods.rows import Writer, write_rows
from journeyman.training.methods.trainers.preferences import PreferenceTrainer
from journeyman.training.methods.trainers.skeleton import Row, Rows, TRLMethod


class KTO(TRLMethod[KTOSample, KTORecipe]):
    """Good replies become more likely than they were, bad ones less."""

    config = KTOConfig
    ours = {"precompute_ref_log_probs": True}  # noqa: RUF012
    kept = ("rewards/margins", "kl")

    def rows(
        self, samples: Sequence[KTOSample], recipe: KTORecipe, tokenizer: PreTrainedTokenizerBase, stops: frozenset[int]
    ) -> list[Row]:
        return write_rows(samples, tokenizer, stops, reply_row)

    def tokens(self, row: Row) -> list[int]:
        return [*row["prompt_ids"], *row["completion_ids"]]

    def trainer(self, rows: Rows, recipe: KTORecipe, **given: Any) -> Trainer:
        return ReplyTrainer(data_collator=ReplyCollator(rows.tokenizer.pad_token_id, rows.longest), **given)


def reply_row(sample: KTOSample, writer: Writer) -> Row:
    return {
        "prompt_ids": writer.prompt(sample),
        "completion_ids": writer.reply(sample, sample),
        "label": sample.label,
        "weight": sample.weight,
    }


class ReplyTrainer(PreferenceTrainer, KTOTrainer):
    """TRL's trainer and loss, for rows that are tokens already."""

    references: ClassVar = ("ref_logps", "ref_KL_logps")

    def _prepare_dataset(self, dataset: Dataset, tokenizer: Any, args: KTOConfig, name: str) -> Dataset:
        """The rows in the order in which all epochs take them, each with the reply of its neighbour in the batch, from
        which TRL estimates the KL."""
        rows = dataset.shuffle(seed=args.seed).flatten_indices()
        if not self.calculate_KL:
            return rows
        replies, size = rows["completion_ids"][:], args.per_device_train_batch_size
        batches = (replies[first : first + size] for first in range(0, len(replies), size))
        others = [reply for batch in batches for reply in (batch[-1], *batch[:-1])]
        return rows.add_column("KL_completion_ids", others)


class ReplyCollator(DataCollatorForUnpairedPreference):
    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        batch["weight"] = torch.tensor([example["weight"] for example in examples])
        return batch
