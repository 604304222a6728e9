"""Rows: samples as tokens, prompts as a server of the model would see them and replies to the end of their turn."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from journeyman.traces.errors import ConfigError, TrainingError
from journeyman.traces.messages import Message, ToolCall, chat_message, chat_tool
from journeyman.training.data.samples import SFTSample

MARK = "journeyman's reply"
"""Stands for a reply where it is asked what a template writes around one."""


def read_tokenizer(base_model: Path) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(base_model, local_files_only=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return cast(PreTrainedTokenizerBase, tokenizer)


class Asked(Protocol):
    """What a reply was given to, as samples of every kind of reply hold it."""

    @property
    def messages(self) -> Sequence[Message]: ...
    @property
    def tools(self) -> Sequence[Mapping[str, Any]] | None: ...
    @property
    def prompt_token_ids(self) -> Sequence[int] | None: ...


class Reply(Protocol):
    """A reply, as samples or their sides hold it."""

    @property
    def completion(self) -> str: ...
    @property
    def tool_calls(self) -> Sequence[ToolCall] | None: ...
    @property
    def token_ids(self) -> Sequence[int] | None: ...


class Writer:
    """Prompts and replies as tokens: the server's own where it said them, else what it would make of the same text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._frame = _frame(tokenizer, stops)

    def prompt(self, asked: Asked) -> list[int]:
        return list(asked.prompt_token_ids or ()) or write_prompt(asked, self._tokenizer)

    def reply(self, asked: Asked, reply: Reply) -> list[int]:
        """To the end of its turn."""
        if reply.token_ids:
            return list(reply.token_ids)
        if reply.tool_calls:
            return _called(asked, reply, self._tokenizer, self._frame)
        return [*self._tokenizer(reply.completion, add_special_tokens=False)["input_ids"], self._frame.end]


S = TypeVar("S")


class UnwritableError(Exception):
    """Why a sample can't be a row."""


def sft_row(sample: SFTSample, writer: Writer) -> dict[str, Any]:
    """Token ids, a mask that is 1 on what is learned, and the weight."""
    prompt, completion = writer.prompt(sample), writer.reply(sample, sample)
    return {
        "input_ids": prompt + completion,
        "completion_mask": [0] * len(prompt) + [1] * len(completion),
        "weight": sample.weight,
    }


def write_rows(
    samples: Sequence[S],
    tokenizer: PreTrainedTokenizerBase,
    stops: frozenset[int],
    row: Callable[[S, Writer], dict[str, Any]] = sft_row,  # type: ignore[assignment]
) -> list[dict[str, Any]]:
    """Samples as tokens, each by `row`; `stops` are those at which a server ends a reply.

    Raises `TrainingError` where the model's template can't write a sample as a server would.
    """
    rows, unwritable = [], Counter[str]()
    writer = Writer(tokenizer, stops)
    for sample in samples:
        try:
            rows.append(row(sample, writer))
        except (TemplateError, UnwritableError) as error:
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


def _called(asked: Asked, reply: Reply, tokenizer: PreTrainedTokenizerBase, frame: _Frame) -> list[int]:
    """What the template writes for a reply with calls, to the end of the turn."""
    calling = Message(role="assistant", content=reply.completion, tool_calls=tuple(reply.tool_calls or ()))
    mute = calling.model_copy(update={"tool_calls": ()})
    prompt = _shown(tokenizer, asked.messages, asked.tools, True)
    whole, without = (_shown(tokenizer, (*asked.messages, one), asked.tools, False) for one in (calling, mute))
    if whole == without:
        raise UnwritableError("it leaves tool calls out")
    written = whole.removeprefix(prompt).removeprefix(frame.before)
    ids: list[int] = tokenizer(written, add_special_tokens=False)["input_ids"]
    ends = [place for place, token in enumerate(ids) if token in frame.stops]
    if not whole.startswith(prompt) or not ends:
        raise UnwritableError("a reply with calls doesn't follow on the prompt")
    return ids[: ends[-1] + 1]


def write_prompt(asked: Asked, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of a prompt: those that a server of the model makes of the same messages and tools."""
    if tokenizer.chat_template is None:
        raise ConfigError("the base model has no chat template, so messages can't be turned into prompts")
    ids = tokenizer.apply_chat_template(
        _chat(asked.messages), tools=_functions(asked.tools), add_generation_prompt=True, return_dict=False
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
