"""Translation: attributes as older logs and older conventions wrote them, in the names and shapes of today."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError

from journeyman.traces import attributes as a
from journeyman.traces.conventions import conventions
from journeyman.traces.messages import Message, prompt_attributes, reply_attribute, write_result

Attributes = dict[str, JsonValue]

_MESSAGES = TypeAdapter(tuple[Message, ...])

_NUMBERED = re.compile(r"gen_ai\.(prompt|completion)\.(\d+)\.(.+)")
_NUMBERED_CALL = re.compile(r"tool_calls\.(\d+)\.(id|name|arguments)")


def translate(attributes: Mapping[str, JsonValue], version: int) -> Attributes:
    """The attributes of a span of `version` (`SpanRecord.version`; 0 for another program's) as they are written today.

    What is not understood stays as it is: a reader names it, and nothing is lost here.
    """
    return TRANSLATIONS[version](dict(attributes)) if version in TRANSLATIONS else dict(attributes)


def _version_1(attributes: Attributes) -> Attributes:
    """Messages had their text as `content`, the system message among them; a tool's result was text."""
    translated = _renamed(attributes)
    if prompt := _messages(attributes.get(a.INPUT_MESSAGES)):
        translated |= prompt_attributes(prompt)
    if replies := _messages(attributes.get(a.OUTPUT_MESSAGES)):
        translated[a.OUTPUT_MESSAGES] = reply_attribute(replies[0], _first(attributes.get(a.FINISH_REASONS)))
    result = attributes.get(a.TOOL_CALL_RESULT)
    if isinstance(result, str):
        translated[a.TOOL_CALL_RESULT] = write_result(result)
    return translated


def _renamed(attributes: Attributes) -> Attributes:
    """Under the conventions' names of today; where a span has both, the newer name's value counts."""
    table = conventions()
    translated: Attributes = {}
    for name, value in attributes.items():
        today = table.renamed.get(name) or name
        if today == name or today not in attributes:
            values = table.renamed_values.get(today, {})
            translated[today] = values.get(value, value) if isinstance(value, str) else value
    return translated


def _foreign(attributes: Attributes) -> Attributes:
    """Also what many instrumentations wrote before messages had an attribute: one for each field of each message."""
    told = _renamed({name: value for name, value in attributes.items() if not _NUMBERED.fullmatch(name)})
    if not any(map(_NUMBERED.fullmatch, attributes)):
        return told
    try:
        prompt = [_numbered_message(fields) for fields in _numbered(attributes, "prompt")]
        replies = _numbered(attributes, "completion")
        if replies:
            reason = str(replies[0].get("finish_reason") or "stop")
            told.setdefault(a.OUTPUT_MESSAGES, reply_attribute(_numbered_message(replies[0]), reason))
            told.setdefault(a.FINISH_REASONS, [reason])
    except ValidationError:
        return _renamed(attributes)
    if (kind := told.get("llm.request.type")) in ("chat", "completion"):
        told.setdefault(a.OPERATION, "chat" if kind == "chat" else "text_completion")
    return {**prompt_attributes(prompt), **told}


def _numbered(attributes: Attributes, side: str) -> list[dict[str, JsonValue]]:
    """The fields of each message that has an attribute for each of them, in the messages' order."""
    messages: dict[int, dict[str, JsonValue]] = defaultdict(dict)
    for name, value in attributes.items():
        if (found := _NUMBERED.fullmatch(name)) and found[1] == side:
            messages[int(found[2])][found[3]] = value
    return [fields for _, fields in sorted(messages.items())]


def _numbered_message(fields: Mapping[str, JsonValue]) -> Message:
    calls: dict[int, dict[str, Any]] = defaultdict(lambda: {"id": "", "arguments": {}})
    for name, value in fields.items():
        if found := _NUMBERED_CALL.fullmatch(name):
            calls[int(found[1])][found[2]] = _parsed(value) if found[2] == "arguments" else value
    return Message.model_validate(
        {
            "role": fields.get("role", "assistant"),
            "content": fields.get("content", ""),
            "tool_calls": [call for _, call in sorted(calls.items())],
            "tool_call_id": fields.get("tool_call_id"),
        }
    )


def _messages(value: JsonValue) -> tuple[Message, ...]:
    """The messages of a text in the shape of version 1; none for any other text."""
    try:
        return _MESSAGES.validate_json(value) if isinstance(value, str) else ()
    except ValidationError:
        return ()


def _first(values: JsonValue) -> str | None:
    return str(values[0]) if isinstance(values, list) and values and values[0] is not None else None


def _parsed(value: JsonValue) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


TRANSLATIONS: dict[int, Callable[[Attributes], Attributes]] = {0: _foreign, 1: _version_1}
