"""Whether a model still does what it is told: short orders with outcomes to check."""

import re
from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import PreTrainedTokenizerBase

ORDERS = (
    ("Reply with the single word: yes", r"(?i)yes\W*"),
    ("Write the number seven as a digit.", r".*\b7\b.*"),
    ("Say hello.", r"(?i).*\bhello\b.*"),
    ("Repeat this word and write nothing else: banana", r"(?i)\W*banana\W*"),
    ("List three colours, separated by commas.", r"[^,]+,[^,]+,[^,]+"),
    ("Answer yes or no: is water wet?", r"(?i)(yes|no)\b.*"),
    ("What is the capital of France?", r".*\bParis\b.*"),
    ("What is 2 + 3?", r".*(\b5\b|five).*"),
    ("Write a numbered list of two fruits.", r"(?s).*1\..*2\..*"),
    ('Reply with this JSON: {"ok": true}', r'(?s).*\{\s*"ok"\s*:\s*true\s*\}.*'),
)
"""An order, and what the whole reply to it must match."""

TOKENS = 32
"""Of a reply at most."""


def followed(model: Any, tokenizer: PreTrainedTokenizerBase) -> float:
    """The share of orders that the model follows, from 0 to 1."""
    replies = _replies(model, tokenizer, [order for order, _ in ORDERS])
    return sum(bool(re.fullmatch(right, text)) for text, (_, right) in zip(replies, ORDERS, strict=True)) / len(ORDERS)


@torch.no_grad()
def _replies(model: Any, tokenizer: PreTrainedTokenizerBase, orders: Sequence[str]) -> list[str]:
    """The likeliest reply to each."""
    prompts = [
        cast(
            "list[int]",
            tokenizer.apply_chat_template(
                [{"role": "user", "content": order}], add_generation_prompt=True, return_dict=False
            ),
        )
        for order in orders
    ]
    model.eval()
    end = tokenizer.eos_token_id
    longest = max(map(len, prompts))
    padded = torch.tensor([[end] * (longest - len(ids)) + ids for ids in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts], device=model.device)
    written = model.generate(
        input_ids=padded, attention_mask=mask, max_new_tokens=TOKENS, do_sample=False, pad_token_id=end
    )
    replies = (ids[: ids.index(end) + 1] if end in ids else ids for ids in written[:, longest:].tolist())
    return [cast(str, tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in replies]
