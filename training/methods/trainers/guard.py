"""Guards against forgetting: what a training did to old rows, and how far the adapter speaks from its base model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from peft import PeftModel
from torch.nn.functional import log_softmax
from transformers import PreTrainedTokenizerBase, Trainer

from journeyman.runtime.adapters.adapter import Drift, OldRows
from journeyman.training.methods.earlier import Earlier

NEUTRAL = (
    ("Hello! How are you today?", "Hello! How are you today?"),
    ("What is the capital of Australia?", "The capital of Australia is Canberra."),
    ("Write one sentence about the sea.", "The sea is a vast and mysterious realm, teeming with life and unending in"),
    (
        "Explain in a few words why the sky is blue.",
        "The sky is blue because of a process called Rayleigh scattering, which",
    ),
    ("List three kinds of fruit.", "1. Bananas\n2. Oranges\n3. Grapes\n4"),
    ("What is 12 plus 30?", "12 + 30 = 32."),
    ("Translate into French: good morning.", "Je suis bonjour."),
    ("Give a synonym of the word happy.", "A happy person is a happy person who is not necessarily happy."),
    ("Who wrote Hamlet?", "The Bard's own son, William Shakespeare, penned the iconic play \"Hamlet"),
    (
        "Name a tool that a carpenter uses.",
        "A carpenter uses a variety of tools to create and maintain their craft.",
    ),
    ("Finish the sentence: Once upon a time", "Once upon a time, there was a person named Fin."),
    ("How many days are there in a week?", "A week is approximately 7 days."),
)
"""Prompts that have nothing to do with any agent's work, and the embedded model's greedy replies, cut short."""

_KNEW = "knew"
"""Name, within a PEFT model, of the adapter that knew the old rows."""


def take_old_rows(trainer: Trainer, held_out: int) -> Dataset | None:
    """The rows behind the first `held_out` of the trainer's evaluation rows, which keeps those; None without any.

    TRL prepares rows when a trainer is made: old rows go through it beside those that are held out.
    """
    rows = trainer.eval_dataset
    if not isinstance(rows, Dataset) or len(rows) == held_out:
        return None
    trainer.eval_dataset = rows.select(range(held_out)) if held_out else None
    return rows.select(range(held_out, len(rows)))


def old_rows(trainer: Trainer, rows: Dataset | None, earlier: Earlier, worst: float) -> OldRows | None:
    """Their loss now, and under the policy that knew them."""
    if rows is None:
        return None
    model = trainer.model
    assert isinstance(model, PeftModel)
    after = _loss(trainer, rows)
    with _knowing(model, earlier):
        before = _loss(trainer, rows)
    return OldRows(rows=len(rows), before=before, after=after, against=earlier.against, worst=worst)


def drift_of(model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> Drift:
    """How far the adapter speaks from its base model on neutral prompts: KL(adapter ‖ base) over fixed replies.

    `agreement` tells whether instructions still work: 1 where the adapter would say, token by token, what the base
    model would.
    """
    model.eval()
    batch = {name: tensor.to(model.device) for name, tensor in _neutral(tokenizer).items()}
    with torch.no_grad():
        ours = _logprobs(model, **batch)
        with model.disable_adapter():
            theirs = _logprobs(model, **batch)
    return Drift(
        kl=float((ours.exp() * (ours - theirs)).sum(dim=-1).mean()),
        agreement=float((ours.argmax(dim=-1) == theirs.argmax(dim=-1)).float().mean()),
        tokens=len(ours),
    )


def _loss(trainer: Trainer, rows: Dataset) -> float:
    # Trainer.evaluate would tell the callbacks, one of which counts looks without a lower loss.
    loader = trainer.get_eval_dataloader(rows)
    metrics = trainer.evaluation_loop(loader, "old rows", prediction_loss_only=True, metric_key_prefix="old").metrics
    assert metrics is not None
    return float(metrics["old_loss"])


@contextmanager
def _knowing(model: PeftModel, earlier: Earlier) -> Iterator[None]:
    """The model with the weights of the policy that knew the old rows."""
    if earlier.knew is None:
        with model.disable_adapter():
            yield
        return
    ours = model.active_adapter
    model.load_adapter(str(earlier.knew), _KNEW)
    model.set_adapter(_KNEW)
    try:
        yield
    finally:
        model.set_adapter(ours)
        model.delete_adapter(_KNEW)


def _neutral(tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """`input_ids`, `attention_mask` and a mask `said` of the replies' tokens, each a row a prompt."""
    ids, said = list[list[int]](), list[torch.Tensor]()
    for asked, reply in NEUTRAL:
        prompt, completion = _asked(asked, tokenizer), tokenizer(reply, add_special_tokens=False)["input_ids"]
        ids.append([*prompt, *completion])
        said.append(torch.tensor([False] * len(prompt) + [True] * len(completion)))
    batch = tokenizer.pad({"input_ids": ids}, padding_side="right", return_tensors="pt")
    masks = torch.nn.utils.rnn.pad_sequence(said, batch_first=True)
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "said": masks}


def _asked(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    if tokenizer.chat_template is None:
        return cast("list[int]", tokenizer(f"{text}\n")["input_ids"])
    chat = [{"role": "user", "content": text}]
    return cast("list[int]", tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))


def _logprobs(
    model: PeftModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, said: torch.Tensor
) -> torch.Tensor:
    """Of all the vocabulary, before each token of the replies: one row a token."""
    base: Any = model.get_base_model()
    states = base.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
    logits = base.get_output_embeddings()(states[:, :-1][said[:, 1:]])
    return log_softmax(logits.float(), dim=-1)
