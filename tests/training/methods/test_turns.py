"""The loss on rows of ours is plain GRPOTrainer's own: same rows, same gradient, whatever the mode and the pieces."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest

from journeyman.training.rollouts.rows import TurnRow

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
    from trl.trainer.grpo_config import GRPOConfig

    from journeyman.training.methods.trainers.grpo.turns import TurnTrainer

pytestmark = [pytest.mark.train, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]

WORDS, END = 64, 2
RANDOM = Random(1)
PROMPT = tuple(range(3, 23))
"""Longer than any two of the replies: some of them are read together."""
REPLIES = [(*(RANDOM.randrange(3, WORDS) for _ in range(RANDOM.randint(2, 7))), END) for _ in range(8)]
LOGPROBS = [tuple(-4.1 + RANDOM.gauss(0, 0.5) for _ in reply) for reply in REPLIES]
"""What a server that doesn't quite agree would have said."""
REWARDS = [RANDOM.random() for _ in REPLIES]


class Bench(NamedTuple):
    """Makes trainers of the tiny model."""

    model: Callable[[], "LlamaForCausalLM"]
    words: "PreTrainedTokenizerFast"
    folder: Path

    def fresh(self) -> "LoraConfig":
        """Random from the start, so that every weight has a gradient."""
        from peft import LoraConfig

        return LoraConfig(
            r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
        )

    def moved(self) -> "PeftModel":
        """An adapter that was trained before."""
        import torch
        from peft import PeftModel, get_peft_model

        model = get_peft_model(self.model(), self.fresh())
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.mul_(2)
        assert isinstance(model, PeftModel)
        return model

    def arguments(self, **trl: Any) -> "GRPOConfig":
        from trl.trainer.grpo_config import GRPOConfig

        return GRPOConfig(
            output_dir=str(self.folder),
            use_cpu=True,
            bf16=False,
            report_to="none",
            gradient_checkpointing=False,
            num_generations=len(REPLIES),
            per_device_train_batch_size=len(REPLIES),
            **trl,
        )

    def trainer(self, start: "PeftModel | None" = None, **trl: Any) -> "TurnTrainer":
        from journeyman.training.methods.trainers.grpo.turns import TurnTrainer

        lora = self.fresh() if start is None else None
        trainer = TurnTrainer(start or self.model(), self.arguments(**trl), self.words, lora, steps=9)
        trainer.begin(None)
        return trainer

    def ours(self, piece: int | None, start: "PeftModel | None" = None, **trl: Any) -> tuple["torch.Tensor", float]:
        trainer = self.trainer(start, **trl)
        batches = trainer.batches(rows(), piece)
        trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = len(batches)
        step: Any = trainer.training_step
        losses = [float(step(trainer.model_wrapped, batch, None)) for batch in batches]
        return gradient(trainer), sum(losses)

    def plain(self, start: "PeftModel | None" = None, **trl: Any) -> tuple["torch.Tensor", float]:
        """Gradient and loss of TRL's trainer, for which the same replies are sampled and scored."""
        from datasets import Dataset  # type: ignore[import-untyped]
        from trl.trainer.grpo_trainer import GRPOTrainer

        trainer = GRPOTrainer(
            start or self.model(),
            reward_funcs=cast("Any", lambda **rows: REWARDS),
            args=self.arguments(**trl),
            train_dataset=Dataset.from_list([{"prompt": "w3 w4"}]),
            processing_class=self.words,
            peft_config=self.fresh() if start is None else None,
            rollout_func=lambda prompts, trainer: {
                "prompt_ids": [list(PROMPT)] * len(REPLIES),
                "completion_ids": [list(reply) for reply in REPLIES],
                "logprobs": [list(told) for told in LOGPROBS],
            },
        )
        # As if vLLM had sampled: that it did is all that TRL takes from the switch, once a step's weights are in it.
        trainer.use_vllm, trainer._last_loaded_step = True, trainer.state.global_step
        trainer.current_gradient_accumulation_steps = 1
        step: Any = trainer.training_step
        loss = step(trainer.model, [{"prompt": "w3 w4"}] * len(REPLIES), None)
        return gradient(trainer), float(loss)


@pytest.fixture
def bench(tiny: Callable[[], "LlamaForCausalLM"], words: "PreTrainedTokenizerFast", tmp_path: Path) -> Bench:
    return Bench(tiny, words, tmp_path)


def gradient(trainer: Any) -> "torch.Tensor":
    import torch

    return torch.cat([weight.grad.flatten() for weight in trainer.model.parameters() if weight.grad is not None])


def rows() -> list[TurnRow]:
    import torch

    rewards = torch.tensor(REWARDS)
    advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)  # As TRL normalises a group.
    return [
        TurnRow(
            agent="worker",
            role="turn 1",
            group="task",
            trace_id=f"{number:032x}",
            span_id=f"{number:016x}",
            prompt_ids=PROMPT,
            completion_ids=reply,
            old_logprobs=logprobs,
            reward=reward,
            advantage=advantage,
            version=0,
        )
        for number, (reply, logprobs, reward, advantage) in enumerate(
            zip(REPLIES, LOGPROBS, REWARDS, advantages.tolist(), strict=True)
        )
    ]


MODES = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
LOSSES = ("grpo", "bnpo", "dr_grpo", "luspo", "cispo", "sapo", "vespo")


TOLD: list[dict[str, Any]] = [
    *({"vllm_importance_sampling_mode": mode, "vllm_importance_sampling_clip_max": 1.2} for mode in MODES),
    *({"loss_type": loss, "vllm_importance_sampling_mode": "token_truncate"} for loss in LOSSES),
    {"beta": 0.0},
    {"importance_sampling_level": "sequence", "loss_type": "grpo"},
    {"entropy_coef": 0.01, "top_entropy_quantile": 0.5},
    {"off_policy_mask_threshold": 0.01},
    {"vllm_importance_sampling_correction": False},
]


@pytest.mark.parametrize("trl", TOLD, ids=lambda trl: " ".join(str(value) for value in trl.values()))
def test_the_gradient_is_plain_trls(bench: Bench, trl: dict[str, Any]) -> None:
    import torch

    trl = {"beta": 0.1, **trl}
    theirs, their_loss = bench.plain(**trl)
    ours, our_loss = bench.ours(None, **trl)
    assert our_loss == pytest.approx(their_loss, abs=1e-5)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert theirs.abs().max() > 1e-3


@pytest.mark.parametrize("loss_type", ["dapo", *LOSSES])
def test_the_gradient_does_not_depend_on_how_rows_are_cut_into_pieces(bench: Bench, loss_type: str) -> None:
    import torch

    trl: dict[str, Any] = {"beta": 0.1, "loss_type": loss_type, "vllm_importance_sampling_mode": "token_truncate"}
    (whole, _), (cut, _) = bench.ours(8, **trl), bench.ours(3, **trl)
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=0)


def test_an_adapter_that_goes_on_is_its_own_reference(bench: Bench) -> None:
    import torch

    theirs, _ = bench.plain(bench.moved(), beta=0.5)
    ours, _ = bench.ours(3, bench.moved(), beta=0.5)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    trainer = bench.trainer(bench.moved(), beta=0.5, learning_rate=1e-2)
    first, second = (trainer.update(trainer.batches(rows(), None)) for _ in range(2))
    assert first.kl == pytest.approx(0.0, abs=1e-6) and second.kl is not None and second.kl > 1e-5


def test_a_server_that_agrees_has_a_ratio_of_one_and_nothing_is_truncated(bench: Bench) -> None:
    trainer = bench.trainer()
    (batch,) = trainer.batches(rows(), 8)
    order = sorted(rows(), key=lambda row: len(row.completion_ids))
    agreed = [
        row.model_copy(update={"old_logprobs": tuple(line[: len(row.completion_ids)].tolist())})
        for row, line in zip(order, trainer.logprobs(batch), strict=True)
    ]
    update = trainer.update(trainer.batches(agreed, 8))
    assert update.ratio_mean == pytest.approx(1.0, abs=1e-5) and update.ratio_truncated == 0.0


def test_one_that_does_not_is_measured_and_truncated_tokens_are_counted(bench: Bench) -> None:
    trl: dict[str, Any] = {"vllm_importance_sampling_mode": "token_truncate", "vllm_importance_sampling_clip_max": 1.0}
    trainer = bench.trainer(**trl)
    update = trainer.update(trainer.batches(rows(), 8))
    assert 0.1 < update.ratio_truncated < 0.9 and abs(update.ratio_mean - 1) > 1e-3


def test_a_second_update_over_the_same_rows_is_clipped_by_what_the_first_one_changed(bench: Bench) -> None:
    trainer = bench.trainer(learning_rate=0.1, num_iterations=2)
    batches = trainer.batches(rows(), 4)
    first, second = trainer.update(batches), trainer.update(batches)
    assert first.clip_share == 0.0 and second.clip_share > 0.0


def test_a_rate_that_is_lowered_stays_low(bench: Bench) -> None:
    trainer = bench.trainer(learning_rate=1e-3, lr_scheduler_type="constant")
    before = trainer.update(trainer.batches(rows(), None)).learning_rate
    trainer.lower(0.5)
    after = [trainer.update(trainer.batches(rows(), None)).learning_rate for _ in range(2)]
    assert (before, *after) == (1e-3, 5e-4, 5e-4)


def test_prompts_are_not_projected_on_the_vocabulary_and_logprobs_are_the_models_own(bench: Bench) -> None:
    import torch

    trainer = bench.trainer()
    (batch,) = trainer.batches(rows(), 8)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    with torch.no_grad():
        logprobs = trainer.model(input_ids=ids).logits[:, :-1].float().log_softmax(dim=-1)
    whole = logprobs.gather(2, ids[:, 1:, None])[:, len(PROMPT) - 1 :, 0]
    torch.testing.assert_close(trainer.logprobs(batch), whole * batch["completion_mask"], atol=1e-5, rtol=0)
