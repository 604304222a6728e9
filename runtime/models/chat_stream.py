"""A streamed reply on the wire: its events, and when it is over."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress

import httpx

from journeyman.runtime.models.chat_calls import CallNumbers
from journeyman.runtime.models.chat_failures import MAX_CHARS, check_end
from journeyman.runtime.models.chat_wire import Piece

HANG_UP_S = 0.2
"""What a server has to end its stream when the reply in it is over."""

USAGE_S = 2.0
"""What a server has to count the tokens of a reply that is over, if it does not hang up; some never count."""

SHOWN_CHARS = 120
"""Of what came instead of a reply."""


class StreamedReply:
    """A streamed reply on its way: which parts are one call's, and whether it is over."""

    def __init__(self) -> None:
        self.other = b""
        """What came that is no event."""
        self.begun = False
        self.is_whole = False
        self.is_counted = False
        """It is over, and its tokens are counted."""
        self._numbers = CallNumbers()
        self._text = ""
        self._refusal = ""

    async def events(self, lines: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(USAGE_S if self.is_whole else None):
                    line = await anext(lines)
            except (StopAsyncIteration, TimeoutError):
                return
            field, _, value = line.partition(b":")
            event = value.strip()
            if field == b"error":  # Of llama.cpp's older servers.
                yield b'{"error": ' + (event or b'"error"') + b"}"
            elif field != b"data":
                self.other += line[: SHOWN_CHARS * (len(self.other) < SHOWN_CHARS)]
            elif event == b"[DONE]":
                return
            elif event:
                yield event

    def take(self, piece: Piece) -> Piece:
        """`piece` with its parts of calls numbered; raises `NoReplyError` where it ends a reply that is none."""
        self.begun = True
        self._text = (self._text + piece.content)[:MAX_CHARS]
        self._refusal += piece.refusal
        self.is_whole = self.is_whole or piece.finish_reason is not None
        if self.is_whole:
            check_end(piece.finish_reason, self._text, self._refusal)
        self.is_counted = self.is_whole and piece.usage is not None
        return piece.model_copy(update={"call_parts": tuple(map(self._numbers.numbered, piece.call_parts))})


async def lines_of(reply: httpx.Response) -> AsyncGenerator[bytes]:
    """Lines that end in a newline: httpx would also break them at characters that JSON leaves as they are."""
    rest = b""
    async for part in reply.aiter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line
    yield rest


async def read_out(lines: AsyncGenerator[bytes]) -> None:
    """Reads what stands behind a reply: only a connection that was read to its end serves the next call."""
    with suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(HANG_UP_S):
            async for _ in lines:
                pass
