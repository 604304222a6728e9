"""The chat API's JSON, both ways: a `ModelRequest` as a body, and bodies and stream events as a `ModelReply`."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.reply import UnreadableReplyError, read_json
from journeyman.traces.base import Record
from journeyman.traces.messages import Message, ToolCall, Usage

CALL_MARKS = ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<function=")
"""What calls begin with in the templates of Hermes and Qwen, Mistral, and Llama. vLLM leaves a call that it cannot read
in the text."""


class CallPart(Record):
    """A part of a tool call that is streamed: what has the same index belongs together."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    """A part of the arguments' JSON text."""


class Piece(Record):
    """A part of a reply that is streamed; `join_pieces` makes the `ModelReply` of them."""

    content: str = ""
    call_parts: tuple[CallPart, ...] = ()
    id: str
    model: str
    finish_reason: str | None = None
    usage: Usage | None = None
    """In the last piece only."""
    prompt_token_ids: tuple[int, ...] | None = None
    """In the first piece only."""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()


def request_body(request: ModelRequest, *, extensions: bool = True) -> dict[str, Any]:
    """`request` as the JSON body of the API; `extensions` are vLLM's: token ids, and calls that obey any schema."""
    body: dict[str, Any] = {
        "model": request.policy,
        "messages": [_wire(message) for message in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
    }
    if extensions:
        body |= {"logprobs": True, "return_token_ids": True}
    if request.seed is not None:
        body["seed"] = request.seed
    if request.json_schema is not None:
        schema = {"name": "reply", "schema": request.json_schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.tools:
        strict = {"strict": True} if extensions else {}
        body["tools"] = [{"type": "function", "function": {**tool, **strict}} for tool in request.tools]
        body["tool_choice"] = request.tool_choice
        if not request.parallel_calls:
            body["parallel_tool_calls"] = False
    return body


def read_reply(body: bytes) -> ModelReply:
    """Raises `ValidationError` where `body` is no chat completion."""
    completion = _Completion.model_validate_json(body)
    choice = completion.choices[0]
    calls, unreadable = _read_calls([call.part(index) for index, call in enumerate(choice.message.tool_calls or ())])
    return ModelReply(
        id=completion.id,
        model=completion.model,
        content=choice.message.content or "",
        tool_calls=calls,
        unreadable=unreadable,
        finish_reason=choice.finish_reason,
        usage=completion.usage.usage,
        prompt_token_ids=completion.prompt_token_ids,
        token_ids=choice.token_ids,
        logprobs=None if choice.logprobs is None else choice.logprobs.values,
    )


def read_piece(event: bytes) -> Piece:
    """Raises `ValidationError` where `event` is no part of a chat completion."""
    chunk = _Chunk.model_validate_json(event)
    choice = chunk.choices[0] if chunk.choices else _ChunkChoice()
    return Piece(
        content=choice.delta.content or "",
        call_parts=tuple(call.part(index) for index, call in enumerate(choice.delta.tool_calls or ())),
        id=chunk.id,
        model=chunk.model,
        finish_reason=choice.finish_reason,
        usage=None if chunk.usage is None else chunk.usage.usage,
        prompt_token_ids=chunk.prompt_token_ids,
        token_ids=choice.token_ids or (),
        logprobs=() if choice.logprobs is None else choice.logprobs.values,
    )


def join_pieces(pieces: Sequence[Piece]) -> ModelReply | None:
    """The reply that was streamed; None where its end is missing."""
    reasons = [piece.finish_reason for piece in pieces if piece.finish_reason is not None]
    usages = [piece.usage for piece in pieces if piece.usage is not None]
    if not reasons or not usages:
        return None
    calls, unreadable = _read_calls(_joined(pieces))
    return ModelReply(
        id=pieces[0].id,
        model=pieces[0].model,
        content="".join(piece.content for piece in pieces),
        tool_calls=calls,
        unreadable=unreadable,
        finish_reason=reasons[-1],
        usage=usages[-1],
        prompt_token_ids=pieces[0].prompt_token_ids,
        token_ids=tuple(token for piece in pieces for token in piece.token_ids) or None,
        logprobs=tuple(value for piece in pieces for value in piece.logprobs) or None,
    )


def check_calls(reply: ModelReply, request: ModelRequest) -> ModelReply:
    """`reply`, unreadable where it holds a call that the server could not read: such text is no answer."""
    if request.tools and not reply.tool_calls and any(mark in reply.content for mark in CALL_MARKS):
        return reply.model_copy(update={"unreadable": "it holds a tool call that is not complete, valid JSON"})
    return reply


def read_complaint(body: bytes) -> str:
    """What a server says is wrong, in one line; empty where it says nothing we can read."""
    try:
        refusal = read_json(body.decode(errors="replace"))
    except UnreadableReplyError:
        return ""
    said = refusal.get("error", refusal) if isinstance(refusal, dict) else None
    if isinstance(said, dict):
        said = said.get("message", said.get("detail"))
    return " ".join(said.split())[:300] if isinstance(said, str) else ""


def _wire(message: Message) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        wire["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    return wire


def _joined(pieces: Sequence[Piece]) -> list[CallPart]:
    whole: dict[int, CallPart] = {}
    for part in (part for piece in pieces for part in piece.call_parts):
        before = whole.get(part.index, CallPart(index=part.index))
        whole[part.index] = CallPart(
            index=part.index,
            id=before.id or part.id,
            name=before.name or part.name,
            arguments=before.arguments + part.arguments,
        )
    return [whole[index] for index in sorted(whole)]


def _read_calls(parts: Sequence[CallPart]) -> tuple[tuple[ToolCall, ...], str | None]:
    """The calls; or none of them, and why one cannot be read."""
    calls: list[ToolCall] = []
    for part in parts:
        try:
            arguments = read_json(part.arguments or "{}")
        except UnreadableReplyError as error:
            return (), f"the arguments of {part.name} are unusable: {error}"
        if not isinstance(arguments, dict):
            return (), f"the arguments of {part.name} must be a JSON object"
        calls.append(ToolCall(id=part.id or f"call-{part.index}", name=part.name, arguments=arguments))
    return tuple(calls), None


class _Cached(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _Cached | None = None

    @property
    def usage(self) -> Usage:
        details = self.prompt_tokens_details or _Cached()
        return Usage(
            input_tokens=self.prompt_tokens,
            output_tokens=self.completion_tokens,
            cached_tokens=details.cached_tokens or 0,
        )


class _Token(BaseModel):
    logprob: float


class _Logprobs(BaseModel):
    content: list[_Token] | None = None

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(token.logprob for token in self.content or ())


class _Function(BaseModel):
    name: str | None = None
    arguments: str | None = None


class _Call(BaseModel):
    index: int | None = None
    id: str | None = None
    function: _Function = _Function()

    def part(self, place: int) -> CallPart:
        return CallPart(
            index=place if self.index is None else self.index,
            id=self.id or "",
            name=self.function.name or "",
            arguments=self.function.arguments or "",
        )


class _Said(BaseModel):
    content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(BaseModel):
    message: _Said
    finish_reason: str
    logprobs: _Logprobs | None = None
    token_ids: tuple[int, ...] | None = None


class _Completion(BaseModel):
    id: str
    model: str
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage
    prompt_token_ids: tuple[int, ...] | None = None


class _ChunkChoice(BaseModel):
    delta: _Said = _Said()
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    token_ids: tuple[int, ...] | None = None


class _Chunk(BaseModel):
    id: str
    model: str
    choices: list[_ChunkChoice]
    usage: _Usage | None = None
    prompt_token_ids: tuple[int, ...] | None = None
