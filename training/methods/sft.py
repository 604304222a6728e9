"""SFT: completions of one agent are imitated, through TRL's SFTTrainer. `sft_torch` has the rows and the trainer."""

from math import inf
from typing import ClassVar, Literal

from pydantic import Field, JsonValue, field_validator

from journeyman.training.methods.recipe import Recipe

RESERVED = {
    "output_dir": "checkpoints belong to the workspace",
    "report_to": "--mlflow says where a run is logged",
    "push_to_hub": "adapters stay in the workspace",
    "packing": "a sample keeps a row of its own, with its own weight",
    "padding_free": "a sample keeps a row of its own, with its own weight",
    "completion_only_loss": "only completions are learned",
    "dataset_kwargs": "rows come as tokens",
    "remove_unused_columns": "a row's weight travels beside its tokens",
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
    "loss_type": "the loss is the likelihood of completions",
    "label_smoothing_factor": "the loss is the likelihood of completions",
    "assistant_only_loss": "only completions are learned",
    "dataloader_drop_last": "every row is learned from",
    "auto_find_batch_size": "trl.per_device_train_batch_size says how much is computed in one piece",
    "logging_strategy": "every step is logged",
    "logging_steps": "every step is logged",
    "logging_nan_inf_filter": "a loss that is not finite ends the run",
    "disable_tqdm": "progress is shown by the command",
}
"""Keys of TRL's SFTConfig that a recipe may not set, and why."""

COUNTED = (
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "save_steps",
    "max_length",
)
"""Keys that are numbers from 1 on. TRL takes 0 and less for some, and means other things by them."""

MEASURED = ("num_train_epochs", "learning_rate")
"""Keys that are numbers above 0."""


class SFTRecipe(Recipe):
    """How SFT trains an adapter: the recipe `sft` of the package, or a file that `journeyman train --recipe` names."""

    fit: ClassVar[str] = "journeyman.training.methods.sft_torch"

    method: Literal["sft"] = "sft"
    """How the adapter learns."""
    trl: dict[str, JsonValue] = Field(default_factory=dict)
    """Passed to TRL's SFTConfig as it is. What it leaves open follows from rows and model: `train --explain`."""

    @field_validator("trl")
    @classmethod
    def _nothing_of_ours(cls, values: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for key in values:
            if key in RESERVED:
                raise ValueError(f"{key} can't be set: {RESERVED[key]}")
        for key, value in values.items():
            if isinstance(value, int | float) and not _usable(key, value):
                raise ValueError(f"{key} is {value}: write a number {'above 0' if key in MEASURED else 'from 1 on'}")
        return values


def _usable(key: str, value: float) -> bool:
    if key == "max_steps":
        return value >= 1 or value == -1  # As TRL says that there is no such number.
    return not ((key in COUNTED and value < 1) or (key in MEASURED and not 0 < value < inf))
