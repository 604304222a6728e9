"""GRPO's recipe: what it takes, what it refuses and why, and what it leaves to rules."""

import pytest

from journeyman.traces.errors import ConfigError
from journeyman.training.methods.recipes.grpo import GRPORecipe, choose
from journeyman.training.methods.recipes.known import load_recipe


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("trl.temperature", 0.7, "temperature can't be set: rollouts are runs of the crew"),
        ("trl.num_generations", 4, r"num_generations can't be set: rollouts.group says how many"),
        ("trl.gradient_accumulation_steps", 2, "gradient_accumulation_steps can't be set: a step learns from all"),
        ("trl.reward_weights", [1.0], r"reward_weights can't be set: \[rewards\] says"),
        ("trl.report_to", "wandb", "report_to can't be set: --mlflow"),
        ("trl.dataloader_num_workers", 2, "dataloader_num_workers has no effect on grpo: remove it"),
        ("trl.vllm_server_port", 8000, "vllm_server_port has no effect on grpo: remove it"),
        ("trl.lr_scheduler_type", "reduce_lr_on_plateau", "follows an evaluation's loss, and grpo has none"),
        ("trl.loss_type", "magic", "loss_type is 'magic': write one of dapo, grpo, "),
        ("trl.learning_rate", 0, "learning_rate is 0: write a number above 0"),
        ("rollouts.group", 1, "rollouts.group.: Input should be greater than or equal to 2"),
        ("alarms.kl", "shout", "alarms.kl.: Input should be 'stop', 'lower' or 'tell'"),
        ("rewards.score", 0, "score and judge are both 0"),
        ("eval.share", 0.1, r"\[eval\] holds out rows, and grpo has tasks: set rollouts.held_out instead"),
        ("lora.use_dora", True, "vLLM can't serve an adapter with use_dora"),
    ],
)
def test_a_key_that_grpo_has_no_use_for_is_refused_with_the_reason(key: str, value: object, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_recipe("grpo", {key: value})


def test_an_alarm_of_drift_needs_a_reference() -> None:
    with pytest.raises(ConfigError, match=r"alarms.kl needs a reference: set trl.beta above 0, or remove it"):
        load_recipe("grpo", {"trl.beta": 0, "alarms.kl_most": 0.2})
    assert load_recipe("grpo", {"trl.beta": 0})


def test_a_judge_alone_may_say_what_is_right() -> None:
    recipe = load_recipe("grpo", {"rewards.score": 0, "rewards.judge": 1})
    assert isinstance(recipe, GRPORecipe) and recipe.rewards.judge == 1


@pytest.mark.parametrize(
    ("trl", "tasks", "steps"),
    [({}, 20, 8), ({"num_train_epochs": 2}, 20, 5), ({"max_steps": 7}, 20, 7), ({}, 3, 3)],
)
def test_length_is_in_runs_through_the_tasks_unless_steps_are_named(
    trl: dict[str, int], tasks: int, steps: int
) -> None:
    assert GRPORecipe.model_validate({"trl": trl}).steps(tasks) == steps


def test_every_number_has_its_source_and_a_reason() -> None:
    choices = {choice.key: choice for choice in choose(GRPORecipe.model_validate({"trl": {"beta": 0.1}}), 135_000_000)}
    assert (choices["trl.beta"].value, choices["trl.beta"].source) == (0.1, "recipe")
    assert (choices["trl.learning_rate"].value, choices["trl.learning_rate"].source) == (1e-4, "rule")
    assert choices["trl.gradient_checkpointing"].value is False
    assert all(choice.why for choice in choices.values())


def test_larger_models_learn_slower_and_save_memory() -> None:
    choices = {choice.key: choice.value for choice in choose(GRPORecipe(), 8_000_000_000)}
    assert choices["trl.learning_rate"] == 2e-5 and choices["trl.gradient_checkpointing"] is True


def test_replies_that_were_cut_off_are_left_out_unless_the_recipe_says_so() -> None:
    assert GRPORecipe().mask_truncated
    assert not GRPORecipe.model_validate({"trl": {"mask_truncated_completions": False}}).mask_truncated


def test_a_loss_that_weighs_tokens_takes_no_ratios_of_whole_sequences() -> None:
    trl = {"trl.loss_type": "vespo", "trl.vllm_importance_sampling_mode": "sequence_mask"}
    with pytest.raises(ConfigError, match="loss_type vespo weighs tokens: set vllm_importance_sampling_mode to token_"):
        load_recipe("grpo", trl)
