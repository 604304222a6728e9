"""The receiver: what other programs send by OTLP is kept, and what is none is refused in one line."""

import gzip
import json
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanLog, SpanRecord, read_spans
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.exchange import receive
from journeyman.traces.exchange.otlp import refused_spans, to_json, to_otlp
from journeyman.traces.exchange.receive import Receiver, engine_spans_only

PROTOBUF = {"Content-Type": "application/x-protobuf"}


class Kept:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.spans: list[SpanRecord] = []
        self.synced: list[bool] = []

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        self.spans.append(span)
        self.synced.append(sync)


class Full:
    def append(self, span: SpanRecord, *, sync: bool) -> None:
        raise StoreError("a span was not written: no space left")


def span(number: int = 1, **changes: Any) -> SpanRecord:
    values: dict[str, Any] = {
        "trace_id": f"{7:032x}",
        "span_id": f"{number:016x}",
        "parent_id": f"{99:016x}",
        "name": "llm_request",
        "kind": "server",
        "start_ns": 10,
        "end_ns": 20,
        "status": "ok",
        "attributes": {
            "gen_ai.request.id": "chatcmpl-1",
            "gen_ai.latency.time_in_queue": 0.25,
            "gen_ai.latency.time_in_model_prefill": 0.5,
            "gen_ai.latency.time_in_model_decode": 1.5,
            "gen_ai.latency.time_to_first_token": 0.75,
            "gen_ai.latency.e2e": 2.5,
            "gen_ai.usage.prompt_tokens": 12,
            "gen_ai.usage.completion_tokens": 5,
            "gen_ai.request.max_tokens": 64,
        },
    }
    return SpanRecord(**values | changes)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def receiver(kept: Kept) -> Iterator[Receiver]:
    with Receiver(kept) as listening:
        yield listening


def post(receiver: Receiver, body: bytes, headers: dict[str, str], path: str = "/v1/traces") -> httpx.Response:
    return httpx.post(f"{receiver.url}{path}", content=body, headers=headers, trust_env=False)


def test_spans_of_another_program_land_in_the_log(tmp_path: Path) -> None:
    log = SpanLog(tmp_path)
    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    with Receiver(log) as receiver:
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{receiver.url}/v1/traces")))
        with provider.get_tracer("shop").start_as_current_span("checkout", kind=SpanKind.SERVER) as parent:
            parent.set_attribute("cart.items", [1, 2])
        provider.shutdown()
        assert receiver.spans == 1
    (found,) = read_spans(tmp_path)
    assert (found.name, found.kind, found.attributes["cart.items"]) == ("checkout", "server", [1, 2])
    assert json.loads(str(found.attributes[a.RESOURCE])) == {"service.name": "shop"}


def test_json_and_gzip_are_taken_too(receiver: Receiver, kept: Kept) -> None:
    sent = [span(number, name="x") for number in (1, 2, 3)]
    body = gzip.compress(json.dumps(to_json(sent)).encode())
    reply = post(receiver, body, {"Content-Type": "application/json; charset=utf-8", "Content-Encoding": "gzip"})
    assert (reply.status_code, reply.json()) == (200, {})
    assert kept.spans == sent
    assert kept.synced == [False, False, True]


def test_a_vllm_span_gets_our_names(receiver: Receiver, kept: Kept) -> None:
    post(receiver, to_otlp([span()]).SerializeToString(), PROTOBUF)
    (found,) = kept.spans
    assert found.attributes == {
        a.RESPONSE_ID: "chatcmpl-1",
        a.ENGINE_QUEUE: 0.25,
        a.ENGINE_PREFILL: 0.5,
        a.ENGINE_DECODE: 1.5,
        a.ENGINE_FIRST_TOKEN: 0.75,
        a.ENGINE_TOTAL: 2.5,
        a.INPUT_TOKENS: 12,
        a.OUTPUT_TOKENS: 5,
        a.REQUEST_MAX_TOKENS: 64,
    }


def test_of_a_server_of_ours_only_requests_of_our_runs_are_kept(kept: Kept) -> None:
    sent = [span(1), span(2, parent_id=None), span(3, name="Load weights", kind="internal", attributes={})]
    with Receiver(kept, accept=engine_spans_only) as receiver:
        reply = post(receiver, to_otlp(sent).SerializeToString(), PROTOBUF)
    assert reply.status_code == 200
    assert [found.span_id for found in kept.spans] == [f"{1:016x}"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "complaint"),
    [
        (b"\xff\xff", PROTOBUF, 400, "not an OTLP trace request"),
        (b"{", {"Content-Type": "application/json"}, 400, "not JSON"),
        (b"[" * 100_000, {"Content-Type": "application/json"}, 400, "not JSON"),
        (b"[]", {"Content-Type": "application/json"}, 400, "no object"),
        (b'{"resourceSpans": "x"}', {"Content-Type": "application/json"}, 400, "not OTLP JSON"),
        (b"x", {**PROTOBUF, "Content-Encoding": "gzip"}, 400, "not gzip"),
        (gzip.compress(b"x" * 99)[:-9], {**PROTOBUF, "Content-Encoding": "gzip"}, 400, "ends too early"),
        (gzip.compress(b"") * 2, {**PROTOBUF, "Content-Encoding": "gzip"}, 400, "bytes follow its end"),
        (zlib.compress(b"") + b"x", {**PROTOBUF, "Content-Encoding": "deflate"}, 400, "bytes follow its end"),
        (b"x", {**PROTOBUF, "Content-Encoding": "br"}, 415, "no encoding 'br'"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "application/x-protobuf or application/json"),
    ],
)
def test_what_is_no_otlp_is_refused_in_one_line(
    receiver: Receiver, kept: Kept, body: bytes, headers: dict[str, str], status: int, complaint: str
) -> None:
    reply = post(receiver, body, headers)
    assert reply.status_code == status
    assert complaint in reply.text and reply.text.count("\n") == 1
    assert not kept.spans and receiver.refused == 1


def test_one_bad_span_is_counted_and_the_others_are_kept(receiver: Receiver, kept: Kept) -> None:
    request = to_otlp([span(1), span(2)])
    request.resource_spans[0].scope_spans[0].spans[1].span_id = b""
    reply = post(receiver, request.SerializeToString(), PROTOBUF)
    assert (reply.status_code, refused_spans(reply.content)) == (200, 1)
    assert (len(kept.spans), receiver.refused_spans) == (1, 1)


def test_too_much_is_refused_before_it_is_all_unpacked(receiver: Receiver) -> None:
    bomb = gzip.compress(b"\0" * (receive.LARGEST_BODY + 1))
    assert post(receiver, bomb, {**PROTOBUF, "Content-Encoding": "gzip"}).status_code == 413


def test_a_body_in_pieces_is_taken(receiver: Receiver, kept: Kept) -> None:
    body = to_otlp([span(1), span(2)]).SerializeToString()

    def pieces() -> Iterator[bytes]:
        yield body[:100]
        yield body[100:]

    reply = httpx.post(f"{receiver.url}/v1/traces", content=pieces(), headers=PROTOBUF, trust_env=False)
    assert reply.status_code == 200
    assert len(kept.spans) == 2


@pytest.mark.parametrize(
    ("request_end", "status"),
    [
        (b"\r\n", b"411"),
        (b"Content-Length: 99999999999\r\n\r\n", b"413"),
        (b"Transfer-Encoding: chunked\r\n\r\nfffffffff\r\n", b"413"),
        (b"Transfer-Encoding: chunked\r\n\r\nno number\r\n", b"400"),
    ],
)
def test_a_body_without_a_usable_length_is_refused(receiver: Receiver, request_end: bytes, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", int(receiver.url.rpartition(":")[2]))) as client:
        head = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
        client.sendall(head + request_end)
        assert client.recv(100).startswith(b"HTTP/1.1 " + status)


def test_other_paths_are_none_of_ours(receiver: Receiver) -> None:
    assert post(receiver, b"", PROTOBUF, path="/v1/metrics").status_code == 404


def test_a_disk_that_is_full_is_told_to_whoever_sends() -> None:
    with Receiver(Full()) as receiver:
        reply = post(receiver, to_otlp([span()]).SerializeToString(), PROTOBUF)
    assert reply.status_code == 503
    assert "no space left" in reply.text


def test_a_port_that_is_taken_is_said_to_be(receiver: Receiver, kept: Kept) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        Receiver(kept, port=int(receiver.url.rpartition(":")[2]))
