"""Messages of a chat log, as OpenAI's API, Anthropic's API and LangChain write them, as entries of a conversation."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from journeyman.traces.errors import StoreError
from journeyman.traces.exchange.conversation import Entry
from journeyman.traces.messages import BETWEEN_TEXTS, Message, Role, ToolCall, Usage

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "SystemMessageChunk": "system",
    "user": "user",
    "human": "user",
    "HumanMessageChunk": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "AIMessageChunk": "assistant",
    "tool": "tool",
    "function": "tool",
    "ToolMessageChunk": "tool",
    "FunctionMessageChunk": "tool",
}
"""A message's `role` (OpenAI, Anthropic) or `type` (LangChain), in our words."""

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    "safety": "content_filter",
}
"""Why a reply ended: other providers' words, in small letters, in OpenAI's. A reply that was cut short must show."""

FILTERED = "content_filter"

TEXTS = ("text", "input_text", "output_text")
REFUSAL = "refusal"
REASONING = ("thinking", "redacted_thinking", "reasoning", "reasoning_content")
"""What a model thought to itself: left out, as no prompt of a later turn has it."""
CALLS = ("tool_use", "tool_call")
RESULT = "tool_result"


def read_message(row: Mapping[str, Any]) -> Iterator[Entry]:
    """The entries of one message: Anthropic's user message may hold results of tools beside its text.

    Raises `StoreError` for what cannot be read.
    """
    message = _unwrapped(row)
    role = ROLES.get(str(message.get("role", message.get("type"))))
    if role is None:
        raise StoreError(f"has an unknown role: {message.get('role', message.get('type'))!r}")
    blocks = _blocks(message)
    results = [block for block in blocks if block.get("type") == RESULT]
    rest = [block for block in blocks if block.get("type") != RESULT]
    if results and role != "user":
        raise StoreError(f"has the result of a tool, and the role {role!r}: a user's message holds it")
    yield from map(_result, results)
    if rest or not results:
        yield _entry(message, role, rest)


def read_texts(content: Any, between: str = BETWEEN_TEXTS) -> str:
    """The text of a content that may hold nothing else, such as a system prompt."""
    return _text_of(_blocks({"content": content}), between)


def is_message(value: Any) -> bool:
    if not isinstance(value, dict) or "messages" in value:
        return False
    return value.get("type") in ("constructor", *ROLES) if "role" not in value else isinstance(value["role"], str)


def read_usage(counts: Any) -> Usage | None:
    """Tokens in OpenAI's words, in LangChain's, or in Anthropic's, which counts cached ones apart from the others."""
    if not isinstance(counts, dict):
        return None
    details = table(counts.get("input_token_details")) | table(counts.get("prompt_tokens_details"))
    apart = _count(counts, "cache_read_input_tokens")
    return Usage(
        input_tokens=_count(counts, "input_tokens", "prompt_tokens")
        + apart
        + _count(counts, "cache_creation_input_tokens"),
        output_tokens=_count(counts, "output_tokens", "completion_tokens"),
        cached_tokens=_count(details, "cache_read", "cached_tokens") or apart,
    )


def finish_reason(word: str | None) -> str | None:
    return None if word is None else FINISH_REASONS.get(word.lower(), word.lower() if word.isupper() else word)


def text(row: Mapping[str, Any], *names: str) -> str | None:
    """The first of the values that is a text."""
    return next((value for name in names if isinstance(value := row.get(name), str) and value), None)


def label(row: Mapping[str, Any], *names: str) -> str | None:
    """The first of the values that is a text, or a whole number, as some logs count their ids."""
    values = (row.get(name) for name in names)
    return next((str(value) for value in values if value != "" and type(value) in (str, int)), None)


def table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _unwrapped(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message as LangChain's `dumpd` or `messages_to_dict` wraps it, without its wrapping."""
    for name in ("kwargs", "data"):
        if isinstance(row.get(name), dict):
            kind = row.get("type")
            return {**row[name], **({"type": kind} if isinstance(kind, str) and kind in ROLES else {})}
    return row


def _entry(message: Mapping[str, Any], role: Role, blocks: Sequence[Mapping[str, Any]]) -> Entry:
    about = table(message.get("response_metadata"))
    name = text(message, "name")
    if message.get("audio"):
        raise StoreError("has audio: only text, tool calls and their results can be imported")
    return Entry(
        message=Message(
            role=role,
            content=_text_of(block for block in blocks if block.get("type") not in CALLS),
            tool_calls=tuple(_tool_calls(message, blocks)) if role == "assistant" else (),
            tool_call_id=label(message, "tool_call_id") if role == "tool" else None,
            name=name if role in ("system", "user") else None,  # Of others it says which agent, or which tool.
        ),
        agent=name if role == "assistant" else None,
        model=text(about, "model_name", "model") or text(message, "model"),
        provider=text(about, "model_provider"),
        response_id=text(about, "id"),
        finish_reason=FILTERED if _refuses(message, blocks) else finish_reason(_end(about) or _end(message)),
        usage=read_usage(message.get("usage_metadata") or message.get("usage")),
        demonstration=message.get("weight") != 0,
        tool=name if role == "tool" else None,
        failed=message.get("status") == "error",
    )


def _end(row: Mapping[str, Any]) -> str | None:
    return text(row, "finish_reason", "stop_reason")


def _refuses(message: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]) -> bool:
    return bool(message.get(REFUSAL)) or any(block.get("type") == REFUSAL for block in blocks)


def _result(block: Mapping[str, Any]) -> Entry:
    """What a tool gave, in a user's message of Anthropic's API."""
    content = read_texts(block.get("content"))
    return Entry(
        message=Message(role="tool", content=content, tool_call_id=label(block, "tool_use_id")),
        failed=block.get("is_error") is True,
    )


def _blocks(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message.get("content")
    if content is None:
        content = text(message, REFUSAL) or ""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if not isinstance(content, list):
        raise StoreError(f"has a content that is neither text nor parts: {type(content).__name__}")
    return [part if isinstance(part, dict) else {"type": "text", "text": part} for part in content]


def _text_of(blocks: Iterator[Mapping[str, Any]] | Sequence[Mapping[str, Any]], between: str = BETWEEN_TEXTS) -> str:
    """The texts of a message, as vLLM joins them. Those with citations are pieces of a sentence."""
    whole, begun, cited = "", False, False
    for block in blocks:
        kind = block.get("type")
        if kind in REASONING:
            continue
        words = block.get(REFUSAL if kind == REFUSAL else "text")
        if kind not in (*TEXTS, REFUSAL) or not isinstance(words, str):
            raise StoreError(f"has a part of type {kind!r}: only text, tool calls and their results can be imported")
        before, cited = cited, "citations" in block
        whole += (between if begun and not (before or cited) else "") + words
        begun = True
    return whole


def _tool_calls(message: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]) -> Iterator[ToolCall]:
    if message.get("invalid_tool_calls"):
        raise StoreError("has a tool call whose arguments couldn't be read when it was made: leave it out")
    for call in _calls(message, blocks):
        function = call.get("function", call) if isinstance(call, dict) else {}
        if not isinstance(function, dict):
            function = {}
        name = function.get("name")
        arguments = next((function[key] for key in ("args", "arguments", "input") if key in function), None)
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except ValueError:
                arguments = ""
        if arguments is None:
            arguments = {}
        if name is None and isinstance(call, dict) and call.get("type") not in (None, "function", *CALLS):
            raise StoreError(f"has a tool call of type {call['type']!r}: only calls of functions can be imported")
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise StoreError(f"calls {name!r} with arguments that must be a JSON object")
        yield ToolCall(id=label(call, "id") or "", name=name, arguments=arguments)


def _calls(message: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The calls of a reply once, though LangChain has them both as `tool_calls` and among the parts."""
    # Older LangChain left them where the provider had them.
    for row in (message, table(message.get("additional_kwargs"))):
        calls = row.get("tool_calls") or []
        if not isinstance(calls, list):
            raise StoreError("has `tool_calls` that must be a list")
        if calls:
            return calls
        if isinstance(row.get("function_call"), dict):
            return [{"function": row["function_call"]}]
    return [block for block in blocks if block.get("type") in CALLS]


def _count(row: Mapping[str, Any], *names: str) -> int:
    """The first of the values that is a number of something."""
    return next((value for name in names if isinstance(value := row.get(name), int) and value > 0), 0)
