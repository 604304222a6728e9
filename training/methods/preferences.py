"""What the methods that learn from preferences share: where they start, how fast they go, what they leave to us."""

from typing import ClassVar, Self

from pydantic import model_validator

from journeyman.training.methods.recipe import Pace, TRLRecipe

PACE = Pace(
    rate=0.1,
    why="; a tenth of SFT's, for a policy that can do its work already",
    epochs=(1, 3),
    sequences=2,
)

RESERVED = {
    "precompute_ref_log_probs": "the reference doesn't change, and is computed once, before the first step",
    "sync_ref_model": "the reference is the policy that training starts from",
    "ref_model_mixup_alpha": "the reference is the policy that training starts from",
    "ref_model_sync_steps": "the reference is the policy that training starts from",
    "pad_token": "it is the tokenizer's",
    "remove_unused_columns": "a row's weight travels beside its tokens",
}


class PreferenceRecipe(TRLRecipe):
    """A recipe whose reference is the policy that training starts from: by default the one in service."""

    starts_in_service: ClassVar = True

    @model_validator(mode="after")
    def _dropout_happens(self) -> Self:
        if self.lora.dropout and self.trl.get("disable_dropout", True):
            raise ValueError(
                "lora.dropout does nothing here, since TRL turns it off for preferences: "
                "leave it out, or set trl.disable_dropout to false"
            )
        return self
