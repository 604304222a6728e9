"""GRPO: one agent of a crew learns from the rewards of the crew's own runs. `trainers/grpo/` has TRL's loss.

Shao et al. 2024, arXiv 2402.03300, with the token-level loss of DAPO (Yu et al. 2025, arXiv 2503.14476) as TRL has it.
"""

from collections.abc import Mapping
from math import ceil
from typing import Any, ClassVar, Literal

from pydantic import JsonValue, field_validator, model_validator

from journeyman.training.data.samples import RolloutSample
from journeyman.training.methods.alarms import AlarmsTable
from journeyman.training.methods.plan import Choice
from journeyman.training.methods.recipe import TRLRecipe
from journeyman.training.rollouts.rewards import RewardTable
from journeyman.training.rollouts.table import RolloutTable

_SAMPLED = "rollouts are runs of the crew, and its server samples them at temperature 1"
_GROUPED = "a step learns from all the rows of its rollouts, in pieces of trl.per_device_train_batch_size"
_SCORED = "[rewards] says what a run is worth, and rows come with their advantages"

TAKEN = (
    *("learning_rate", "lr_scheduler_", "warmup_", "optim", "weight_decay", "adam_", "max_grad_norm", "seed", "bf16"),
    *("num_train_epochs", "max_steps", "save_steps", "save_total_limit", "per_device_train_batch_size", "delta"),
    *("gradient_checkpointing", "torch_empty_cache_steps", "pad_to_multiple_of", "disable_dropout", "beta", "epsilon"),
    *("use_bias_correction_kl", "num_iterations", "loss_type", "importance_sampling_level", "sapo_", "vespo_"),
    *("top_entropy_quantile", "entropy_", "use_adaptive_entropy", "vllm_importance_sampling_"),
    *("off_policy_mask_threshold", "mask_truncated_completions"),
)
"""What keys of TRL's GRPOConfig begin with that have an effect here; others are refused."""

_OPTIONS = {
    "loss_type": ("dapo", "grpo", "bnpo", "dr_grpo", "luspo", "cispo", "sapo", "vespo"),
    "importance_sampling_level": ("token", "sequence"),
    "vllm_importance_sampling_mode": ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
}
"""Values that TRL looks at in the first step only."""

_MEASURING = ("reduce_lr_on_plateau", "greedy")
"""Schedules of the learning rate that follow a loss which GRPO hasn't got."""

_RATES = ((0.5e9, 1e-4), (3e9, 5e-5), (float("inf"), 2e-5))
"""Learning rates by the base model's parameters: a tenth of those of SFT."""
_CHECKPOINTING = 1e9
"""Parameters from which activations are computed twice to save memory."""


class GRPORecipe(TRLRecipe):
    """How GRPO trains an adapter: the recipe `grpo` of the package, or a file that `train --recipe` names."""

    trainer: ClassVar = "journeyman.training.methods.trainers.grpo.learner:GRPO"
    driver: ClassVar = "journeyman.training.improve.explore:Explorer"
    guards: ClassVar = frozenset[str]()
    learns_from: ClassVar = RolloutSample
    starts_in_service: ClassVar = True
    reserved: ClassVar = {
        **dict.fromkeys(
            ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_completion_length", "use_vllm"),
            _SAMPLED,
        ),
        **dict.fromkeys(("gradient_accumulation_steps", "steps_per_generation", "generation_batch_size"), _GROUPED),
        **dict.fromkeys(("reward_weights", "multi_objective_aggregation", "scale_rewards"), _SCORED),
        "num_generations": "rollouts.group says how many runs a task gets",
        "sync_ref_model": "the reference is the policy that training started from",
    }

    method: Literal["grpo"] = "grpo"
    """How the adapter learns."""
    rollouts: RolloutTable = RolloutTable()
    rewards: RewardTable = RewardTable()
    alarms: AlarmsTable = AlarmsTable()

    @field_validator("trl")
    @classmethod
    def _with_an_effect(cls, values: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if idle := next((key for key in values if not key.startswith(TAKEN)), None):
            raise ValueError(f"{idle} has no effect on grpo: remove it")
        for key, options in _OPTIONS.items():
            if key in values and values[key] not in options:
                raise ValueError(f"{key} is {values[key]!r}: write one of {', '.join(options)}")
        if values.get("loss_type") == "vespo" and str(values.get("vllm_importance_sampling_mode")).startswith("seq"):
            raise ValueError("loss_type vespo weighs tokens: set vllm_importance_sampling_mode to token_truncate")
        if (schedule := values.get("lr_scheduler_type")) in _MEASURING:
            raise ValueError(
                f"lr_scheduler_type {schedule} follows an evaluation's loss, and grpo has none: take another"
            )
        return values

    @model_validator(mode="after")
    def _watched(self) -> "GRPORecipe":
        if "eval" in self.model_fields_set:
            raise ValueError("[eval] holds out rows, and grpo has tasks: set rollouts.held_out instead")
        if self.trl.get("beta") == 0 and self.alarms.model_fields_set & {"kl", "kl_most"}:
            raise ValueError("alarms.kl needs a reference: set trl.beta above 0, or remove it")
        return self

    @property
    def mask_truncated(self) -> bool:
        """Whether a reply that was cut off is left out."""
        return bool(self.trl.get("mask_truncated_completions", True))

    def steps(self, tasks: int) -> int:
        """Optimiser steps over `tasks` that are learned from."""
        given: Mapping[str, Any] = self.trl
        if (limit := int(given.get("max_steps", -1))) > 0:
            return limit
        return ceil(float(given.get("num_train_epochs", EPOCHS)) * tasks / min(self.rollouts.tasks, tasks))


EPOCHS = 3
"""Runs through the tasks, where the recipe doesn't say."""


def choose(recipe: GRPORecipe, parameters: int) -> tuple[Choice, ...]:
    """What goes to TRL's GRPOConfig, each value with its source and its reason."""
    told = [
        Choice(key=f"trl.{key}", value=value, source="recipe", why="the recipe says so")
        for key, value in recipe.trl.items()
    ]
    rules = [
        Choice(key=f"trl.{key}", value=value, source="rule", why=why)
        for key, (value, why) in _rules(parameters).items()
        if key not in recipe.trl
    ]
    return (*told, *rules)


def _rules(parameters: int) -> dict[str, tuple[JsonValue, str]]:
    millions = parameters / 1e6
    rate = next(rate for most, rate in _RATES if parameters < most)
    return {
        "learning_rate": (rate, f"LoRA on a model of {millions:,.0f} M parameters; a tenth of what SFT takes"),
        "lr_scheduler_type": ("constant", "each step's rows are new, so no step is the last one of its data"),
        "beta": (0.01, "a pull to the policy that training started from, and what the alarm of drift measures"),
        "vllm_importance_sampling_mode": ("token_truncate", "server and trainer differ a little in each token"),
        "vllm_importance_sampling_clip_max": (2.0, "a token weighs at most twice, whatever the server made of it"),
        "mask_truncated_completions": (True, "a reply that was cut off says nothing of what it would have come to"),
        "gradient_checkpointing": (parameters >= _CHECKPOINTING, "it saves memory for a fifth more time"),
        "save_steps": (1, "a kill loses at most one step"),
        "seed": (0, "the same rows give the same adapter"),
    }
