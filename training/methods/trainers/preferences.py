"""What the trainers of preferences add to TRL's: completions alone are scored, each row has its weight, and the
reference is computed once."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from trl.trainer.base_trainer import _BaseTrainer

REFERENCE = "ref"
"""TRL's name for the copy of an adapter that training starts from."""
SCORES = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
"""What TRL's head says of each token."""


class PreferenceTrainer(_BaseTrainer):
    """The part that stands before TRL's DPOTrainer or KTOTrainer. The loss is theirs."""

    references: ClassVar[Sequence[str]]
    """Columns of a row for what TRL's `compute_ref_log_probs` returns."""
    compute_ref_log_probs: Callable[..., Any]
    """TRL's: the log-probabilities of a batch under the reference."""
    _scores_completions = False

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)  # type: ignore[no-untyped-call]
        model = self.model
        assert isinstance(model, PeftModel)
        if REFERENCE in model.peft_config:  # All of it is in the rows now.
            model.delete_adapter(REFERENCE)

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """The rows with their log-probabilities under the policy that training starts from; TRL calls it once for each
        dataset, while that policy is still what the model is."""
        model = cast(PeftModel, self.model)
        if not self._scores_completions:
            score_completions(cast(PreTrainedModel, model.get_base_model()))
            self._scores_completions = True
        model.eval()
        batches = DataLoader(dataset, batch_size=batch_size, collate_fn=self.data_collator)
        scores = [self.compute_ref_log_probs(model, self._prepare_inputs(batch)) for batch in batches]
        for key, column in zip(self.references, zip(*scores, strict=True), strict=True):
            if column[0] is not None:
                dataset = dataset.add_column(key, torch.cat(column).tolist())
        return dataset


def score_completions(base: PreTrainedModel) -> None:
    """Makes TRL's fused head of `base` score completion tokens alone, and take `weight`, the factors of rows.

    Without a GPU, TRL projects every token on the vocabulary. A loss of log-probabilities is weighted through their
    gradients, which makes it the gradient of the weighted loss; the loss that is told stays that of equal rows.
    """
    whole = base.forward

    def forward(
        *args: Any,
        labels: torch.Tensor | None = None,
        weight: torch.Tensor | None = None,
        fused_lm_head: bool = False,
        **given: Any,
    ) -> Any:
        if not fused_lm_head or labels is None:
            return whole(*args, labels=labels, fused_lm_head=fused_lm_head, **given)
        learned = labels[:, 1:] != -100

        def narrow(module: torch.nn.Module, inputs: Any, outputs: Any) -> Any:
            outputs.last_hidden_state = outputs.last_hidden_state[:, :-1][learned][None]
            return outputs

        hook = base.base_model.register_forward_hook(narrow)
        try:
            scored = whole(*args, shift_labels=labels[:, 1:][learned][None], fused_lm_head=True, **given)
        finally:
            hook.remove()
        told = {name: getattr(scored, name) for name in SCORES}
        spread = {name: _spread(score, learned) for name, score in told.items() if score is not None}
        if weight is not None:
            factors = weight[:, None].to(spread["log_probs"].dtype)
            spread["log_probs"] = factors * spread["log_probs"] + (1 - factors) * spread["log_probs"].detach()
        return replace(scored, label_mask=learned, **spread)

    base.forward = forward


def _spread(scores: torch.Tensor, learned: torch.Tensor) -> torch.Tensor:
    return scores.new_zeros(learned.shape).masked_scatter(learned, scores)
