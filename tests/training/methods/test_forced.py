"""A token at which the server had no choice teaches nothing, and tells nothing of how far trainer and server differ."""

from pathlib import Path

import pytest

from journeyman.training.methods.alarms import StepMetrics
from journeyman.training.methods.recipes.grpo import GRPORecipe
from journeyman.training.rollouts.rows import TurnRow

pytestmark = [pytest.mark.train, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]


def rows(forced: int) -> list[TurnRow]:
    """Two replies that begin with a token which a schema forced; the rest was sampled, about evenly of 64 words."""
    return [
        TurnRow(
            agent="worker",
            role="turn 1",
            group="task",
            trace_id=f"{number:032x}",
            span_id=f"{number:016x}",
            prompt_ids=(3, 4, 5),
            completion_ids=(forced, 7 + number, 9, 2),
            old_logprobs=(0.0, -4.1, -4.1, -4.1),
            reward=float(number),
            advantage=1.0 if number else -1.0,
            version=0,
        )
        for number in range(2)
    ]


def step(folder: Path, base: Path, learned: list[TurnRow], loss_type: str) -> StepMetrics:
    from journeyman.training.methods.trainers.grpo.learner import GRPO

    trl = {"learning_rate": 1e-2, "bf16": False, "beta": 0.0, "loss_type": loss_type}
    recipe = GRPORecipe.model_validate({"lora": {"r": 4, "alpha": 8}, "trl": trl})
    return GRPO().learner(recipe, base, None, folder, None, steps=1).step(learned)


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "bnpo"])
def test_a_forced_token_has_no_part_in_loss_and_ratio(loss_type: str, tmp_path: Path, tiny_base: Path) -> None:
    forced = step(tmp_path / "a", tiny_base, rows(8), loss_type)
    assert forced.ratio_mean > 0.8
    free = [one.model_copy(update={"old_logprobs": (-4.1,) * 4}) for one in rows(8)]
    sampled = step(tmp_path / "b", tiny_base, free, loss_type)
    assert forced.grad_norm != pytest.approx(sampled.grad_norm, rel=1e-3)


def test_a_token_that_is_almost_certain_is_learned_from(tmp_path: Path, tiny_base: Path) -> None:
    sure = [one.model_copy(update={"old_logprobs": (-1e-4, -4.1, -4.1, -4.1)}) for one in rows(8)]
    assert step(tmp_path, tiny_base, sure, "dapo").ratio_mean < 0.8
