"""KTO: single replies, each good or bad, through TRL's KTOTrainer. `trainers/kto.py` has the rows and the loss."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import JsonValue, field_validator

from journeyman.traces.errors import TrainingError
from journeyman.training.data.samples import KTOSample
from journeyman.training.methods.dpo import PACE, REFERENCE_KEYS, PreferenceRecipe
from journeyman.training.methods.recipe import Rule

WEIGHTS = ("desirable_weight", "undesirable_weight")


class KTORecipe(PreferenceRecipe):
    """How KTO trains an adapter: the recipe `kto` of the package, or a file that `journeyman train --recipe` names."""

    trainer: ClassVar = "journeyman.training.methods.trainers.kto:KTO"
    learns_from: ClassVar = KTOSample
    pace: ClassVar = PACE._replace(piece=2)  # The KL is estimated from the other replies of the piece.
    reserved: ClassVar = {
        **REFERENCE_KEYS,
        "train_sampling_strategy": "rows are shuffled once, and keep the batch in which their KL is estimated",
    }
    allowed: ClassVar = {"loss_type": ("kto", "apo_zero_unpaired")}

    method: Literal["kto"] = "kto"
    """How the adapter learns."""

    @field_validator("trl")
    @classmethod
    def _several_rows(cls, values: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if values.get("per_device_train_batch_size") == 1 and values.get("loss_type", "kto") == "kto":
            raise ValueError(
                "per_device_train_batch_size is 1: KTO estimates its KL from the other rows; write 2 or more"
            )
        return values

    def rules(self, samples: Sequence[Any]) -> Sequence[Rule]:
        good = sum(sample.label for sample in samples)
        bad = len(samples) - good
        if not good or not bad:
            raise TrainingError(
                f"all {len(samples)} replies to learn from are {'good' if good else 'bad'}, and KTO needs both: "
                "mine more, or train with recipe sft"
            )
        if any(key in self.trl for key in WEIGHTS):
            return ()
        why = f"{good} good and {bad} bad replies: both sides weigh alike (arXiv 2402.01306, equation 8)"
        weights = (max(1.0, bad / good), max(1.0, good / bad))
        return [(key, round(weight, 4), why) for key, weight in zip(WEIGHTS, weights, strict=True)]
