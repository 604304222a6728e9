"""LangChain's messages as a server is sent them, and replies as LangChain's messages."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages import ChatMessage as RoleMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatResult

from journeyman.agents.model import ModelReply
from journeyman.agents.reply import UnreadableReplyError, read_json
from journeyman.runtime.models.chat_wire import Piece
from journeyman.traces.errors import ConfigError
from journeyman.traces.messages import Message, Role, ToolCall, Usage

ROLES: dict[str, Role] = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}
"""langchain's message types in the API's words."""

TEXTS = {"text": "text", "text-plain": "text", "refusal": "refusal"}
"""Kinds of blocks that are text, and the key that holds it."""

CALLS = {"tool_call": "args", "tool_use": "input", "function_call": "arguments"}
"""Kinds of blocks that are a whole tool call, and the key of its arguments: LangChain's, Anthropic's and OpenAI's."""

UNSAID = {
    "reasoning",
    "reasoning_content",
    "thinking",
    "redacted_thinking",
    "invalid_tool_call",
    "tool_call_chunk",
    "input_json_delta",
}
"""Kinds of an assistant's blocks that no server is sent: what it thought, and calls that were never whole."""


def read_message(message: BaseMessage) -> Message:
    """Raises `ConfigError` for a kind of message, or of content, that a server of a text model can't be sent."""
    role = message.role if isinstance(message, RoleMessage) else ROLES.get(message.type.removesuffix("MessageChunk"))
    if role not in get_args(Role):
        raise ConfigError(f"ChatVLLM takes system, user, assistant and tool messages, not {message.type!r}")
    texts: list[str] = []
    calls = list(_calls(message))
    for block in _blocks(message):
        kind = block.get("type")
        if isinstance(text := block.get(TEXTS.get(str(kind), "")), str):
            texts.append(text)
        elif role == "assistant" and kind in CALLS:
            calls += _further_call(block, calls)
        elif role != "assistant" or kind not in UNSAID:
            raise ConfigError(
                f"ChatVLLM takes text only, and a message of role {role!r} holds a block of type {kind!r}; "
                "describe it in words, or leave it out"
            )
    return Message(
        role=role,
        content="".join(texts),
        tool_calls=tuple(calls),
        tool_call_id=message.tool_call_id if isinstance(message, ToolMessage) else None,
    )


def write_result(reply: ModelReply) -> ChatResult:
    message = AIMessage(
        content=reply.content,
        tool_calls=[tool_call(name=call.name, args=dict(call.arguments), id=call.id) for call in reply.tool_calls],
        id=reply.id or None,
        usage_metadata=_usage(reply.usage),
        response_metadata=_metadata(reply.id, reply.model, reply.finish_reason),
        additional_kwargs={
            "prompt_token_ids": list(reply.prompt_token_ids or ()),
            "token_ids": list(reply.token_ids or ()),
            "logprobs": list(reply.logprobs or ()),
        },
    )
    generation = ChatGeneration(message=message, generation_info={"finish_reason": reply.finish_reason})
    return ChatResult(generations=[generation], llm_output={"model_name": reply.model})


def write_chunk(piece: Piece) -> AIMessageChunk:
    kept = {
        "prompt_token_ids": list(piece.prompt_token_ids or ()),
        "token_ids": list(piece.token_ids),
        "logprobs": list(piece.logprobs),
    }
    return AIMessageChunk(
        content=piece.content,
        tool_call_chunks=[
            tool_call_chunk(name=part.name or None, args=part.arguments, id=part.id or None, index=part.index)
            for part in piece.call_parts
        ],
        id=piece.id or None,
        usage_metadata=None if piece.usage is None else _usage(piece.usage),
        # In one piece only: adding messages up would repeat the text of each.
        response_metadata=_metadata(piece.id, piece.model, piece.finish_reason) if piece.finish_reason else {},
        additional_kwargs={key: values for key, values in kept.items() if values},
    )


def _blocks(message: BaseMessage) -> Iterator[Mapping[str, Any]]:
    for block in [message.content] if isinstance(message.content, str) else message.content:
        if isinstance(block, str):
            yield {"type": "text", "text": block}
        elif block.get("type") == "non_standard" and isinstance(value := block.get("value"), dict):
            yield value
        else:
            yield block


def _calls(message: BaseMessage) -> Iterator[ToolCall]:
    for call in message.tool_calls if isinstance(message, AIMessage) else ():
        yield ToolCall(id=call["id"] or "", name=call["name"], arguments=call["args"])


def _further_call(block: Mapping[str, Any], calls: Sequence[ToolCall]) -> Iterator[ToolCall]:
    """The call of a block, unless it is among `calls` already or was never whole."""
    call_id, name, arguments = (
        block.get("call_id") or block.get("id"),
        block.get("name"),
        block.get(CALLS[block["type"]]),
    )
    if isinstance(arguments, str):
        try:
            arguments = read_json(arguments)
        except UnreadableReplyError:
            return
    if isinstance(name, str) and isinstance(arguments, dict) and all(call.id != call_id for call in calls):
        yield ToolCall(id=str(call_id or ""), name=name, arguments=arguments)


def _metadata(reply_id: str, model: str, finish_reason: str) -> dict[str, Any]:
    return {"id": reply_id, "model_name": model, "finish_reason": finish_reason, "model_provider": "vllm"}


def _usage(usage: Usage) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
    )
