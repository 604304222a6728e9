"""A view of each OTLP kind on a real collector (rotel, from PyPI), which hands on to our receiver what it took."""

import os
import socket
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

import pytest

from journeyman.runtime.serving.process import spawn
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanLog, SpanRecord, read_spans
from journeyman.traces.capture.tracer import AttributeValue, Tracer
from journeyman.traces.exchange.endpoint import Kind
from journeyman.traces.exchange.receive import Receiver
from journeyman.traces.exchange.view import View
from journeyman.traces.labels import Label

pytestmark = [pytest.mark.serve, pytest.mark.skipif(find_spec("rotel") is None, reason="pip install --no-deps rotel")]


class Collector(NamedTuple):
    http: str
    grpc: str
    log: Path
    kept: Path
    """Span log of what it handed on."""


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    spec = find_spec("rotel")
    assert spec is not None and spec.origin is not None
    http, grpc = (f"127.0.0.1:{port}" for port in free_ports(2))
    kept, log = tmp_path / "kept", tmp_path / "rotel.log"
    with Receiver(SpanLog(kept)) as receiver:
        command = [str(Path(spec.origin).with_name("rotel-agent")), "start", "--otlp-http-endpoint", http]
        command += ["--otlp-grpc-endpoint", grpc, "--exporter", "otlp", "--otlp-exporter-protocol", "http"]
        command += ["--otlp-exporter-endpoint", receiver.url, "--debug-log", "logs", "--debug-log", "metrics"]
        process = spawn(command, env=dict(os.environ), log=log)
        try:
            wait_for(log, "Starting Rotel")
            yield Collector(http=f"http://{http}", grpc=f"http://{grpc}", log=log, kept=kept)
        finally:
            process.end()


def wait_for(log: Path, words: str) -> None:
    deadline = monotonic() + 20
    while words not in log.read_text():
        assert monotonic() < deadline, log.read_text()
        sleep(0.05)


def record(view: View) -> list[SpanRecord]:
    made: list[SpanRecord] = []

    class Kept:
        def append(self, span: SpanRecord, *, sync: bool) -> None:
            made.append(span)

    tracer = Tracer(Kept(), view)
    for number in range(20):
        agent: dict[str, AttributeValue | None] = {a.OPERATION: "invoke_agent", a.AGENT_NAME: "worker"}
        chat: dict[str, AttributeValue | None] = {
            a.OPERATION: "chat",
            a.REQUEST_MODEL: "base",
            a.INPUT_TOKENS: number,
            a.FINISH_REASONS: ["stop"],
        }
        with (
            tracer.span("invoke_agent worker", parent=None, attributes=agent) as parent,
            tracer.span("chat base", parent=parent, kind="client", attributes=chat) as span,
        ):
            span.set_json(a.OUTPUT_MESSAGES, [{"role": "assistant", "parts": [{"type": "text", "content": "Größe 3"}]}])
    return made


@pytest.mark.parametrize("kind", ["otlp-http", "otlp-grpc"])
def test_a_collector_takes_spans_labels_and_metrics_and_hands_the_spans_on_unchanged(
    collector: Collector, kind: Kind
) -> None:
    with View(collector.http if kind == "otlp-http" else collector.grpc, kind) as view:
        made = record(view)
        view.label(Label(trace_id=made[0].trace_id, span_id=made[0].span_id, name="score", source="me", value=0.5))
    assert (view.sent, view.lost) == (len(made) + 1, 0), view.loss
    wait_for(collector.log, "Received logs")
    wait_for(collector.log, "Received metrics")
    deadline = monotonic() + 20
    while len(came := list(read_spans(collector.kept))) < len(made) and monotonic() < deadline:
        sleep(0.1)
    assert sorted(came, key=lambda span: span.span_id) == sorted(made, key=lambda span: span.span_id)
