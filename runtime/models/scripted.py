"""A model that says what it was told to: for tests and for trying a crew without a server."""

import asyncio
import re
from collections.abc import Callable, Sequence

from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.traces.errors import ModelError
from journeyman.traces.messages import Message, Usage


class ScriptedModel:
    """Answers with `replies` in turn, or with what a function makes of each request.

    A reply is a text, a message (for one with tool calls of its own), or an error to be raised. Tokens are counted as
    words; a text with more words than `max_tokens` is cut off, as a server would.
    """

    provider = "scripted"
    demonstrates = False

    def __init__(
        self,
        replies: Sequence[str | Message | Exception] | Callable[[ModelRequest], str | Message],
        *,
        latency_s: float = 0.0,
    ) -> None:
        self._replies = replies if callable(replies) else list(replies)
        self._latency_s = latency_s
        self.requests: list[ModelRequest] = []
        """Every request so far, oldest first."""

    async def complete(self, request: ModelRequest) -> ModelReply:
        self.requests.append(request)
        number = len(self.requests)
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        return self._reply(request, number)

    async def stream_reply(
        self, request: ModelRequest, on_text: Callable[[str], None], on_restart: Callable[[], None]
    ) -> ModelReply:
        """Shows the text word by word; a script never breaks off."""
        reply = await self.complete(request)
        for word in _words(reply.content):
            on_text(word)
            await asyncio.sleep(0)
        return reply

    async def aclose(self) -> None:
        """Nothing to close."""

    def _reply(self, request: ModelRequest, number: int) -> ModelReply:
        said = self._said(request)
        content, calls = (said, ()) if isinstance(said, str) else (said.content, said.tool_calls)
        tokens = len(content.split())
        cut = tokens > request.max_tokens
        if cut:
            tokens, content = request.max_tokens, "".join(_words(content)[: request.max_tokens])
        whole = "tool_calls" if calls else "stop"
        return ModelReply(
            id=f"scripted-{number}",
            model=request.policy,
            content=content,
            tool_calls=calls,
            finish_reason="length" if cut else whole,
            usage=Usage(
                input_tokens=sum(len(message.content.split()) for message in request.messages), output_tokens=tokens
            ),
        )

    def _said(self, request: ModelRequest) -> str | Message:
        if callable(self._replies):
            return self._replies(request)
        if not self._replies:
            raise ModelError(f"the script has no reply left for request {len(self.requests)}")
        reply = self._replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def _words(text: str) -> list[str]:
    """With the white space around them, so that they add up to the text."""
    return re.findall(r"\s*\S+\s*|\s+", text)
