"""Rows: samples as tokens, prompts as a server of the model would see them and replies to the end of their turn."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from journeyman.traces.errors import ConfigError, TrainingError
from journeyman.traces.messages import Message, chat_message, chat_tool
from journeyman.training.data.samples import PromptSample, ReplySample, SFTSample

MARK = "journeyman's reply"
"""Stands for a reply where it is asked what a template writes around one."""


def read_tokenizer(base_model: Path) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(base_model, local_files_only=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return cast(PreTrainedTokenizerBase, tokenizer)


def write_rows(
    samples: Sequence[SFTSample], tokenizer: PreTrainedTokenizerBase, stops: frozenset[int]
) -> list[dict[str, Any]]:
    """Samples as tokens; `stops` are those at which a server ends a reply.

    Raises `TrainingError` where the model's template can't write a sample as a server would.
    """
    rows, unwritable = [], Counter[str]()
    frame = _frame(tokenizer, stops)
    for sample in samples:
        try:
            rows.append(_row(sample, tokenizer, frame))
        except (TemplateError, _UnwritableError) as error:
            unwritable[str(error).splitlines()[0]] += 1
    if unwritable:
        reason, count = unwritable.most_common(1)[0]
        raise TrainingError(
            f"the base model's chat template can't write {unwritable.total()} of {len(samples)} samples "
            f"({count}: {reason}): leave them out, or train a model whose template can"
        )
    return rows


class _Frame(NamedTuple):
    """What a template writes around the text of a reply."""

    before: str
    """Such as an empty thought: it stands in a history, and no model learns to begin with it."""
    end: int
    """The token that ends a turn, which need not be the tokenizer's own end."""
    stops: frozenset[int]


def stops_of(base_model: Path, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens at which vLLM ends a reply of the model: the tokenizer's own, and those of its generation config."""
    path = base_model / "generation_config.json"
    named = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.exists() else None
    more = named if isinstance(named, list) else [named]
    return frozenset(token for token in (tokenizer.eos_token_id, *more) if isinstance(token, int))


def _frame(tokenizer: PreTrainedTokenizerBase, stops: frozenset[int]) -> _Frame:
    bare = _Frame("", cast(int, tokenizer.eos_token_id), stops)
    if tokenizer.chat_template is None:
        return bare
    asked = Message(role="user", content="question")
    try:
        prompt = _shown(tokenizer, (asked,), None, True)
        whole = _shown(tokenizer, (asked, Message(role="assistant", content=MARK)), None, False)
    except TemplateError:
        return bare
    before, mark, after = whole.removeprefix(prompt).partition(MARK)
    if not mark or not whole.startswith(prompt):
        return bare
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    return _Frame(before, next((token for token in ids if token in stops), bare.end), stops)


class _UnwritableError(Exception):
    """Why a template can't write a demonstration."""


def _row(sample: SFTSample, tokenizer: PreTrainedTokenizerBase, frame: _Frame) -> dict[str, Any]:
    """Token ids, a mask that is 1 on what is learned, and the weight; the server's own ids are taken as they are."""
    if sample.prompt_token_ids and sample.token_ids:
        prompt, completion = list(sample.prompt_token_ids), list(sample.token_ids)
    else:
        prompt = write_prompt(sample, tokenizer)
        completion = (_called if sample.tool_calls else _said)(sample, tokenizer, frame)
    return {
        "input_ids": prompt + completion,
        "completion_mask": [0] * len(prompt) + [1] * len(completion),
        "weight": sample.weight,
    }


def _said(sample: SFTSample, tokenizer: PreTrainedTokenizerBase, frame: _Frame) -> list[int]:
    return [*tokenizer(sample.completion, add_special_tokens=False)["input_ids"], frame.end]


def _called(sample: SFTSample, tokenizer: PreTrainedTokenizerBase, frame: _Frame) -> list[int]:
    """What the template writes for a reply with calls, to the end of the turn."""
    reply = Message(role="assistant", content=sample.completion, tool_calls=sample.tool_calls or ())
    mute = reply.model_copy(update={"tool_calls": ()})
    prompt = _shown(tokenizer, sample.messages, sample.tools, True)
    whole, without = (_shown(tokenizer, (*sample.messages, one), sample.tools, False) for one in (reply, mute))
    if whole == without:
        raise _UnwritableError("it leaves tool calls out")
    written = whole.removeprefix(prompt).removeprefix(frame.before)
    ids: list[int] = tokenizer(written, add_special_tokens=False)["input_ids"]
    ends = [place for place, token in enumerate(ids) if token in frame.stops]
    if not whole.startswith(prompt) or not ends:
        raise _UnwritableError("a reply with calls doesn't follow on the prompt")
    return ids[: ends[-1] + 1]


def write_prompt(sample: ReplySample | PromptSample, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of a sample's prompt: those that a server of the model makes of the same messages and tools."""
    if tokenizer.chat_template is None:
        raise ConfigError("the base model has no chat template, so demonstrations can't be turned into prompts")
    ids = tokenizer.apply_chat_template(
        _chat(sample.messages), tools=_functions(sample.tools), add_generation_prompt=True, return_dict=False
    )
    return cast(list[int], ids)


def _shown(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None,
    replies: bool,
) -> str:
    chat, functions = _chat(messages), _functions(tools)
    text = tokenizer.apply_chat_template(chat, tools=functions, add_generation_prompt=replies, tokenize=False)
    return cast(str, text)


def _chat(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [chat_message(message, parsed=True) for message in messages]


def _functions(tools: Sequence[Mapping[str, Any]] | None) -> list[Any] | None:
    return None if tools is None else [chat_tool(tool) for tool in tools]
