"""Recipes: how to train, read from TOML; what vLLM could not serve afterwards is refused before anything is trained."""

import json
import tomllib
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from journeyman.traces.base import Config, read_toml
from journeyman.traces.errors import ConfigError

OnStep = Callable[[int, int, float], None]
"""Called after each optimiser step with its number, the number of steps in all, and the loss."""

RECIPES = Path(__file__).parent / "recipes"

UNSERVABLE = ("bias", "lora_bias", "modules_to_save", "use_dora")
"""Keys of PEFT's LoraConfig for what vLLM can't serve."""


class LoraTable(Config):
    """Table `[lora]`: plain LoRA on linear layers, the one form that vLLM serves."""

    r: int = Field(default=16, ge=1)
    """Rank."""
    alpha: int = Field(default=32, ge=1)
    """The update is scaled by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Chance that an input of the adapter is left out in a training step."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the layers that get an adapter; `all-linear` is every one but the output head."""

    @model_validator(mode="before")
    @classmethod
    def _servable(cls, values: Any) -> Any:
        if isinstance(values, dict) and (key := next((key for key in UNSERVABLE if values.get(key)), None)):
            raise ValueError(f"vLLM can't serve an adapter with {key}: train plain LoRA on linear layers")
        return values

    @field_validator("target_modules")
    @classmethod
    def _no_head(cls, names: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if "lm_head" in names or "embed_tokens" in names:
            raise ValueError("vLLM can't serve an adapter on lm_head or embed_tokens: name other linear layers")
        return names


class EvalTable(Config):
    """Table `[eval]`: rows that are held out of training, and when their loss ends it."""

    share: float | None = Field(default=None, ge=0, le=0.5)
    """Share of the rows, at most 64 of them. None: a tenth of 60 rows or more, unless `trl.max_steps` sets the
    length."""
    patience: int = Field(default=3, ge=1)
    """Looks at them without a lower loss after which training stops. The best checkpoint is kept."""


class Recipe(Config):
    """How to train: what every method's recipe has. The method's own module adds the rest."""

    fit: ClassVar[str]
    """The module with the method's `fit`, which needs torch; see `job.Method`."""

    method: str
    lora: LoraTable = LoraTable()
    eval: EvalTable = EvalTable()

    @property
    def digest(self) -> str:
        return sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def read_recipe(recipe: str | Path, overrides: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], Path]:
    """The tables of a recipe's file, or of that name in the package, with `overrides`, and where they are from."""
    path = Path(recipe)
    if isinstance(recipe, str) and path.suffix != ".toml":
        path = RECIPES / f"{recipe}.toml"
        if not path.exists():
            have = ", ".join(sorted(known.stem for known in RECIPES.glob("*.toml")))
            raise ConfigError(f"unknown recipe {recipe!r}; have {have}, or name a .toml file")
    values = read_toml(path)
    for key, value in (overrides or {}).items():
        *tables, last = key.split(".")
        table = values
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{key!r} can't be set: {name!r} isn't a table")
        table[last] = value
    return values, path


def read_override(text: str) -> tuple[str, Any]:
    """`trl.max_steps=20` as key and value; the value is read as in TOML, or else is text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r}: write key=value, as in trl.max_steps=20")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
