"""RFT: an agent imitates its own accepted runs, in rounds of sampling and SFT, which `improve/rft.py` drives."""

from typing import ClassVar, Literal

from pydantic import Field

from journeyman.traces.base import Config
from journeyman.training.data.samples import SFTSample
from journeyman.training.methods.recipe import EvalTable, TRLRecipe
from journeyman.training.methods.recipes.sft import SFTRecipe


class RoundsTable(Config):
    """Table `[rft]`: what a round samples, and what it keeps."""

    rounds: int = Field(default=3, ge=1)
    """Each samples with the weights that the round before has trained."""
    best_of: int = Field(default=8, ge=1)
    """Runs of each task in a round."""
    keep: int = Field(default=2, ge=1)
    """Accepted runs of a task that a round learns from, each with other replies of the agent."""
    tasks: int | None = Field(default=None, ge=1)
    """Tasks of a round: those whose rate of success tells most, by p (1 - p). None takes all of them."""
    min_score: float = Field(default=1.0, gt=0, le=1)
    """Smallest score of a run that is accepted."""
    merged: bool | None = None
    """Whether a server of its own samples, with the adapter merged into the base model, which is several times as quick
    on a CPU. None: there, as soon as the expected tokens pay for its start."""
    concurrency: int = Field(default=32, ge=1)
    """Runs at once."""
    seed: int = 0
    """Of sampling, and of what is chosen among equals."""


class RFTEval(EvalTable):
    """Table `[eval]`: rows that are held out of each round's SFT, and tasks by which the best round is told."""

    tasks: str | None = None
    """A file of tasks: of the rounds' adapters the one with the highest mean on them is the result. None: the last."""
    samples: int = Field(default=4, ge=1)
    """Runs of each of them."""


class RFTRecipe(TRLRecipe):
    """How RFT trains an adapter. `[trl]` is about each round's SFT."""

    trainer: ClassVar = SFTRecipe.trainer
    learns_from: ClassVar = SFTSample
    driver: ClassVar = "journeyman.training.improve.rejection:RejectionSampling"
    guards: ClassVar = frozenset[str]()
    starts_in_service: ClassVar = True
    reserved: ClassVar = SFTRecipe.reserved

    method: Literal["rft"] = "rft"
    """How the adapter learns."""
    rft: RoundsTable = RoundsTable()
    eval: RFTEval = RFTEval()

    @property
    def of_a_round(self) -> "RFTRecipe":
        """What a round's SFT goes by. How many rounds there are is no part of it, so that more go on from these."""
        return self.model_copy(update={"rft": self.rft.model_copy(update={"rounds": 1})})
