"""On-policy distillation through TRL's DistillationTrainer; a teacher may be shown another prompt than its student."""

from collections.abc import Sequence
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from trl.trainer.distillation_config import DistillationConfig
from trl.trainer.distillation_trainer import DistillationTrainer
from trl.trainer.utils import pad

from journeyman.agents.agent import Limits
from journeyman.agents.prompt import PromptForm
from journeyman.traces.errors import ConfigError, TrainingError
from journeyman.traces.messages import Message
from journeyman.training.data.samples import PromptSample, SFTSample
from journeyman.training.methods.recipe import Rule
from journeyman.training.methods.recipes.distill import BoundDistillRecipe, Teacher
from journeyman.training.methods.rows import read_tokenizer, write_prompt
from journeyman.training.methods.trainers.merge import merged
from journeyman.training.methods.trainers.skeleton import Row, Rows, TRLMethod
from journeyman.training.methods.trainers.weights import load_base

REPLY_TOKENS = Limits().tokens
"""Most tokens that the student samples where the recipe doesn't say."""

Prompted = SFTSample | PromptSample


class Distill(TRLMethod[Prompted, BoundDistillRecipe]):
    """The agent's own replies, each token judged by the teacher's distribution."""

    config = DistillationConfig

    def rows(
        self,
        samples: Sequence[Prompted],
        recipe: BoundDistillRecipe,
        tokenizer: PreTrainedTokenizerBase,
        stops: frozenset[int],
    ) -> list[Row]:
        _check(samples, recipe, tokenizer)
        try:
            return [_row(sample, recipe.known.form, tokenizer) for sample in samples]
        except TemplateError as error:
            raise TrainingError(f"the base model's chat template can't write a prompt: {error}; leave it out") from None

    def tokens(self, row: Row) -> list[int]:
        return max(row["prompt"], row["teacher_prompt"], key=len)

    def rules(self, rows: Sequence[Row]) -> list[Rule]:
        longest = max(row["reply"] for row in rows)
        why = "twice the longest reply of the rows" if longest else "what an agent may say where its crew says nothing"
        most = min(REPLY_TOKENS, 2 * longest) if longest else REPLY_TOKENS
        return [("max_completion_length", most, why)]

    def trainer(self, rows: Rows, recipe: BoundDistillRecipe, **given: Any) -> Trainer:
        return PromptedTrainer(teacher_model=_load(recipe.known, rows.longest), **given)


class PromptedTrainer(DistillationTrainer):
    """TRL's trainer, whose rows are tokens, and whose teacher reads the student's reply behind a prompt of its own."""

    def _tokenize_prompts(self, prompts: list[list[int]]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return prompts, None, {}

    def _generate_single_turn(self, *args: Any, **more: Any) -> Any:
        with self.accelerator.autocast():  # The adapter's float32 meets the base model's bfloat16.
            return super()._generate_single_turn(*args, **more)  # type: ignore[no-untyped-call]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        prompts = [torch.tensor(row["teacher_prompt"]) for row in inputs]
        given = {"teacher_ids": (prompts, self._tokenizer.pad_token_id)}
        given["teacher_mask"] = ([torch.ones_like(prompt) for prompt in prompts], 0)
        padded = {
            name: pad(rows, padding_value=value, padding_side="left").to(self.accelerator.device)
            for name, (rows, value) in given.items()
        }
        return batch | padded

    def _compute_loss(self, unwrapped_student: Any, inputs: dict[str, Any], num_items_in_batch: Any) -> Any:
        self._shown = inputs["teacher_ids"], inputs["teacher_mask"]
        with self.accelerator.autocast():
            return super()._compute_loss(unwrapped_student, inputs, num_items_in_batch)  # type: ignore[no-untyped-call]

    def _get_last_hidden_state(
        self,
        unwrapped_model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        **more: Any,
    ) -> torch.Tensor:
        if unwrapped_model is self.accelerator.unwrap_model(self.teacher_model):
            ids, mask = self._shown
            input_ids = torch.cat([ids, input_ids[:, -logits_to_keep:]], dim=1)
            attention_mask = torch.cat([mask, attention_mask[:, -logits_to_keep:]], dim=1)
        states: torch.Tensor = super()._get_last_hidden_state(
            unwrapped_model, input_ids, attention_mask, logits_to_keep, **more
        )
        return states


def _row(sample: Prompted, form: PromptForm | None, tokenizer: PreTrainedTokenizerBase) -> Row:
    """The student's prompt and its teacher's; the server's own ids are taken as they are."""
    prompt = list(sample.prompt_token_ids) if sample.prompt_token_ids else write_prompt(sample, tokenizer)
    shown = prompt if form is None else write_prompt(_shown(sample, form), tokenizer)
    return {"prompt": prompt, "teacher_prompt": shown, "reply": _length(sample, tokenizer)}


def _length(sample: Prompted, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the reply that a row has; 0 for one that has none."""
    if isinstance(sample, PromptSample):
        return 0
    return len(sample.token_ids or tokenizer(sample.completion)["input_ids"]) + 1


def _shown(sample: Prompted, form: PromptForm) -> Prompted:
    """The sample's prompt as a teacher is shown it: the form's instructions and examples in place of the agent's."""
    rest = sample.messages[1:] if sample.messages[0].role == "system" else sample.messages
    turns = [(("user", example.user), ("assistant", example.assistant)) for example in form.examples]
    told = [Message(role="system", content=form.instructions)]
    told += [Message(role=role, content=text) for turn in turns for role, text in turn]
    return sample.model_copy(update={"messages": (*told, *rest), "tools": form.tools or None})


def _check(samples: Sequence[Prompted], recipe: BoundDistillRecipe, tokenizer: PreTrainedTokenizerBase) -> None:
    if any(sample.weight != 1 for sample in samples):
        raise TrainingError(
            "distillation gives each row the same weight, these have weights: mine them without --credit, --mix, "
            "--hard and --balance"
        )
    if recipe.teacher.model is not None and read_tokenizer(recipe.known.model).get_vocab() != tokenizer.get_vocab():
        raise ConfigError(
            f"the teacher {recipe.known.model.name} has another tokenizer than the base model: let it demonstrate with "
            "`journeyman teach`, and train with the recipe sft"
        )


def _load(teacher: Teacher, longest: int) -> PreTrainedModel:
    if teacher.adapter is not None:
        return merged(teacher.model, teacher.adapter)
    return load_base(teacher.model, longest=longest)
