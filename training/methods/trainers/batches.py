"""Batches: which rows a step learned from, so that a step that went wrong can name its row."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import Trainer


class Batches(Dataset[Any]):
    """A trainer's rows, and which of them each batch took. The loader is a batch ahead of the trainer."""

    def __init__(self, rows: Any, lengths: Sequence[int]) -> None:
        """`lengths`: tokens of each row."""
        self.rows = rows
        self._lengths = lengths
        self._ahead = deque[list[int]]()
        self.step: list[int] = []
        """Numbers of the rows of the step that is being computed."""

    @property
    def tokens(self) -> int:
        """Of the step."""
        return sum(self._lengths[row] for row in self.step)

    def take(self) -> None:
        """Another batch of the step was computed."""
        if self._ahead:
            self.step.extend(self._ahead.popleft())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Any:
        return self.rows[row]

    def __getitems__(self, rows: list[int]) -> list[Any]:
        """What a loader calls, once for each batch."""
        self._ahead.append(rows)
        return [self.rows[row] for row in rows]


def worst_row(trainer: Trainer, batches: Batches) -> int | None:
    """The row of the step with the largest loss, each computed by itself; a loss that is no number is the largest.

    None where the loss of a row that isn't in the step is no number either: then the weights are at fault.
    """
    losses = {row: _loss(trainer, batches.rows[row]) for row in dict.fromkeys(batches.step)}
    other = next((row for row in range(len(batches)) if row not in losses), None)
    if not losses or (other is not None and not math.isfinite(_loss(trainer, batches.rows[other]))):
        return None
    return max(losses, key=lambda row: losses[row] if math.isfinite(losses[row]) else math.inf)


@torch.no_grad()
def _loss(trainer: Trainer, row: Any) -> float:
    assert trainer.model is not None
    inputs = trainer._prepare_inputs(trainer.data_collator([row]))
    with trainer.accelerator.autocast():
        loss = trainer.compute_loss(trainer.model, inputs)
    assert isinstance(loss, torch.Tensor)
    return loss.item()
