"""Prompt: instructions and examples of one agent are looked for, and no weights change. `improve.prompting` does it."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from journeyman.traces.base import Config
from journeyman.training.data.samples import SFTSample
from journeyman.training.methods.recipe import Recipe


class PromptTable(Config):
    """Table `[prompt]`: what may be tried, and how much of it."""

    metric_calls: int = Field(default=160, ge=4)
    """Scored runs of the crew that the search may take in all; those that were made before count, and cost nothing."""
    selection: float = Field(default=0.4, gt=0, lt=1)
    """Share of the tasks on which prompts are chosen. No example is from them, and no model is shown them."""
    minibatch: int = Field(default=4, ge=1)
    """Tasks on which a new prompt must first beat the one that it came from."""
    examples: int = Field(default=3, ge=0)
    """Recorded pieces of work that a prompt may show; 0 leaves the examples as they are."""
    example_tokens: int = Field(default=800, ge=1)
    """Of all that are shown, as estimated; each call of the agent pays for them."""
    min_score: float = Field(default=1.0, allow_inf_nan=False)
    """Smallest score of a run whose work may be shown."""
    reflect: str | None = None
    """The policy that writes new instructions: `base`, an adapter, or one of `[models]`; None for nobody."""
    reflect_tokens: int = Field(default=512, ge=1)
    """Of new instructions."""
    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """At which they are written."""
    concurrency: int = Field(default=8, ge=1)
    """Runs at once."""
    seed: int = 0
    """Of the order of tasks, the choice of examples, and sampling."""

    @model_validator(mode="after")
    def _something_may_change(self) -> "PromptTable":
        if not self.examples and self.reflect is None:
            raise ValueError("examples is 0 and nobody reflects, so no prompt can change: allow one of the two")
        return self


class PromptRecipe(Recipe):
    """How a prompt is optimised: the recipe `prompt` of the package, or a file that `journeyman train` names."""

    trainer: ClassVar = ""
    """Nothing is trained."""
    driver: ClassVar = "journeyman.training.improve.prompt_driver:PromptDriver"
    starts_in_service: ClassVar = True
    learns_from: ClassVar = SFTSample
    """What it shows as examples, once it was mined from the runs of its tasks."""

    method: Literal["prompt"] = "prompt"
    """How the agent learns."""
    prompt: PromptTable = PromptTable()

    @model_validator(mode="before")
    @classmethod
    def _no_weights(cls, values: Any) -> Any:
        for table in ("lora", "eval", "trl"):
            if isinstance(values, dict) and table in values:
                raise ValueError(f"{table}: a prompt candidate trains no weights; take the table out")
        return values
