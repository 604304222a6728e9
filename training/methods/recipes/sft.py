"""SFT: completions of one agent are imitated, through TRL's SFTTrainer. `trainers/sft.py` has the rows and the loss."""

from typing import ClassVar, Literal

from journeyman.training.data.samples import SFTSample
from journeyman.training.methods.recipe import TRLRecipe


class SFTRecipe(TRLRecipe):
    """How SFT trains an adapter: the recipe `sft` of the package, or a file that `journeyman train --recipe` names."""

    trainer: ClassVar = "journeyman.training.methods.trainers.sft:SFT"
    learns_from: ClassVar = SFTSample
    guards: ClassVar = frozenset({"replay", "kl", "worst"})
    reserved: ClassVar = {
        "padding_free": "trl.packing says whether rows are computed without padding",
        "packing_strategy": "a row is never cut",
        "eval_packing": "held-out rows are never packed",
        "completion_only_loss": "only completions are learned",
        "dataset_kwargs": "rows come as tokens",
        "loss_type": "the loss is the likelihood of completions",
        "assistant_only_loss": "only completions are learned",
    }

    method: Literal["sft"] = "sft"
    """How the adapter learns."""
