"""Chat shapes: what goes to a model and what comes back, and how the GenAI conventions write both on a span.

There a message is a list of typed parts, and a leading system message stands apart from the others. Reading gives back
the messages as they were sent: they are what training learns from.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, cast, get_args

from pydantic import JsonValue, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from journeyman.traces import attributes as a
from journeyman.traces.base import Record, first_mistake

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)

OTHER_ROLES: dict[str, Role] = {"developer": "system", "function": "tool", "model": "assistant"}
"""What other programs call a role that has a name of ours."""


class ToolCall(Record):
    """A call that a model asked for, its arguments already parsed: unparsed text never enters a history."""

    id: str
    name: str
    arguments: dict[str, JsonValue]


class Message(Record):
    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    """For role `tool`: the call that this answers."""
    name: str | None = None
    """Who of several speaks, where that was sent: a chat template may write it."""


class Usage(Record):
    """Tokens of one model call, or of many added up."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Input tokens that the server took from its prefix cache; part of `input_tokens`."""

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        if not (self.tokens and other.tokens):
            return self if self.tokens else other
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
        )


def prompt_attributes(prompt: Sequence[Message]) -> dict[str, str]:
    """Attributes for what was sent: the system message that it begins with, and the others."""
    apart = instructions_attribute(prompt)
    return {**apart, a.INPUT_MESSAGES: f"[{','.join(map(write_message, prompt[len(apart) :]))}]"}


def instructions_attribute(prompt: Sequence[Message]) -> dict[str, str]:
    """The attribute for the system message that a prompt begins with; none where it begins with another."""
    apart = bool(prompt) and _only_instructs(prompt[0])
    return {a.SYSTEM_INSTRUCTIONS: _instructions(prompt[0].content)} if apart else {}


def write_message(message: Message) -> str:
    """A member of the list that `gen_ai.input.messages` is: the same wherever the message stands."""
    return as_json(_written(message))


def reply_attribute(reply: Message, finish_reason: str | None = None) -> str:
    """The value of `gen_ai.output.messages` for the one reply that came back."""
    return as_json([_written(reply) | ({} if finish_reason is None else {"finish_reason": finish_reason})])


def read_prompt(attributes: Mapping[str, JsonValue]) -> tuple[Message, ...]:
    """What was sent, system message first; raises `ValueError` with a reason where it is no list of messages."""
    instructions = _list(attributes.get(a.SYSTEM_INSTRUCTIONS))
    messages = tuple(_read(message) for message in _list(attributes.get(a.INPUT_MESSAGES)))
    if not instructions:
        return messages
    return (Message(role="system", content=BETWEEN_TEXTS.join(map(_content, instructions))), *messages)


def read_reply(attributes: Mapping[str, JsonValue]) -> Message | None:
    """The first message that came back, None where there is none; raises `ValueError` like `read_prompt`."""
    replies = _list(attributes.get(a.OUTPUT_MESSAGES))
    return _read(replies[0]) if replies else None


def reply_end(value: JsonValue) -> str | None:
    """Why a reply ended, where only the message says so."""
    replies = _parsed(value)
    first = replies[0] if isinstance(replies, list) and replies else None
    reason = first.get("finish_reason") if isinstance(first, dict) else None
    return reason if isinstance(reason, str) else None


class NotForTrainingError(ValueError):
    """A message holds what a server of a text model can't have been sent, or what nobody can render as it was."""


BETWEEN_TEXTS = "\n"
"""What vLLM puts between the texts of one message, before a chat template sees it."""


def learnable_instructions(value: JsonValue) -> tuple[dict[str, Any], ...]:
    """The system message that instructions are sent as, like `learnable_messages`."""
    parts = _list(value)
    return tuple(one.model_dump(exclude_none=True) for one in _learnable("system", parts, None)) if parts else ()


def learnable_messages(value: JsonValue) -> Iterator[dict[str, Any]]:
    """Messages of an attribute as a server would have been sent them, as `model_dump(exclude_none=True)` gives them.

    Reasoning is left out, as servers leave it out of a history. Results of several calls in one message become one
    message each. Raises `NotForTrainingError`, with a reason fit for counting, where a part is neither text, call nor
    result, and `ValueError` like `read_prompt`.
    """
    for message in _list(value):
        if (plain := _plain(message)) is not None:
            yield plain
        else:
            yield from (one.model_dump(exclude_none=True) for one in _learnable(*_opened(message)))


def chat_message(message: Message, *, parsed: bool = False) -> dict[str, Any]:
    """A message of the chat API. `parsed`: with a call's arguments as an object, which is what chat templates read."""
    chat: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        chat["tool_calls"] = [_chat_call(call, parsed) for call in message.tool_calls]
    if message.tool_call_id is not None:
        chat["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        chat["name"] = message.name
    return chat


def chat_tool(definition: Mapping[str, Any], *, strict: bool = True) -> dict[str, Any]:
    """A tool's definition as the chat API has it. vLLM writes `strict` into the prompt, too."""
    return {"type": "function", "function": {**definition, **({"strict": True} if strict else {})}}


def as_json(value: object) -> str:
    """JSON as an attribute of a span has it."""
    try:
        return to_json(value, inf_nan_mode="constants").decode()
    except PydanticSerializationError:
        return _shown(value)  # It takes half a surrogate pair.


def write_result(content: str) -> str:
    """A tool's result as the conventions want it, a JSON object; `read_result` gives `content` back as it is."""
    return as_json({"content": content})


def read_result(value: JsonValue) -> str | None:
    """What a tool's result says: of an object of another program's making all of it, as JSON."""
    result = _parsed(value)
    if isinstance(result, dict) and result.keys() == {"content"} and isinstance(result["content"], str):
        return result["content"]
    return value if value is None or isinstance(value, str) else _shown(value)


def _only_instructs(message: Message) -> bool:
    return message.role == "system" and not message.tool_calls and message.tool_call_id is None and message.name is None


@lru_cache(maxsize=64)
def _instructions(content: str) -> str:
    """The same for every call of an agent, and often its longest text."""
    return as_json([{"type": "text", "content": content}])


def _written(message: Message) -> dict[str, JsonValue]:
    parts: list[JsonValue] = []
    if message.role == "tool" or message.tool_call_id is not None:
        parts.append({"type": "tool_call_response", "id": message.tool_call_id, "response": message.content})
    elif message.content or not message.tool_calls:
        parts.append({"type": "text", "content": message.content})
    parts += [{"type": "tool_call", **call.model_dump(mode="json")} for call in message.tool_calls]
    return {"role": message.role, "parts": parts, **({} if message.name is None else {"name": message.name})}


def _read(message: JsonValue) -> Message:
    plain = _plain(message)
    return _read_parts(*_opened(message)) if plain is None else Message(**plain)


def _plain(message: Any) -> dict[str, Any] | None:
    """A message that is one text and nothing else, as nearly all are."""
    try:
        role, (part,) = message["role"], message["parts"]
        if part["type"] == "text" and role in ROLES and isinstance(text := part["content"], str):
            return {"role": role, "content": text, "tool_calls": ()} if message.get("name") is None else None
    except (TypeError, KeyError, ValueError):
        pass
    return None


def _opened(message: JsonValue) -> tuple[Role, list[JsonValue], str | None]:
    if not isinstance(message, dict) or not isinstance(parts := message.get("parts"), list):
        raise ValueError("a message must be an object with a role and a list of parts")
    role, name = message.get("role"), message.get("name")
    role = OTHER_ROLES.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        raise ValueError(f"a message has the role {role!r}; it must be {', '.join(ROLES)}")
    return role, parts, name if isinstance(name, str) else None


def _read_parts(role: Role, parts: Sequence[JsonValue], name: str | None) -> Message:
    calls = [part for part in _objects(parts) if part.get("type") == "tool_call"]
    answers = [part for part in _objects(parts) if part.get("type") == "tool_call_response"]
    try:
        return Message(
            role=role,
            content=BETWEEN_TEXTS.join(_content(part) for part in _objects(parts) if part not in calls),
            tool_calls=tuple(
                ToolCall(id=_id(call) or "", name=str(call.get("name")), arguments=_arguments(call)) for call in calls
            ),
            tool_call_id=_id(answers[0]) if answers else None,
            name=name,
        )
    except ValidationError as error:
        raise ValueError(f"a message is unusable: {first_mistake(error)}") from None


def _chat_call(call: ToolCall, parsed: bool) -> dict[str, Any]:
    arguments = call.arguments if parsed else json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _learnable(role: Role, parts: Sequence[JsonValue], name: str | None) -> Iterator[Message]:
    texts: list[str] = []
    calls: list[ToolCall] = []
    results: list[Message] = []
    for part in _objects(parts):
        kind = part.get("type")
        if kind == "text" and isinstance(text := part.get("content"), str):
            texts.append(text)
        elif kind == "tool_call":
            calls.append(_learnable_call(part))
        elif kind == "tool_call_response":
            results.append(_learnable_result(part, name))
        elif kind != "reasoning":
            raise NotForTrainingError(f"a {kind} part" if kind != "text" else "a text part without text")
    if calls and role != "assistant":
        raise NotForTrainingError("a tool call that isn't the assistant's")
    yield from results
    if texts or calls or not results:
        yield Message(role=role, content=BETWEEN_TEXTS.join(texts), tool_calls=tuple(calls), name=name)


def _learnable_call(part: Mapping[str, JsonValue]) -> ToolCall:
    name, arguments = part.get("name"), _parsed(part.get("arguments"))
    if not isinstance(name, str) or not isinstance(arguments, dict | None):
        raise NotForTrainingError("a tool call without a name, or whose arguments aren't an object")
    return ToolCall(id=_id(part) or "", name=name, arguments=arguments or {})


def _learnable_result(part: Mapping[str, JsonValue], name: str | None) -> Message:
    response = part.get("response", part.get("result"))  # Older conventions had the second name.
    if not isinstance(response, str):
        # A server is sent a text; of an object nobody knows which one it was.
        raise NotForTrainingError("a tool's result that isn't text")
    return Message(role="tool", content=response, tool_call_id=_id(part), name=name)


def _id(part: Mapping[str, JsonValue]) -> str | None:
    return None if part.get("id") is None else str(part["id"])


def _content(part: JsonValue) -> str:
    """The text of a part; of one that is not text (an image, say) all of it as JSON, so that it shows."""
    (one,) = _objects([part])
    text = one.get({"text": "content", "tool_call_response": "response"}.get(str(one.get("type")), ""))
    return text if isinstance(text, str) else _shown(one if text is None else text)


def _arguments(call: Mapping[str, JsonValue]) -> dict[str, Any]:
    arguments = _parsed(call.get("arguments"))
    return arguments if isinstance(arguments, dict) else {} if arguments is None else {"arguments": arguments}


def _objects(parts: Sequence[JsonValue]) -> Iterator[dict[str, JsonValue]]:
    for part in parts:
        if not isinstance(part, dict):
            raise ValueError("a part of a message must be an object with a type")
        yield part


def _list(value: JsonValue) -> list[JsonValue]:
    found = _parsed(value)
    if isinstance(found, list):
        return found
    if found is None or (isinstance(found, str) and found.startswith(a.DIGEST_ONLY)):
        return []
    raise ValueError("it must be a JSON list")


def _parsed(value: JsonValue) -> JsonValue:
    if not isinstance(value, str):
        return value
    try:
        return cast(JsonValue, from_json(value))
    except ValueError:
        pass
    try:
        return cast(JsonValue, json.loads(value))  # Knows NaN, and half a surrogate pair.
    except ValueError:
        return value


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
