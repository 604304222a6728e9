"""DPO through TRL's DPOTrainer: of two replies to one prompt, the better one."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from transformers import PreTrainedTokenizerBase, Trainer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

from journeyman.training.data.samples import PreferenceSample
from journeyman.training.methods.recipes.dpo import DPORecipe
from journeyman.training.methods.rows import UnwritableError, Writer, write_rows
from journeyman.training.methods.trainers.preferences import PreferenceTrainer
from journeyman.training.methods.trainers.skeleton import Row, Rows, TRLMethod


class DPO(TRLMethod[PreferenceSample, DPORecipe]):
    """The better of two replies becomes more likely than it was, beside the other one."""

    config = DPOConfig
    ours = {"precompute_ref_log_probs": True}  # noqa: RUF012
    kept = ("rewards/margins", "rewards/accuracies", "kl")

    def rows(
        self,
        samples: Sequence[PreferenceSample],
        recipe: DPORecipe,
        tokenizer: PreTrainedTokenizerBase,
        stops: frozenset[int],
    ) -> list[Row]:
        return write_rows(samples, tokenizer, stops, pair_row)

    def tokens(self, row: Row) -> list[int]:
        longer: list[int] = max(row["chosen_ids"], row["rejected_ids"], key=len)
        return [*row["prompt_ids"], *longer]

    def trainer(self, rows: Rows, recipe: DPORecipe, **given: Any) -> Trainer:
        return PairTrainer(data_collator=PairCollator(rows.tokenizer.pad_token_id), **given)


def pair_row(sample: PreferenceSample, writer: Writer) -> Row:
    chosen, rejected = (writer.reply(sample, side) for side in (sample.chosen, sample.rejected))
    if chosen == rejected:
        raise UnwritableError("both sides of the pair are the same tokens")
    return {
        "prompt_ids": writer.prompt(sample),
        "chosen_ids": chosen,
        "rejected_ids": rejected,
        "weight": sample.weight,
    }


class PairTrainer(PreferenceTrainer, DPOTrainer):
    """TRL's trainer and loss, for rows that are tokens already."""

    references: ClassVar = ("ref_chosen_logps", "ref_rejected_logps")

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], return_outputs: bool) -> Any:
        loss = super()._compute_loss(model, inputs, return_outputs)  # type: ignore[no-untyped-call]
        metrics = self._metrics["train" if model.training else "eval"]
        ratios = (metrics["rewards/chosen"][-1] + metrics["rewards/rejected"][-1]) / (2 * self.beta)
        # KL(reference || policy) of a reply, in nats: its estimate where the reference sampled the pairs.
        metrics["kl"].append(-ratios)
        return loss


class PairCollator(DataCollatorForPreference):
    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        batch["weight"] = torch.tensor([example["weight"] for example in examples]).repeat(2)
        return batch
