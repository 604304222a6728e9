"""Whether a model still does what it is told: short orders with outcomes to check, and its own earlier replies."""

import re
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch.nn.functional import cross_entropy
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

NEUTRAL = (
    "What do plants need to grow?",
    "Why do people keep diaries?",
    "How do I make a cup of tea?",
    "What is a bridge for?",
    "Describe a quiet morning.",
    "What happens when ice melts?",
)
"""Questions of no task, whose replies show how far a model went from what it was."""

TOKENS = 32
"""Of a reply at most."""


class InstructionCheck:
    """The same look at a model before and after it learns; made with the model as it was."""

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._before = _replies(model, tokenizer, NEUTRAL)

    def measure(self, model: Any) -> dict[str, float]:
        """`instructions`: the share of orders that the model follows, from 0 to 1. `reply_loss`: nats a token of the
        replies that it gave, as it was, to neutral questions."""
        replies = _replies(model, self._tokenizer, [order for order, _ in ORDERS])
        texts = [cast(str, self._tokenizer.decode(ids, skip_special_tokens=True)).strip() for _, ids in replies]
        followed = [bool(re.fullmatch(right, text)) for text, (_, right) in zip(texts, ORDERS, strict=True)]
        return {"instructions": sum(followed) / len(followed), "reply_loss": _loss(model, self._before)}


@torch.no_grad()
def _replies(
    model: Any, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str]
) -> list[tuple[list[int], list[int]]]:
    """The tokens of each prompt and of its likeliest reply."""
    prompts = [
        cast(
            "list[int]",
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
            ),
        )
        for question in questions
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
    return list(zip(prompts, replies, strict=True))


@torch.no_grad()
def _loss(model: Any, replies: Sequence[tuple[list[int], list[int]]]) -> float:
    model.eval()
    total, count = 0.0, 0
    for prompt, reply in replies:
        ids = torch.tensor([[*prompt, *reply]], device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        total += cross_entropy(logits, ids[0, len(prompt) :], reduction="sum").item()
        count += len(reply)
    return total / count
