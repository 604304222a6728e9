"""The methods there are, and recipes read as theirs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from journeyman.traces.base import parse_config
from journeyman.traces.errors import ConfigError
from journeyman.training.methods.recipe import Recipe, read_recipe
from journeyman.training.methods.recipes.cpt import CPTRecipe
from journeyman.training.methods.recipes.distill import DistillRecipe
from journeyman.training.methods.recipes.dpo import DPORecipe
from journeyman.training.methods.recipes.full import FullRecipe
from journeyman.training.methods.recipes.grpo import GRPORecipe
from journeyman.training.methods.recipes.kto import KTORecipe
from journeyman.training.methods.recipes.prompt import PromptRecipe
from journeyman.training.methods.recipes.qlora import QLoRARecipe
from journeyman.training.methods.recipes.rft import RFTRecipe
from journeyman.training.methods.recipes.sft import SFTRecipe

METHODS: Mapping[str, type[Recipe]] = {
    "prompt": PromptRecipe,
    "sft": SFTRecipe,
    "rft": RFTRecipe,
    "distill": DistillRecipe,
    "dpo": DPORecipe,
    "kto": KTORecipe,
    "grpo": GRPORecipe,
    "cpt": CPTRecipe,
    "full": FullRecipe,
    "qlora": QLoRARecipe,
}
"""A recipe's `method`, and what such a recipe may say. A new method is a row here, a module and a file beside this one,
and a module in `trainers`."""


def load_recipe(recipe: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe in a file, or of that name in the package, with `overrides` such as `{"trl.max_steps": 20}`."""
    values, path = read_recipe(recipe, overrides)
    method = values.get("method", "sft")
    if method not in METHODS:
        raise ConfigError(f"{path}: method: unknown method {method!r}; have {', '.join(METHODS)}")
    return parse_config(METHODS[method], values, str(path))
