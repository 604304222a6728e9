"""Continued pre-training: text is learned as it stands, through TRL's SFTTrainer. `trainers/cpt.py` has the rows."""

from typing import ClassVar, Literal

from journeyman.training.data.samples import DocumentSample
from journeyman.training.methods.recipe import Pace, TRLRecipe
from journeyman.training.methods.sft import SFTRecipe


class CPTRecipe(TRLRecipe):
    """How continued pre-training makes an adapter: the recipe `cpt` of the package, or a file."""

    trainer: ClassVar = "journeyman.training.methods.trainers.cpt:CPT"
    learns_from: ClassVar = DocumentSample
    pace: ClassVar = Pace(rate=0.5, why="; half of SFT's, since each token of a row pulls", epochs=(1, 3))
    guards: ClassVar = frozenset({"replay", "worst"})
    reserved: ClassVar = {
        **SFTRecipe.reserved,
        "packing": "mined rows are full of paragraphs: `mine --length` says how long",
        "padding_free": "mined rows are full of paragraphs: `mine --length` says how long",
        "completion_only_loss": "every token of a text is learned",
        "assistant_only_loss": "every token of a text is learned",
        "loss_type": "the loss is the likelihood of the text",
    }

    method: Literal["cpt"] = "cpt"
    """How the adapter learns."""
