"""Recipes: how to train, read from TOML; what vLLM could not serve afterwards is refused before anything is trained."""

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, JsonValue, field_validator, model_validator

from journeyman.traces.base import Config, read_toml
from journeyman.traces.errors import ConfigError
from journeyman.training.data.samples import Sample

if TYPE_CHECKING:
    from journeyman.runtime.workspace import Workspace


class Step(NamedTuple):
    """An optimiser step that was made."""

    number: int
    """From 1 on."""
    steps: int
    """In all, at most."""
    loss: float
    metrics: Mapping[str, float]
    """What else the trainer logs of it."""


OnStep = Callable[[Step], None]
"""Called after each optimiser step."""

RECIPES = Path(__file__).parent / "recipes"

UNSERVABLE = ("bias", "lora_bias", "modules_to_save", "use_dora")
"""Keys of PEFT's LoraConfig for what vLLM can't serve."""


RESERVED = {
    "output_dir": "checkpoints belong to the workspace",
    "report_to": "--mlflow says where a run is logged",
    "push_to_hub": "adapters stay in the workspace",
    "remove_unused_columns": "what a row has beside its tokens is used",
    "save_strategy": "checkpoints are saved every trl.save_steps steps",
    "eval_strategy": "[eval] says which rows are held out; they are looked at every trl.save_steps steps",
    "eval_steps": "held-out rows are looked at every trl.save_steps steps",
    "load_best_model_at_end": "the best checkpoint is always kept where rows are held out",
    "metric_for_best_model": "the loss of held-out rows says which is best",
    "save_only_model": "a run goes on from its checkpoints",
    "greater_is_better": "the loss of held-out rows says which is best",
    "eval_delay": "held-out rows are looked at every trl.save_steps steps",
    "restore_callback_states_from_checkpoint": "a run goes on from its checkpoints as if it had not been cut short",
    "ignore_data_skip": "a run goes on from its checkpoints as if it had not been cut short",
    "label_smoothing_factor": "the loss is the likelihood of completions",
    "dataloader_drop_last": "every row is learned from",
    "auto_find_batch_size": "trl.per_device_train_batch_size says how much is computed in one piece",
    "logging_strategy": "every step is logged",
    "logging_steps": "every step is logged",
    "logging_nan_inf_filter": "a loss that is not finite ends the run",
    "disable_tqdm": "progress is shown by the command",
    "model_init_kwargs": "the base model is loaded by the workspace's name for it",
    "trust_remote_code": "a base model is files, and brings no code",
}
"""Keys of TRL's configs that no recipe may set, and why."""

COUNTED = (
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "save_steps",
    "max_length",
)
"""Keys that are numbers from 1 on. TRL takes 0 and less for some, and means other things by them."""

MEASURED = ("num_train_epochs", "learning_rate", "neftune_noise_alpha")
"""Keys that are numbers above 0."""


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


class GuardTable(Config):
    """Table `[guard]`: what keeps a training from losing what was learned before."""

    replay: float | None = Field(default=None, ge=0, le=0.9)
    """Share of the rows learned from that are taken from earlier datasets. None: a fifth, where there are any."""
    kl: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Factor on KL(learner ‖ where it started) over completion tokens, in nats a token, added to the loss."""
    worst: float = Field(default=0.1, ge=0)
    """Largest rise of the loss of old rows, in the loss's own unit, that isn't warned of."""


class Pace(NamedTuple):
    """How fast and for how long a method learns, where the recipe leaves it open; `plan` makes numbers of it."""

    rate: float = 1.0
    """Share of SFT's learning rate."""
    why: str = ""
    """Why it isn't SFT's."""
    epochs: tuple[int, int] = (3, 8)
    """Fewest and most."""
    sequences: int = 1
    """That the model computes for a row."""
    piece: int = 1
    """Fewest rows that are computed together."""


Rule = tuple[str, JsonValue, str]
"""A key of `[trl]`, the value that follows from the samples, and why."""


class Recipe(Config):
    """How to train: what every method's recipe has. The method's own module adds the rest."""

    trainer: ClassVar[str]
    """The class, as `module:Class`, that trains; it needs torch. See `method.Method`."""
    learns_from: ClassVar[type[Sample]]
    """The rows of a dataset that the method takes, or makes of its runs."""
    also_from: ClassVar[tuple[type[Sample], ...]] = ()
    """Other rows that do as well."""
    driver: ClassVar[str | None] = None
    """The class, as `module:Class`, of a method that learns from tasks: it makes the crew's runs itself. See
    `improve.from_tasks`."""
    starts_in_service: ClassVar[bool] = False
    """Whether training starts from the policy in service, where nothing else is said, and not from the base model."""
    guards: ClassVar[frozenset[str]] = frozenset()
    """Keys of `[guard]` that the method heeds."""
    pace: ClassVar[Pace] = Pace()

    method: str
    lora: LoraTable = LoraTable()
    eval: EvalTable = EvalTable()
    guard: GuardTable = GuardTable()

    @field_validator("guard")
    @classmethod
    def _heeded(cls, guard: GuardTable) -> GuardTable:
        if idle := sorted(guard.model_fields_set - cls.guards):
            heeded = f"it heeds {', '.join(sorted(cls.guards))}" if cls.guards else "it has no such guard"
            raise ValueError(f"{idle[0]} has no effect on {cls.model_fields['method'].default}: {heeded}")
        return guard

    def bound(self, agent: str, start: str, base_model: Path, workspace: "Workspace") -> "Recipe":
        """The recipe of one job, with what it names found and read, so that its digest tells it.

        Raises `ConfigError` or `AdapterError` where something is gone, or doesn't fit.
        """
        return self

    def notice(self, base_model: Path, workspace: "Workspace") -> str | None:
        """What somebody should know before they train."""
        return None

    @property
    def rank(self) -> int:
        """Of the adapter; 0 where all weights are trained."""
        return self.lora.r

    @property
    def told(self) -> dict[str, JsonValue]:
        """What the recipe says of the weights that are trained, by key."""
        return {f"lora.{name}": value for name, value in self.lora.model_dump(mode="json").items()}

    @property
    def digest(self) -> str:
        return sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


class TRLRecipe(Recipe):
    """How to train where the trainer is TRL's."""

    reserved: ClassVar[Mapping[str, str]] = {}
    """Keys of the method's own that `[trl]` may not hold, and why, besides `RESERVED`."""
    guards: ClassVar = frozenset({"replay"})
    allowed: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Texts that a key of `[trl]`, or each member of its list, may be, where TRL would see a mistake too late."""
    depends: ClassVar[Mapping[str, tuple[str, frozenset[str]]]] = {}
    """Keys of `[trl]` that do something only where another key is, or holds, one of some texts."""

    trl: dict[str, JsonValue] = Field(default_factory=dict)
    """Passed to TRL's own config as it is. What it leaves open follows from rows and model: `train --explain`."""

    @field_validator("trl")
    @classmethod
    def _nothing_of_ours(cls, values: dict[str, JsonValue]) -> dict[str, JsonValue]:
        reserved = {**RESERVED, **cls.reserved}
        for key in values:
            if key in reserved:
                raise ValueError(f"{key} can't be set: {reserved[key]}")
        for key, value in values.items():
            if isinstance(value, int | float) and not _usable(key, value):
                raise ValueError(f"{key} is {value}: write a number {'above 0' if key in MEASURED else 'from 1 on'}")
            wrong = [text for text in _texts(value) if text not in cls.allowed.get(key, (text,))]
            if wrong:
                raise ValueError(f"{key} can't be {wrong[0]!r}: write one of {', '.join(cls.allowed[key])}")
        for key in values.keys() & cls.depends.keys():
            other, texts = cls.depends[key]
            if texts.isdisjoint(_texts(values.get(other))):
                raise ValueError(
                    f"{key} does nothing here: set {other} to {' or '.join(sorted(texts))}, or leave it out"
                )
        return values

    def rules(self, samples: Sequence[Any]) -> Sequence[Rule]:
        """What follows from the samples that are learned from, for this method alone."""
        return ()


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


def _usable(key: str, value: float) -> bool:
    if key == "max_steps":
        return value >= 1 or value == -1  # As TRL says that there is no such number.
    return not ((key in COUNTED and value < 1) or (key in MEASURED and not 0 < value < inf))


def _texts(value: JsonValue) -> list[str]:
    """A text, or the texts of a list."""
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
