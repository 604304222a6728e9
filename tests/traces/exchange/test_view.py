"""A view: the endpoint gets what it can take, the run waits for nothing, and every span is sent or counted as lost."""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic, sleep
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import ConfigError, DeliveryError
from journeyman.traces.exchange.endpoint import open_endpoint
from journeyman.traces.exchange.mlflow_form import assessment, mlflow_span
from journeyman.traces.exchange.otlp import from_otlp
from journeyman.traces.exchange.view import View
from journeyman.traces.labels import Label

TRACE = f"{7:032x}"


def span(number: int = 1, attributes: Mapping[str, Any] | None = None) -> SpanRecord:
    return SpanRecord(
        trace_id=TRACE,
        span_id=f"{number:016x}",
        parent_id=None,
        name="chat base",
        kind="client",
        start_ns=10,
        end_ns=20,
        status="ok",
        attributes=dict(attributes or {}),
    )


class Collector:
    """An OTLP endpoint over HTTP that behaves as it is told to, and remembers what it acknowledged."""

    def __init__(self) -> None:
        self.status = 200
        self.delay_s = 0.0
        self.refuses = 0
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.spans: list[SpanRecord] = []
        self.logs: list[ExportLogsServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.takes_metrics = 200

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        if path == "/v1/metrics":
            self.metrics.append(ExportMetricsServiceRequest.FromString(body))
            return self.takes_metrics, b""
        self.requests.append((path, headers))
        sleep(self.delay_s)
        if self.status != 200:
            return self.status, b""
        if path == "/v1/logs":
            self.logs.append(ExportLogsServiceRequest.FromString(body))
            return 200, b""
        self.spans += from_otlp(ExportTraceServiceRequest.FromString(body))
        reply = ExportTraceServiceResponse()
        reply.partial_success.rejected_spans = self.refuses
        return 200, reply.SerializeToString()


@contextmanager
def listening(collector: Collector) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, reply = collector.answer(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)
            except ConnectionError:
                collector.spans.clear()  # Never acknowledged.

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def url(collector: Collector) -> Iterator[str]:
    with listening(collector) as address:
        yield address


def until(met: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = monotonic() + seconds
    while not met() and monotonic() < deadline:
        sleep(0.01)
    return met()


def test_a_tracers_spans_arrive_with_their_headers(url: str, collector: Collector) -> None:
    with View(url, headers={"Authorization": "Bearer x"}) as view:
        tracer = Tracer(view)
        with tracer.span("invoke_agent worker", parent=None) as parent, tracer.span("chat base", parent=parent):
            pass
    assert [found.name for found in collector.spans] == ["chat base", "invoke_agent worker"]
    assert collector.requests[0][0] == "/v1/traces"
    assert collector.requests[0][1]["authorization"] == "Bearer x"
    assert (view.sent, view.lost, view.loss) == (2, 0, None)


def test_many_spans_travel_together_and_none_twice(url: str, collector: Collector) -> None:
    with View(url) as view:
        for number in range(1, 1001):
            view.append(span(number), sync=False)
    assert [found.span_id for found in collector.spans] == [f"{number:016x}" for number in range(1, 1001)]
    assert (view.sent, view.lost) == (1000, 0)
    assert len(collector.requests) <= 6


def test_token_ids_and_logprobs_stay_at_home(url: str, collector: Collector) -> None:
    with View(url) as view:
        view.append(
            span(1, {a.TOKEN_IDS: "[1]", a.PROMPT_TOKEN_IDS: "[2]", a.LOGPROBS: "[-1]", a.INPUT_TOKENS: 1}), sync=False
        )
    assert collector.spans[0].attributes == {a.INPUT_TOKENS: 1}


def test_a_label_is_an_evaluation_event_on_its_span(url: str, collector: Collector) -> None:
    said = Label(trace_id=TRACE, span_id=f"{1:016x}", name="score", source="judge", value=0.5, comment="half", at_ns=9)
    with View(url) as view:
        view.append(span(), sync=False)
        view.label(said)
    (record,) = collector.logs[0].resource_logs[0].scope_logs[0].log_records
    assert record.event_name == "gen_ai.evaluation.result"
    assert (record.trace_id.hex(), record.span_id.hex(), record.time_unix_nano) == (TRACE, said.span_id, 9)
    values = {pair.key: pair.value for pair in record.attributes}
    assert values["gen_ai.evaluation.name"].string_value == "score"
    assert values["gen_ai.evaluation.score.value"].double_value == 0.5
    assert values["gen_ai.evaluation.explanation"].string_value == "half"
    assert view.sent == 2


def measured(collector: Collector) -> dict[str, Any]:
    """The last sums, by the metric's name."""
    (group,) = collector.metrics[-1].resource_metrics
    return {metric.name: metric for metric in group.scope_metrics[0].metrics}


def test_metrics_come_at_the_end(url: str, collector: Collector) -> None:
    with View(url) as view:
        for number, tokens in ((1, 3), (2, 5)):
            chat = {a.OPERATION: "chat", a.PROVIDER: "vllm", a.REQUEST_MODEL: "base", a.INPUT_TOKENS: tokens}
            view.append(span(number, chat), sync=False)
    found = measured(collector)
    (tokens_in,) = found["gen_ai.client.inference.operation.input_tokens"].histogram.data_points
    assert (tokens_in.count, tokens_in.sum) == (2, 8)
    assert "gen_ai.client.token.usage" not in found


def test_metrics_have_their_older_names_too_where_asked(url: str, collector: Collector) -> None:
    with View(url, metrics="older") as view:
        view.append(span(1, {a.OPERATION: "chat", a.REQUEST_MODEL: "base", a.INPUT_TOKENS: 3}), sync=False)
    assert "gen_ai.client.token.usage" in measured(collector)


def test_an_endpoint_that_takes_no_metrics_loses_no_span_by_it(url: str, collector: Collector) -> None:
    collector.takes_metrics = 404
    with View(url) as view:
        view.append(span(1, {a.OPERATION: "chat"}), sync=False)
    assert (view.sent, view.lost) == (1, 0)


def test_what_the_endpoint_says_that_it_refused_is_lost(url: str, collector: Collector) -> None:
    collector.refuses = 3
    with View(url) as view:
        for number in range(1, 11):
            view.append(span(number), sync=False)
    assert (view.sent, view.lost) == (7, 3)


@pytest.mark.parametrize("status", [400, 401, 500])
def test_an_endpoint_that_refuses_is_not_asked_twice(url: str, collector: Collector, status: int) -> None:
    collector.status = status
    with View(url, first_pause_s=0.01) as view:
        view.append(span(), sync=False)
        assert until(lambda: view.lost == 1)
    assert len(collector.requests) == 1
    assert view.loss == f"{url} did not get 1 of 1: {url} answered {status} to /v1/traces"


def test_an_endpoint_that_is_busy_for_a_while_gets_everything_once(url: str, collector: Collector) -> None:
    collector.status = 503
    with View(url, first_pause_s=0.3) as view:
        for number in range(1, 11):
            view.append(span(number), sync=False)
        assert until(lambda: len(collector.requests) >= 2)
        collector.status = 200
        assert until(lambda: view.sent == 10)
    assert len(collector.spans) == 10
    assert view.lost == 0


def test_an_endpoint_that_comes_back_gets_what_comes_then(url: str, collector: Collector) -> None:
    collector.status = 500
    with View(url, first_pause_s=0.01) as view:
        view.append(span(1), sync=False)
        assert until(lambda: view.lost == 1)
        collector.status = 200
        view.append(span(2), sync=False)
        assert until(lambda: view.sent == 1)
    assert [found.span_id for found in collector.spans] == [f"{2:016x}"]


def test_where_nothing_listens_all_is_counted_and_nothing_waits(free_port: int) -> None:
    view = View(f"http://127.0.0.1:{free_port}", queue=100)
    began = monotonic()
    for number in range(1, 1001):
        view.append(span(number), sync=True)
    assert monotonic() - began < 1.0
    assert until(lambda: view.loss is not None)
    began = monotonic()
    view.close()
    assert monotonic() - began < 1.0
    assert (view.sent, view.lost) == (0, 1000)
    assert "did not get 1000 of 1000" in str(view.loss)


def test_an_endpoint_that_never_answers_holds_nobody_up_beyond_the_deadline(url: str, collector: Collector) -> None:
    collector.delay_s = 3.0
    view = View(url, queue=300)
    for number in range(1, 1001):
        view.append(span(number), sync=False)
    assert until(lambda: len(collector.requests) == 1)
    began = monotonic()
    view.close(deadline_s=0.3)
    assert monotonic() - began < 1.0
    assert view.sent + view.lost == 1000
    assert view.sent == 0


def test_a_slow_endpoint_loses_what_the_queue_cannot_hold(url: str, collector: Collector) -> None:
    collector.delay_s = 0.3
    with View(url, queue=300) as view:
        for number in range(1, 2001):
            view.append(span(number), sync=False)
    assert view.lost > 0
    assert view.sent == len(collector.spans)
    assert view.sent + view.lost == 2000


def test_every_span_of_many_threads_is_sent_or_counted(url: str, collector: Collector) -> None:
    def work(first: int) -> None:
        for number in range(first, first + 500):
            view.append(span(number), sync=False)

    with View(url, queue=600) as view:
        threads = [threading.Thread(target=work, args=(first,)) for first in range(1, 4001, 500)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert view.sent + view.lost == 4000
    assert view.sent == len({found.span_id for found in collector.spans})


def test_a_span_that_comes_after_the_end_is_lost(url: str) -> None:
    view = View(url)
    view.close()
    view.append(span(), sync=False)
    assert (view.sent, view.lost) == (0, 1)


@pytest.mark.parametrize("address", ["collector:4317", "ftp://x", "http://", ""])
def test_an_address_that_cannot_be_one_is_refused(address: str) -> None:
    with pytest.raises(ConfigError):
        View(address)


def test_a_password_in_the_address_is_never_shown(free_port: int) -> None:
    with View(f"http://me:secret@127.0.0.1:{free_port}/x", first_pause_s=0.01) as view:
        view.append(span(), sync=False)
        assert until(lambda: view.loss is not None)
    assert "secret" not in str(view.loss)


class Services(grpc.GenericRpcHandler):  # type: ignore[misc]
    """OTLP over gRPC: remembers requests, or fails with a code."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []
        self.metadata: dict[str, str] = {}
        self.code: grpc.StatusCode | None = None

    def service(self, details: Any) -> Any:
        def handle(request: bytes, context: Any) -> bytes:
            self.metadata = dict(context.invocation_metadata())
            self.requests.append((details.method, request))
            if self.code is not None:
                context.abort(self.code, "as told")
            return b""

        return grpc.unary_unary_rpc_method_handler(handle)


@pytest.fixture
def services() -> Services:
    return Services()


@pytest.fixture
def grpc_url(services: Services) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2), handlers=[services])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def test_spans_and_labels_go_by_grpc(grpc_url: str, services: Services) -> None:
    chat = span(1, {a.OPERATION: "chat", a.INPUT_TOKENS: 3})
    with View(grpc_url, "otlp-grpc", headers={"X-Key": "k"}) as view:
        view.append(chat, sync=False)
        view.label(Label(trace_id=TRACE, name="good", source="me", value=True))
    (traces, request), (logs, _), (metrics, _) = services.requests
    assert traces == "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
    assert logs == "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
    assert metrics == "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
    assert list(from_otlp(ExportTraceServiceRequest.FromString(request))) == [chat]
    assert services.metadata["x-key"] == "k"
    assert (view.sent, view.lost) == (2, 0)


@pytest.mark.parametrize(("code", "retryable"), [("UNAVAILABLE", True), ("PERMISSION_DENIED", False)])
def test_a_grpc_failure_says_whether_another_try_may_help(
    grpc_url: str, services: Services, code: str, retryable: bool
) -> None:
    services.code = grpc.StatusCode[code]
    endpoint = open_endpoint(grpc_url, "otlp-grpc")
    with pytest.raises(DeliveryError, match=code) as caught:
        endpoint.send_spans([span()], 2.0)
    endpoint.close()
    assert caught.value.retryable is retryable


def test_where_no_grpc_listens_all_is_counted(free_port: int) -> None:
    with View(f"http://127.0.0.1:{free_port}", "otlp-grpc", first_pause_s=0.01) as view:
        view.append(span(), sync=False)
        assert until(lambda: view.lost == 1)
    assert "UNAVAILABLE" in str(view.loss)


def test_mlflow_gets_types_and_texts_under_its_own_names() -> None:
    messages = '[{"role": "user", "parts": [{"type": "text", "content": "how many?"}]}]'
    reply = '[{"role": "assistant", "parts": [{"type": "text", "content": "3"}], "finish_reason": "stop"}]'
    system = '[{"type": "text", "content": "be brief"}]'
    chat = mlflow_span(
        span(
            1,
            {a.OPERATION: "chat", a.SYSTEM_INSTRUCTIONS: system, a.INPUT_MESSAGES: messages, a.OUTPUT_MESSAGES: reply},
        )
    )
    assert chat.attributes == {
        a.OPERATION: "chat",
        "mlflow.spanType": "CHAT_MODEL",
        "mlflow.spanInputs": {
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "how many?"}]
        },
        "mlflow.spanOutputs": {"messages": [{"role": "assistant", "content": "3"}]},
    }
    tool = mlflow_span(
        span(1, {a.OPERATION: "execute_tool", a.TOOL_CALL_ARGUMENTS: '{"q": 1}', a.TOOL_CALL_RESULT: "one"})
    )
    assert tool.attributes["mlflow.spanType"] == "TOOL"
    assert tool.attributes["mlflow.spanInputs"] == {"q": 1}
    assert tool.attributes["mlflow.spanOutputs"] == "one"
    run = mlflow_span(
        span(1, {a.OPERATION: "invoke_workflow", a.TASK: '{"prompt": "p"}', a.OUTCOME: '{"answer": "o"}'})
    )
    assert (run.attributes["mlflow.spanInputs"], run.attributes["mlflow.spanOutputs"]) == ("p", "o")
    assert mlflow_span(span()).attributes == {"mlflow.spanType": "UNKNOWN"}


def test_mlflow_gets_a_digest_where_the_text_is_not_recorded() -> None:
    chat = mlflow_span(span(1, {a.OPERATION: "chat", a.INPUT_MESSAGES: "sha256:ab"}))
    assert chat.attributes["mlflow.spanInputs"] == "sha256:ab"


def test_a_label_is_feedback_of_its_kind_of_source() -> None:
    said = Label(trace_id=TRACE, name="thumbs", source="ada", source_type="human", value=True, at_ns=1_500_000_000)
    form = assessment(said)
    assert form["source"] == {"source_type": "HUMAN", "source_id": "ada"}
    assert form["create_time"] == "1970-01-01T00:00:01.500000Z"
    assert (form["trace_id"], form["feedback"]) == (f"tr-{TRACE}", {"value": True})
    assert "span_id" not in form and "rationale" not in form
