"""Guards against forgetting: what a training did to old rows, and how far the adapter speaks from its base model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, Trainer

from journeyman.runtime.adapters.adapter import Drift, OldRows
from journeyman.training.methods.earlier import Earlier

NEUTRAL = (
    "Hello! How are you today?",
    "What is the capital of Australia?",
    "Write one sentence about the sea.",
    "Explain in a few words why the sky is blue.",
    "List three kinds of fruit.",
    "What is 12 plus 30?",
    "Translate into French: good morning.",
    "Give a synonym of the word happy.",
    "Who wrote Hamlet?",
    "Name a tool that a carpenter uses.",
    "Finish the sentence: Once upon a time",
    "How many days are there in a week?",
)
"""Prompts that have nothing to do with any agent's work."""
REPLY_TOKENS = 24
"""The longest reply of the base model that is compared."""

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


def drift_of(model: PeftModel, tokenizer: PreTrainedTokenizerBase, stops: frozenset[int]) -> Drift:
    """How far the adapter speaks from its base model on neutral prompts: KL(adapter ‖ base) over the base's replies.

    `agreement` tells whether instructions still work: 1 where the adapter would say what the base model says. Greedy
    replies are drawn from the base model, so nothing depends on a seed. `stops` are tokens that end a reply.
    """
    model.eval()
    prompts = {name: tensor.to(model.device) for name, tensor in _prompts(tokenizer).items()}
    with torch.no_grad(), model.disable_adapter():
        whole = model.generate(  # type: ignore[no-untyped-call]
            **prompts,
            max_new_tokens=REPLY_TOKENS,
            do_sample=False,
            eos_token_id=sorted(stops) or None,
            pad_token_id=tokenizer.pad_token_id,
            use_cache=True,
        )
    replies = whole[:, prompts["input_ids"].shape[1] :]
    said = _said(replies, stops)
    with torch.no_grad():
        ours = _logprobs(model, whole, prompts, said)
        with model.disable_adapter():
            theirs = _logprobs(model, whole, prompts, said)
    return Drift(
        kl=float((ours.exp() * (ours - theirs)).sum(dim=-1).mean()),
        agreement=float((ours.argmax(dim=-1) == replies[said]).float().mean()),
        tokens=int(said.sum()),
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


def _prompts(tokenizer: PreTrainedTokenizerBase) -> Mapping[str, torch.Tensor]:
    """Neutral prompts as one batch, filled up on the left."""
    if tokenizer.chat_template is None:
        ids = [tokenizer(text)["input_ids"] for text in NEUTRAL]
    else:
        chats = ([{"role": "user", "content": text}] for text in NEUTRAL)
        ids = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) for chat in chats]
    batch = tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt")
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def _said(replies: torch.Tensor, stops: frozenset[int]) -> torch.Tensor:
    """Which tokens belong to a reply: those up to its end, end included."""
    ends = torch.isin(replies, torch.tensor(sorted(stops), device=replies.device, dtype=replies.dtype))
    return (ends.cumsum(dim=1) - ends.int()) == 0


def _logprobs(
    model: PeftModel, whole: torch.Tensor, prompts: Mapping[str, torch.Tensor], said: torch.Tensor
) -> torch.Tensor:
    """Of all the vocabulary, at each token of the replies: one row a token."""
    mask = torch.cat([prompts["attention_mask"], said.to(prompts["attention_mask"].dtype)], dim=1)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    logits = model(
        input_ids=whole,
        attention_mask=mask,
        position_ids=positions,
        use_cache=False,
        logits_to_keep=said.shape[1] + 1,
    ).logits
    return torch.log_softmax(logits[:, :-1][said].float(), dim=-1)
