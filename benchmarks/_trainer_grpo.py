"""Some steps of GRPO on replies that were sampled and rewarded before, by journeyman or by plain TRL."""

from pathlib import Path
from random import Random
from time import monotonic
from typing import Any, cast

from journeyman.training.methods.method import method_of
from journeyman.training.methods.recipes.known import load_recipe
from journeyman.training.rollouts.rows import TurnRow

PROMPT, REPLY = 24, 32
"""Tokens for a sentence of the prompt, and of a reply."""


def turns(settings: dict[str, int], tokens: int, end: int) -> list[TurnRow]:
    """One group: replies of random tokens that are ended, of which a half are right."""
    draw, count = Random(0), settings["batch"]

    def ids(length: int) -> tuple[int, ...]:
        return tuple(draw.randrange(100, tokens) for _ in range(length))

    prompt = ids(PROMPT * settings["sentences"])
    return [
        TurnRow(
            agent="clerk",
            role="turn 1",
            group="task",
            trace_id=f"{number:032x}",
            span_id=f"{number:016x}",
            prompt_ids=prompt,
            completion_ids=(reply := (*ids(REPLY - 1), end)),
            old_logprobs=tuple(-8 - draw.random() for _ in reply),
            reward=float(number % 2),
            advantage=1.0 if number % 2 else -1.0,
            version=0,
        )
        for number in range(count)
    ]


def rewarded(contender: str, settings: dict[str, int], base_model: Path, folder: Path) -> tuple[float, list[float]]:
    """When it began, and when each step ended, the beginning first."""
    recipe: Any = load_recipe("grpo", {"trl.max_steps": settings["steps"], "rollouts.group": settings["batch"]})
    with method_of(recipe) as method:
        from journeyman.training.methods.rows import read_tokenizer

        online: Any = method
        tokenizer = read_tokenizer(base_model)
        rows = turns(settings, len(tokenizer), tokenizer.eos_token_id)
        began = monotonic()
        if contender == "plain":
            return began, plain(recipe, rows, base_model, folder)
        learner = online.learner(recipe, base_model, None, folder, None, steps=settings["steps"])
        ends = [monotonic()]
        for _ in range(settings["steps"]):
            learner.step(rows)
            ends.append(monotonic())
    return began, ends


def plain(recipe: Any, rows: list[TurnRow], base_model: Path, folder: Path) -> list[float]:
    """When each step of TRL's trainer ended. It is handed the replies, and weighs them as if vLLM had sampled them."""
    import torch
    from datasets import Dataset  # type: ignore[import-untyped]
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from journeyman.training.methods.recipes.grpo import choose
    from journeyman.training.methods.trainers.skeleton import OURS
    from journeyman.training.methods.trainers.weights import parameters_of

    class Served(GRPOTrainer):
        """TRL brings new weights into a server before it samples; none is there."""

        _last_loaded_step = property(lambda self: self.state.global_step, lambda self, step: None)

    class Ends(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            ends.append(monotonic())

    cpu = not torch.cuda.is_available()
    chosen = {choice.key.removeprefix("trl."): choice.value for choice in choose(recipe, parameters_of(base_model))}
    counts = {name: len(rows) for name in ("per_device_train_batch_size", "num_generations")}
    trainer = Served(
        AutoModelForCausalLM.from_pretrained(base_model, dtype="bfloat16"),
        reward_funcs=cast("Any", lambda **asked: [row.reward for row in rows]),
        args=GRPOConfig(**{**OURS, **chosen, **counts, "output_dir": str(folder), "save_strategy": "no"}, use_cpu=cpu),
        train_dataset=Dataset.from_list([{"prompt": "Which?"}] * recipe.trl["max_steps"]),
        processing_class=AutoTokenizer.from_pretrained(base_model),
        peft_config=LoraConfig(
            r=recipe.lora.r, lora_alpha=recipe.lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        rollout_func=lambda prompts, trainer: {
            "prompt_ids": [list(row.prompt_ids) for row in rows],
            "completion_ids": [list(row.completion_ids) for row in rows],
            "logprobs": [list(row.old_logprobs) for row in rows],
        },
        callbacks=[Ends()],
    )
    trainer.use_vllm = True
    ends = [monotonic()]
    trainer.train()
    return ends
