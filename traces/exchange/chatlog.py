"""Chat logs: the JSON that OpenAI's API, files for fine-tuning, LangChain and LangGraph leave, as conversations."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue, ValidationError

from journeyman.traces.base import first_mistake
from journeyman.traces.errors import StoreError
from journeyman.traces.exchange.conversation import Conversation, Entry
from journeyman.traces.messages import Message, Role, ToolCall, Usage

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "HumanMessageChunk": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "AIMessageChunk": "assistant",
    "tool": "tool",
    "function": "tool",
}
"""A message's `role` (OpenAI) or `type` (LangChain), in our words."""

SCORES = ("score", "rating")
"""Keys beside the messages that become labels of the same name."""


def conversations(value: JsonValue) -> Iterator[JsonValue]:
    """The conversations in a JSON document, still as they are: one, or a list of them."""
    if isinstance(value, list) and value and not _is_message(value[0]):
        yield from value
    else:
        yield value


def looks_like_chat(value: JsonValue) -> bool:
    """Whether the value is a conversation, or a list of them, by its keys."""
    first = next(conversations(value), None)
    try:
        return bool(_messages(first))
    except StoreError:
        return False


def read_conversation(value: JsonValue) -> Conversation:
    """One conversation; raises `StoreError` that says which message cannot be read and why."""
    rows = _messages(value)
    log = _flat(value) if isinstance(value, dict) else {}
    entries = [_entry(row, number) for number, row in enumerate(rows, 1)]
    entries += _response(log, len(entries) + 1)
    if not any(entry.message.role == "assistant" for entry in entries):
        raise StoreError("nobody replies: a conversation needs a message of role `assistant` (or type `ai`)")
    scores = {name: log[name] for name in SCORES if log.get(name) is not None}
    try:
        return Conversation(
            entries=tuple(entries),
            id=_text(log, "id", "custom_id"),
            model=_text(log, "model"),
            started_ns=_time(log.get("created") or log.get("created_at")),
            session=_text(log, "session", "session_id", "conversation_id", "thread_id"),
            user=_text(log, "user"),
            tools=tuple(_tool(tool) for tool in tools) if isinstance(tools := log.get("tools"), list) else (),
            metadata=_table(log.get("metadata")),
            scores=scores,
        )
    except ValidationError as error:
        raise StoreError(first_mistake(error)) from None


def _messages(value: JsonValue) -> Sequence[Mapping[str, Any]]:
    found: Any = value
    if isinstance(value, dict):
        log = _flat(value)
        found = log.get("messages")
    if isinstance(found, list) and found and all(_is_message(row) for row in found):
        return found
    raise StoreError(
        "no conversation: `messages` must be a list of objects with a `role` (OpenAI) or `type` (LangChain)"
    )


def _flat(value: Mapping[str, Any]) -> dict[str, Any]:
    """What a request, a response or a state was wrapped in, beside what stands outside; the inner word counts."""
    inner: dict[str, Any] = {}
    for name in ("request", "body", "values"):
        if isinstance(value.get(name), dict):
            inner |= value[name]
    return {**value, **inner}


def _is_message(value: JsonValue) -> bool:
    if not isinstance(value, dict) or "messages" in value:
        return False
    return value.get("type") in ("constructor", *ROLES) if "role" not in value else isinstance(value["role"], str)


def _response(log: Mapping[str, Any], number: int) -> list[Entry]:
    """The reply that stands beside the prompt, as a text, a message or a whole response of the API."""
    response: Any = log.get("response", log)
    if isinstance(response, str):
        response = {"choices": [{"message": {"role": "assistant", "content": response}}]}
    elif isinstance(response, dict):
        response = _flat(response)
        if "role" in response:
            response = {"choices": [{"message": response}]}
    choices = response.get("choices") if isinstance(response, dict) else None
    if not choices:
        return []
    if not isinstance(choices, list) or not isinstance(choices[0], dict) or not _is_message(choices[0].get("message")):
        raise StoreError("`choices` must be a list, and its first entry must have a `message`")
    entry = _entry(choices[0]["message"], number)
    known = {
        "model": _text(response, "model"),
        "response_id": _text(response, "id"),
        "finish_reason": _text(choices[0], "finish_reason"),
        "usage": _usage(response.get("usage")),
    }
    return [entry.model_copy(update={name: value for name, value in known.items() if value is not None})]


def _entry(row: Mapping[str, Any], number: int) -> Entry:
    message = _unwrapped(row)
    role = ROLES.get(str(message.get("role", message.get("type"))))
    if role is None:
        raise StoreError(f"message {number} has an unknown role: {message.get('role', message.get('type'))!r}")
    about = _table(message.get("response_metadata"))
    name = _text(message, "name")
    try:
        said = Message(
            role=role,
            content=_content(message),
            tool_calls=tuple(_tool_calls(message)) if role == "assistant" else (),
            tool_call_id=_text(message, "tool_call_id"),
        )
    except StoreError as error:
        raise StoreError(f"message {number} {error}") from None
    return Entry(
        message=said,
        agent=name if role == "assistant" else None,
        model=_text(about, "model_name", "model"),
        provider=_text(about, "model_provider"),
        response_id=_text(about, "id"),
        finish_reason=_text(about, "finish_reason", "stop_reason"),
        usage=_usage(message.get("usage_metadata")),
        demonstration=message.get("weight") != 0,
        tool=name if role == "tool" else None,
        failed=message.get("status") == "error",
    )


def _unwrapped(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message as LangChain's `dumpd` or `messages_to_dict` wraps it, without its wrapping."""
    for name in ("kwargs", "data"):
        if isinstance(row.get(name), dict):
            kind = row.get("type")
            return {**row[name], **({"type": kind} if isinstance(kind, str) and kind in ROLES else {})}
    return row


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if content is None:
        return _text(message, "refusal") or ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise StoreError(f"has a content that is neither text nor parts: {type(content).__name__}")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else "text"
        if kind in ("tool_use", "tool_call"):  # The same call stands in `tool_calls`.
            continue
        text = part if isinstance(part, str) else _table(part).get("text")
        if kind not in ("text", "input_text", "output_text") or not isinstance(text, str):
            raise StoreError(f"has a part of type {kind!r}: only text can be imported")
        texts.append(text)
    return "".join(texts)


def _tool_calls(message: Mapping[str, Any]) -> Iterator[ToolCall]:
    if message.get("invalid_tool_calls"):
        raise StoreError("has a tool call whose arguments couldn't be read when it was made: leave it out")
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise StoreError("has `tool_calls` that must be a list")
    if isinstance(message.get("function_call"), dict):
        calls = [{"function": message["function_call"]}]
    for call in calls:
        function = call.get("function", call) if isinstance(call, dict) else {}
        name, arguments = function.get("name"), function.get("args", function.get("arguments"))
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except ValueError:
                arguments = None
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise StoreError(f"calls {name!r} with arguments that must be a JSON object")
        yield ToolCall(id=str(call.get("id") or ""), name=name, arguments=arguments)


def _tool(definition: Any) -> JsonValue:
    """A tool's definition in the conventions' shape; OpenAI nests it under `function`."""
    if isinstance(definition, dict) and isinstance(definition.get("function"), dict):
        return {"type": "function", **definition["function"]}
    return definition  # type: ignore[no-any-return]


def _usage(counts: Any) -> Usage | None:
    """Tokens in OpenAI's words or in LangChain's."""
    if not isinstance(counts, dict):
        return None
    details = _table(counts.get("input_token_details")) | _table(counts.get("prompt_tokens_details"))
    return Usage(
        input_tokens=_count(counts, "input_tokens", "prompt_tokens"),
        output_tokens=_count(counts, "output_tokens", "completion_tokens"),
        cached_tokens=_count(details, "cache_read", "cached_tokens"),
    )


def _time(value: Any) -> int | None:
    """Nanoseconds since 1970 of seconds, milliseconds, or a date in ISO 8601 (UTC where it names no zone)."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e9)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e15:
        return None
    return round(value * (1e6 if value > 1e11 else 1e9))


def _text(row: Mapping[str, Any], *names: str) -> str | None:
    """The first of the values that is a text."""
    return next((value for name in names if isinstance(value := row.get(name), str) and value), None)


def _count(row: Mapping[str, Any], *names: str) -> int:
    """The first of the values that is a number of something."""
    return next((value for name in names if isinstance(value := row.get(name), int) and value > 0), 0)


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
