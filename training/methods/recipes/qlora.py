"""QLoRA: SFT of an adapter on a base model of four bits a weight, where CUDA is. It is served like any adapter."""

from typing import ClassVar, Literal

from journeyman.traces.base import Config
from journeyman.training.methods.recipes.sft import SFTRecipe


class QuantisationTable(Config):
    """Table `[quantisation]`: how the base model is held while the adapter learns, by bitsandbytes."""

    kind: Literal["nf4", "fp4"] = "nf4"
    """Four-bit numbers: `nf4` has its steps where normally distributed weights are."""
    double: bool = True
    """Whether the scales of the blocks of weights are quantised, too."""


class QLoRARecipe(SFTRecipe):
    """How QLoRA trains an adapter: the recipe `qlora` of the package, or a file."""

    trainer: ClassVar = "journeyman.training.methods.trainers.qlora:QLoRA"

    method: Literal["qlora"] = "qlora"  # type: ignore[assignment]
    """How the adapter learns."""
    quantisation: QuantisationTable = QuantisationTable()
