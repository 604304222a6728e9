"""A chat server that breaks as it is told: the chat API over plain sockets, in a process of its own that can be killed.

Replies come whole or as a stream of events, as they are asked for.

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

from _fault_script import Said, Script
from _faults import POISON

HOST = "127.0.0.1"
REFUSALS = {"http_400": 400, "http_429": 429, "http_500": 500}
START_S = 30.0
PIECE_S = 0.004
"""Between two events of a stream, so that a kill can fall between them."""


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
        self._replies += 1
        reply_id, model = f"chat-{os.getpid()}-{self._replies}", str(request["model"])
        if said.fault == "bad_history":
            await _send(writer, 400, json.dumps({"error": {"message": said.content}}).encode())
        elif said.fault in REFUSALS:
            complaint = json.dumps({"error": {"message": f"{POISON}: no"}}).encode()
            await _send(writer, REFUSALS[said.fault], complaint)
        elif said.fault == "reset":
            _reset(writer)
        elif said.fault == "hang":
            await asyncio.sleep(3600)
        elif said.fault == "not_json":
            await _send(writer, 200, f"<html>{POISON}</html>".encode())
        elif request.get("stream"):
            events = [json.dumps(chunk) for chunk in said.chunks(reply_id, model)]
            await _stream(writer, events, said.fault or "")
        else:
            body = json.dumps(said.completion(reply_id, model)).encode()
            await _send(writer, 200, body, cut=said.fault == "cut_body")


async def _stream(writer: asyncio.StreamWriter, events: list[str], fault: str) -> None:
    """What goes wrong does so in the middle, after the first of the text or of the calls."""
    writer.write(b"HTTP/1.1 200 .\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    if fault == "odd_lines":
        events = [f": {POISON}\r\n\r\nevent: {POISON}\r\ndata: {event}\r" for event in events]
    else:
        events = [f"data: {event}" for event in events]
    if fault != "no_done":
        events.append("data: [DONE]")
    for place, event in enumerate(events):
        if place == 2 and not await _goes_on(writer, fault):
            return
        await _send_part(writer, f"{event}\n\n")
        await asyncio.sleep(PIECE_S)
    await _send_part(writer, "")


async def _goes_on(writer: asyncio.StreamWriter, fault: str) -> bool:
    """Does what the fault asks for; False where that is the end."""
    if fault == "broken_event":
        await _send_part(writer, f'data: {{"{POISON}": \n\n')
    elif fault == "error_event":
        await _send_part(writer, f'data: {{"error": {{"message": "{POISON}: the engine died", "code": 500}}}}\n\n')
    elif fault == "stream_hang":
        await asyncio.sleep(3600)
    elif fault == "stream_ended":
        await _send_part(writer, "")
        return False
    elif fault == "stream_reset":
        _reset(writer)
        return False
    elif fault in ("stream_cut", "cut_body"):
        writer.close()
        return False
    return True


async def _send_part(writer: asyncio.StreamWriter, text: str) -> None:
    """A part of a body of unknown length; an empty one ends it."""
    part = text.encode()
    writer.write(b"%x\r\n%b\r\n" % (len(part), part))
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    # Closing with unsent data thrown away is what a TCP reset looks like.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()


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
