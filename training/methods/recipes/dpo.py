"""DPO: of two replies the better one, through TRL's DPOTrainer. `trainers/dpo.py` has the rows and the loss."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from journeyman.training.data.samples import PreferenceSample
from journeyman.training.methods.recipe import Pace, Rule, TRLRecipe

PACE = Pace(
    rate=0.1,
    why="; a tenth of SFT's, for a policy that can do its work already",
    epochs=(1, 3),
    sequences=2,
)

REFERENCE_KEYS = {
    "precompute_ref_log_probs": "the reference doesn't change, and is computed once, before the first step",
    "sync_ref_model": "the reference is the policy that training starts from",
    "ref_model_mixup_alpha": "the reference is the policy that training starts from",
    "ref_model_sync_steps": "the reference is the policy that training starts from",
    "pad_token": "it is the tokenizer's",
}
"""Keys of `[trl]` that no recipe of preferences may set, and why."""

SFT_WEIGHT = 0.2
"""Of the likelihood of chosen replies beside DPO's loss: that of Llama 3 (arXiv 2407.21783, section 4.1.4)."""

LOSSES = (
    "sigmoid",
    "sigmoid_norm",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
)
"""TRL's, without those that sort the rows of a batch, where a row can't have a weight."""


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


class DPORecipe(PreferenceRecipe):
    """How DPO trains an adapter: the recipe `dpo` of the package, or a file that `journeyman train --recipe` names."""

    trainer: ClassVar = "journeyman.training.methods.trainers.dpo:DPO"
    learns_from: ClassVar = PreferenceSample
    pace: ClassVar = PACE
    reserved: ClassVar = {
        **REFERENCE_KEYS,
        "padding_free": "TRL has no such form of DPO at the moment",
        "truncation_mode": "nothing is cut",
    }
    allowed: ClassVar = {
        "loss_type": LOSSES,
        "f_divergence_type": ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"),
    }
    depends: ClassVar = {
        "label_smoothing": ("loss_type", frozenset({"robust", "exo_pair"})),
        "discopop_tau": ("loss_type", frozenset({"discopop"})),
        "f_alpha_divergence_coef": ("f_divergence_type", frozenset({"alpha_divergence"})),
    }

    method: Literal["dpo"] = "dpo"
    """How the adapter learns."""

    def rules(self, samples: Sequence[Any]) -> Sequence[Rule]:
        if "loss_type" in self.trl:
            return ()
        why = "DPO alone often makes both replies less likely: the likelihood of the chosen one holds it up"
        return (
            ("loss_type", ["sigmoid", "sft"], why),
            ("loss_weights", [1.0, SFT_WEIGHT], "DPO, and a fifth of SFT as in Llama 3 (arXiv 2407.21783)"),
        )
