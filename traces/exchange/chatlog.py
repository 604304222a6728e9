"""Chat logs: the JSON that OpenAI's and Anthropic's API, files for fine-tuning, LangChain and LangGraph leave."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import JsonValue, ValidationError

from journeyman.traces.base import first_mistake
from journeyman.traces.errors import StoreError
from journeyman.traces.exchange.chat_messages import (
    finish_reason,
    is_message,
    label,
    read_message,
    read_texts,
    read_usage,
    table,
    text,
)
from journeyman.traces.exchange.conversation import Conversation, Entry
from journeyman.traces.exchange.pairing import paired
from journeyman.traces.messages import Message

SCORES = ("score", "rating")
"""Keys beside the messages that become labels of the same name."""

TIMES = ("created", "created_at", "timestamp")
"""Keys beside the messages that say when they were; the first that says something counts."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

LATEST_NS = 2**63
"""A time of a span is a number of nanoseconds below this one, in the year 2262."""

UNITS = {11: 10**9, 14: 10**6, 17: 10**3, 19: 1}
"""Nanoseconds of seconds, milliseconds, microseconds and nanoseconds, by the most digits that a time in them has."""


def conversations(value: JsonValue) -> Iterator[JsonValue]:
    """The conversations in a JSON document, still as they are: one, or a list of them."""
    if isinstance(value, list) and value and not is_message(value[0]):
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
    entries = paired([*_system(log), *_entries(rows), *_response(log, len(rows) + 1)])
    if not any(entry.message.role == "assistant" for entry in entries):
        raise StoreError("nobody replies: a conversation needs a message of role `assistant` (or type `ai`)")
    scores = {name: log[name] for name in SCORES if log.get(name) is not None}
    try:
        return Conversation(
            entries=entries,
            id=label(log, "id", "custom_id"),
            model=text(log, "model"),
            started_ns=_time(log),
            session=label(log, "session", "session_id", "conversation_id", "thread_id"),
            user=label(log, "user"),
            tools=tuple(map(_tool, _tools(log))),
            metadata=table(log.get("metadata")),
            scores=scores,
        )
    except ValidationError as error:
        raise StoreError(first_mistake(error)) from None


def _messages(value: JsonValue) -> Sequence[Mapping[str, Any]]:
    found: Any = value
    if isinstance(value, dict):
        log = _flat(value)
        found = log.get("messages")
    if isinstance(found, list) and found and all(is_message(row) for row in found):
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


def _system(log: Mapping[str, Any]) -> Iterator[Entry]:
    """The system prompt that stands beside the messages, as Anthropic's API has it."""
    try:
        words = read_texts(log.get("system"), between="")
    except StoreError as error:
        raise StoreError(f"`system` {error}") from None
    if words:
        yield Entry(message=Message(role="system", content=words))


def _entries(rows: Sequence[Mapping[str, Any]], first: int = 1) -> Iterator[Entry]:
    for number, row in enumerate(rows, first):
        try:
            yield from read_message(row)
        except StoreError as error:
            raise StoreError(f"message {number} {error}") from None


def _response(log: Mapping[str, Any], number: int) -> list[Entry]:
    """The reply that stands beside the prompt, as a text, a message or a whole response of the API."""
    response: Any = log.get("response", log)
    if isinstance(response, str):
        response = {"choices": [{"message": {"role": "assistant", "content": response}}]}
    elif isinstance(response, dict):
        response = _flat(response)
        if "role" in response:
            response = {**response, "choices": [{"message": response}]}
    choices = response.get("choices") if isinstance(response, dict) else None
    if not choices:
        return []
    if not isinstance(choices, list) or not isinstance(choices[0], dict) or not is_message(choices[0].get("message")):
        raise StoreError("`choices` must be a list, and its first entry must have a `message`")
    entry, *others = _entries([choices[0]["message"]], number)
    if others or entry.message.role != "assistant":
        raise StoreError("the response must be one message of role `assistant`")
    known = {
        "model": text(response, "model"),
        "response_id": text(response, "id"),
        "finish_reason": finish_reason(text(choices[0], "finish_reason")),
        "usage": read_usage(response.get("usage")),
    }
    return [entry.model_copy(update={name: value for name, value in known.items() if value is not None})]


def _tools(log: Mapping[str, Any]) -> list[Any]:
    """The definitions, which some files of rows keep as the text of a list."""
    tools = log.get("tools") or log.get("functions") or []
    try:
        tools = json.loads(tools) if isinstance(tools, str) else tools
    except ValueError:
        tools = None
    if not isinstance(tools, list):
        raise StoreError("`tools` must be a list of definitions, or the JSON text of one")
    return tools


def _tool(definition: Any) -> JsonValue:
    """A tool's definition in the conventions' shape: OpenAI nests it, Anthropic and older OpenAI have it bare."""
    if not isinstance(definition, dict):
        return definition  # type: ignore[no-any-return]
    if "type" in definition and not {"function", "input_schema"} & definition.keys():
        return definition
    known = definition["function"] if isinstance(definition.get("function"), dict) else definition
    parameters = {"parameters": known["input_schema"]} if "input_schema" in known else {}
    return {**{name: one for name, one in known.items() if name != "input_schema"}, **parameters, "type": "function"}


def _time(log: Mapping[str, Any]) -> int | None:
    """Nanoseconds since 1970 of a number since then, or of a date in ISO 8601 (UTC where it names no zone).

    Raises `StoreError` where it can't be read: the file's own time would be a wrong one.
    """
    name = next((name for name in TIMES if log.get(name)), None)
    if name is None:
        return None
    value = log[name]
    try:
        number = _number(value)
        ns = _date_ns(value) if number is None else _scaled_ns(number)
    except (ValueError, TypeError, OverflowError):
        ns = 0
    if 0 < ns < LATEST_NS:
        return ns
    raise StoreError(
        f"`{name}` {str(value)[:40]!r} isn't a time: write seconds, milliseconds, microseconds or nanoseconds since "
        "1970, or a date in ISO 8601"
    )


def _date_ns(value: str) -> int:
    moment = datetime.fromisoformat(value)
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH
    return since // timedelta(microseconds=1) * 1000


def _scaled_ns(number: float) -> int:
    return next((round(number * factor) for digits, factor in UNITS.items() if 0 < number < 10**digits), 0)


def _number(value: Any) -> int | float | None:
    """A number, or one that was written as a text; eight digits or fewer are a date without its dashes."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    if not isinstance(value, str):
        return value
    if not re.fullmatch(r"\s*\d{9,}(\.\d*)?\s*", value):
        return None
    return float(value) if "." in value else int(value)
