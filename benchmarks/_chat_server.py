"""A chat server that breaks as it is told: the chat API over plain sockets, in a process of its own that can be killed.

Run as a script it serves until it is killed; `ChatServer` starts it, kills it and starts it again on the same port.
"""

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from time import monotonic, sleep
from typing import Any, Self

from _faults import POISON, Said, Script

HOST = "127.0.0.1"
REFUSALS = {"http_400": 400, "http_429": 429, "http_500": 500}
START_S = 30.0


class ChatServer:
    """The server as a child process."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind((HOST, 0))
            self._port = int(free.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}"

    def start(self) -> None:
        """Returns at once; `wait` returns when it takes requests."""
        self._process = subprocess.Popen([sys.executable, __file__, str(self._port)])

    def wait(self) -> None:
        late = monotonic() + START_S
        while monotonic() < late:
            try:
                socket.create_connection((HOST, self._port), timeout=1).close()
                return
            except OSError:
                sleep(0.02)
        raise RuntimeError(f"the chat server did not start in {START_S:g} s")

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        self.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Connections:
    """Takes requests over connections that are kept open; does with each what the script says."""

    def __init__(self) -> None:
        self._script = Script()
        self._replies = 0

    async def serve(self, port: int) -> None:
        server = await asyncio.start_server(self._connected, HOST, port, backlog=256)
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _read_request(reader)) is not None:
                await self._answer(self._script.reply(request["messages"]), request, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # The other side went away, as some of them are made to.
        finally:
            writer.close()

    async def _answer(self, said: Said, request: Mapping[str, Any], writer: asyncio.StreamWriter) -> None:
        if said.fault in REFUSALS:
            complaint = json.dumps({"error": {"message": f"{POISON}: no"}}).encode()
            await _send(writer, REFUSALS[said.fault], complaint)
        elif said.fault == "reset":
            # Closing with unsent data thrown away is what a TCP reset looks like.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()
        elif said.fault == "hang":
            await asyncio.sleep(3600)
        elif said.fault == "not_json":
            await _send(writer, 200, f"<html>{POISON}</html>".encode())
        else:
            body = json.dumps(self._completion(said, str(request["model"]))).encode()
            await _send(writer, 200, body, cut=said.fault == "cut_body")

    def _completion(self, said: Said, model: str) -> dict[str, Any]:
        self._replies += 1
        message = {"role": "assistant", "content": said.content}
        return {
            "id": f"chat-{os.getpid()}-{self._replies}",
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": said.finish_reason}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        }


async def _read_request(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The body of the next request; None when the connection is closed."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    request: dict[str, Any] = json.loads(await reader.readexactly(length))
    return request


async def _send(writer: asyncio.StreamWriter, status: int, body: bytes, *, cut: bool = False) -> None:
    head = f"HTTP/1.1 {status} .\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + (body[: len(body) // 2] if cut else body))
    await writer.drain()
    if cut:
        writer.close()


if __name__ == "__main__":
    asyncio.run(Connections().serve(int(sys.argv[1])))
