"""A model that says what it was told to: for tests and for trying a crew without a server."""

from collections.abc import Callable, Sequence

from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.traces.errors import ModelError
from journeyman.traces.messages import Usage


class ScriptedModel:
    """Answers with `replies` in turn, or with what a function makes of each request. Tokens are counted as words."""

    provider = "scripted"
    demonstrates = False

    def __init__(self, replies: Sequence[str | Exception] | Callable[[ModelRequest], str]) -> None:
        self._replies = replies if callable(replies) else list(replies)
        self.requests: list[ModelRequest] = []
        """Every request so far, oldest first."""

    async def complete(self, request: ModelRequest) -> ModelReply:
        self.requests.append(request)
        content = self._reply(request)
        return ModelReply(
            id=f"scripted-{len(self.requests)}",
            model=request.policy,
            content=content,
            finish_reason="stop",
            usage=Usage(
                input_tokens=sum(len(message.content.split()) for message in request.messages),
                output_tokens=len(content.split()),
            ),
        )

    async def aclose(self) -> None:
        """Nothing to close."""

    def _reply(self, request: ModelRequest) -> str:
        if callable(self._replies):
            return self._replies(request)
        if not self._replies:
            raise ModelError(f"the script has no reply left for request {len(self.requests)}")
        reply = self._replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply
