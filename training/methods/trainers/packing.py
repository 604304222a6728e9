"""Packing: several rows in one, where the model keeps them apart."""

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from transformers import PreTrainedModel
from trl.data_utils import pack_dataset

from journeyman.traces.errors import ConfigError

LENGTH = 1024
"""Tokens of a pack, where the recipe names no `trl.max_length` and no row is longer."""

_ROW = 8
"""Tokens of the rows with which a model is tried."""


def pack(rows: Sequence[dict[str, Any]], limit: int | None) -> list[dict[str, Any]]:
    """Rows in packs of up to `limit` tokens, the longest first; a row is never cut. `seq_lengths` tells them apart.

    A pack's `weight` is a list with each token's.
    """
    length = limit or max(LENGTH, *(len(row["input_ids"]) for row in rows))
    by_token = [row | {"weight": [row["weight"]] * len(row["input_ids"])} for row in rows]
    packs: list[dict[str, Any]] = pack_dataset(Dataset.from_list(by_token), length).to_list()
    return packs


def check_separates(model: PreTrainedModel) -> None:
    """Raises `ConfigError` where one row of a pack would tell on the next.

    The model reads two packs that differ in their first row: what it makes of the second one must be the same.
    """
    second = torch.arange(_ROW)
    positions = torch.arange(_ROW).repeat(2)[None].to(model.device)
    states = []
    for first in (second + _ROW, second + 2 * _ROW):
        ids = torch.cat([first, second])[None].to(model.device)
        with torch.no_grad():
            read = model.base_model(input_ids=ids, position_ids=positions, use_cache=False)
        states.append(read.last_hidden_state[:, _ROW:])
    if not torch.allclose(states[0], states[1], atol=1e-3):
        raise ConfigError(
            "trl.packing can't be used: this model, with the attention that this machine has for it, would read one "
            "packed row into the next; leave it out"
        )
