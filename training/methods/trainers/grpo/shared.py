"""Rows of one prompt, read together: the prompt once, and behind it replies that don't see each other.

The rollouts of a group have their prompt in common, and it is mostly longer than what was said to it. Where attention
takes a mask of any form, a reply's logprobs are the same whether its prompt is read for it alone or for its siblings
as well.
"""

from collections import defaultdict
from collections.abc import Iterator
from inspect import signature
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

FULL = "full_attention"


class Shared(NamedTuple):
    """Sequences of a prompt and replies to it, of shape (sequences, tokens) if nothing else is said."""

    ids: torch.Tensor
    positions: torch.Tensor
    """Of each token behind its prompt, whatever lies between."""
    mask: torch.Tensor
    """What a token sees, of shape (sequences, 1, tokens, tokens); true where it does."""
    sequence: torch.Tensor
    """For each token of all replies, row after row, the sequence that it is in; of shape (reply tokens,)."""
    before: torch.Tensor
    """Likewise, the place of the token before it."""


def shares(model: PreTrainedModel) -> bool:
    """Whether rows may be read together: each of the model's layers attends to all that its mask lets it see."""
    text = model.config.get_text_config()
    layers = getattr(text, "layer_types", None)
    windowed = getattr(text, "sliding_window", None) is not None if layers is None else set(layers) != {FULL}
    masked = model.config._attn_implementation == "sdpa"  # The others take no mask of truths, or none at all.
    return masked and not windowed and "position_ids" in signature(model.forward).parameters


def together(ids: torch.Tensor, mask: torch.Tensor, keep: int) -> Shared | None:
    """The rows of `ids` and `mask`, both of shape (rows, tokens) with prompts padded on the left and the last `keep`
    tokens for replies, padded on the right. None where no two rows can be read together.

    A sequence has as many replies as are together no longer than their prompt: beyond that, what attention computes
    for nothing outgrows what is saved.
    """
    bundles = list(_bundles(ids, mask, keep))
    if len(bundles) == len(ids):
        return None
    length = max(len(prompt) + sum(map(len, replies.values())) for prompt, replies in bundles)
    tokens, positions = ids.new_zeros(len(bundles), length), ids.new_zeros(len(bundles), length)
    reply = ids.new_full((len(bundles), length), -1)  # Which of its replies a token is of, 0 for the prompt.
    places: dict[int, tuple[int, list[int]]] = {}
    for number, (prompt, replies) in enumerate(bundles):
        end = start = len(prompt)
        tokens[number, :end], positions[number, :end], reply[number, :end] = prompt, torch.arange(end), 0
        for which, (row, said) in enumerate(replies.items(), 1):
            until = end + len(said)
            tokens[number, end:until], reply[number, end:until] = said, which
            positions[number, end:until] = torch.arange(start, start + len(said))
            places[row] = number, [start - 1, *range(end, until - 1)][: len(said)]
            end = until
    order = [places[row] for row in range(len(ids))]
    behind = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    sees = (reply[:, None, :] == 0) | (reply[:, None, :] == reply[:, :, None])
    return Shared(
        ids=tokens,
        positions=positions,
        mask=(sees & behind)[:, None],
        sequence=torch.tensor([number for number, before in order for _ in before], device=ids.device),
        before=torch.tensor([place for _, before in order for place in before], device=ids.device),
    )


def _bundles(
    ids: torch.Tensor, mask: torch.Tensor, keep: int
) -> Iterator[tuple[torch.Tensor, dict[int, torch.Tensor]]]:
    """A prompt and the replies that are read with it, each by its row; none of them has padding."""
    rows: dict[tuple[int, ...], list[int]] = defaultdict(list)
    prompts = [one[seen.bool()] for one, seen in zip(ids[:, :-keep], mask[:, :-keep], strict=True)]
    replies = [one[seen.bool()] for one, seen in zip(ids[:, -keep:], mask[:, -keep:], strict=True)]
    for row, prompt in enumerate(prompts):
        rows[tuple(prompt.tolist())].append(row)
    for prompt, asked in rows.items():
        bundle: dict[int, torch.Tensor] = {}
        for row in asked:
            if bundle and sum(map(len, bundle.values())) + len(replies[row]) > len(prompt):
                yield prompts[asked[0]], bundle
                bundle = {}
            bundle[row] = replies[row]
        yield prompts[asked[0]], bundle
