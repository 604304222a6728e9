"""A receiver: takes spans by OTLP over HTTP, on this machine only, and hands them to a sink.

`POST /v1/traces`, protobuf or JSON, plain, gzip or deflate. An answer of 200 says that the spans of the request are
kept, less those that its `partial_success` counts.
"""

import http.server
import json
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Self

from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.capture.tracer import Sink
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.exchange.otlp import from_json, from_otlp, parse_protobuf, partial_success

LARGEST_BODY = 64 * 2**20
"""Bytes of a request, unpacked."""

PATIENCE_S = 30.0
"""How long a client may take to send what it began."""

PACKED = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
"""How zlib is told of each `Content-Encoding`."""

ENGINE_NAMES = {
    "gen_ai.request.id": a.RESPONSE_ID,
    "gen_ai.request.n": a.REQUEST_CHOICES,
    "gen_ai.usage.prompt_tokens": a.INPUT_TOKENS,
    "gen_ai.usage.completion_tokens": a.OUTPUT_TOKENS,
    "gen_ai.latency.time_in_queue": a.ENGINE_QUEUE,
    "gen_ai.latency.time_in_model_prefill": a.ENGINE_PREFILL,
    "gen_ai.latency.time_in_model_decode": a.ENGINE_DECODE,
    "gen_ai.latency.time_in_model_inference": a.ENGINE_INFERENCE,
    "gen_ai.latency.time_to_first_token": a.ENGINE_FIRST_TOKEN,
    "gen_ai.latency.e2e": a.ENGINE_TOTAL,
}
"""What vLLM calls them (0.32) → our names."""

Accept = Callable[[SpanRecord], SpanRecord | None]


def normalised(span: SpanRecord) -> SpanRecord:
    """A vLLM server's own span of a request under our names; any other span as it is."""
    if not is_engine_span(span):
        return span
    attributes = {ENGINE_NAMES.get(name, name): value for name, value in span.attributes.items()}
    return span.model_copy(update={"attributes": attributes})


def engine_spans_only(span: SpanRecord) -> SpanRecord | None:
    """Of what a vLLM server sends, the requests of our runs; not its start, nor what nobody traces, e.g. a probe."""
    return normalised(span) if is_engine_span(span) and span.parent_id is not None else None


def is_engine_span(span: SpanRecord) -> bool:
    return span.name == "llm_request" and span.kind == "server" and "gen_ai.latency.e2e" in span.attributes


class Receiver:
    """Listens from construction to `close`, in threads of its own."""

    def __init__(self, sink: Sink, *, port: int = 0, accept: Accept = normalised) -> None:
        """`port` 0 takes a free one, another that is taken raises `ConfigError`; `accept` changes or drops a span."""
        self.spans = 0
        """Kept so far."""
        self.refused = 0
        """Requests that were answered with an error."""
        self.refused_spans = 0
        """Spans that could not be kept, of requests whose other spans were."""
        self._sink = sink
        self._accept = accept
        self._lock = threading.Lock()
        try:
            self._server = _Server(("127.0.0.1", port), self)
        except OSError as error:
            raise ConfigError(f"port {port} of 127.0.0.1 cannot be used: {error.strerror}") from None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="otlp", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, body: bytes, *, is_json: bool) -> bytes:
        """Keeps the good spans of a request and gives the reply, or raises `_RefusalError` where there is none."""
        refused: list[str] = []
        try:
            refuse = refused.append
            spans = list(from_json(_document(body), refuse) if is_json else from_otlp(parse_protobuf(body), refuse))
            accepted = [kept for span in spans if (kept := self._accept(span)) is not None]
        except StoreError as error:
            raise _RefusalError(HTTPStatus.BAD_REQUEST, str(error)) from None
        if refused and not spans:
            raise _RefusalError(HTTPStatus.BAD_REQUEST, refused[0])
        try:
            for span in accepted:
                # The disk is waited for once; what was written before comes with it.
                self._sink.append(span, sync=span is accepted[-1])
        except StoreError as error:
            raise _RefusalError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None
        with self._lock:
            self.spans += len(accepted)
            self.refused_spans += len(refused)
        return partial_success(refused, is_json=is_json)

    def count_refusal(self) -> None:
        with self._lock:
            self.refused += 1


class _RefusalError(Exception):
    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # A client that keeps its connection open would hold up the end.

    def __init__(self, address: tuple[str, int], receiver: Receiver) -> None:
        super().__init__(address, _Handler)
        self.receiver = receiver


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE_S

    def do_POST(self) -> None:
        is_json = self.headers.get_content_type() == "application/json"
        try:
            reply = self.server.receiver.take(self._body(is_json), is_json=is_json)
        except _RefusalError as refusal:
            self.server.receiver.count_refusal()
            self._answer(refusal.status, "text/plain", f"{refusal}\n".encode())
        else:
            self._answer(HTTPStatus.OK, self.headers["Content-Type"], reply)

    def _body(self, is_json: bool) -> bytes:
        if self.path != "/v1/traces":
            raise _RefusalError(HTTPStatus.NOT_FOUND, f"no {self.path[:80]} here: spans go to /v1/traces")
        # A page in a browser can send other types here without asking; these two it cannot.
        if not is_json and self.headers.get_content_type() != "application/x-protobuf":
            raise _RefusalError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/x-protobuf or application/json")
        body = self._chunked() if self.headers.get("Transfer-Encoding") == "chunked" else self._whole()
        encoding = self.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", *PACKED):
            raise _RefusalError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"no encoding {encoding[:40]!r}: send gzip, deflate or none"
            )
        return body if encoding == "identity" else _unpacked(body, encoding)

    def _whole(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise _RefusalError(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
        if int(length) > LARGEST_BODY:
            raise _too_large()
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise _RefusalError(HTTPStatus.BAD_REQUEST, f"the body ends after {len(body)} of {length} bytes")
        return body

    def _chunked(self) -> bytes:
        """As Node.js sends it: each piece with its length before it, the last one empty."""
        body = bytearray()
        try:
            while size := int(self.rfile.readline(64).partition(b";")[0], 16):
                if size < 0 or len(body) + size > LARGEST_BODY:
                    raise _too_large()
                body += self.rfile.read(size)
                self.rfile.readline(2)
        except ValueError:
            raise _RefusalError(HTTPStatus.BAD_REQUEST, "the body is no chunked one, or it ends too early") from None
        while self.rfile.readline(1024).strip():
            pass
        return bytes(body)

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if status is not HTTPStatus.OK:
            # What was not read of the request would be taken for the next one.
            self.send_header("Connection", "close")
        with suppress(ConnectionError):  # Nobody waits for the answer any more.
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: whoever sent it has the answer."""


def _too_large() -> _RefusalError:
    return _RefusalError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {LARGEST_BODY} bytes: send less at once")


def _unpacked(body: bytes, encoding: str) -> bytes:
    wbits = PACKED[encoding]
    if encoding == "deflate" and ((body[:1] and body[0] & 0x0F != 8) or int.from_bytes(body[:2]) % 31):
        wbits = -wbits  # Some clients leave out the header that HTTP wants.
    unpack = zlib.decompressobj(wbits=wbits)
    try:
        whole = unpack.decompress(body, LARGEST_BODY + 1)
    except zlib.error as error:
        raise _RefusalError(HTTPStatus.BAD_REQUEST, f"not {encoding}: {error}") from None
    if len(whole) > LARGEST_BODY:
        raise _too_large()
    if not unpack.eof:
        raise _RefusalError(HTTPStatus.BAD_REQUEST, f"not {encoding}: it ends too early")
    if unpack.unused_data:  # Of a second part of gzip the spans would be lost without a word.
        raise _RefusalError(HTTPStatus.BAD_REQUEST, f"not one {encoding}: bytes follow its end; pack the body as one")
    return whole


def _document(body: bytes) -> dict[str, JsonValue]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise StoreError("not OTLP JSON: no object")
    return document
