"""Endpoints that take copies of spans, labels and metrics: an OTLP collector over HTTP or gRPC, or an MLflow server."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import httpx

from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.errors import ConfigError, DeliveryError
from journeyman.traces.exchange.mlflow_form import assessment, mlflow_span
from journeyman.traces.exchange.otlp import log_request, refused_spans, to_otlp
from journeyman.traces.labels import Label

if TYPE_CHECKING:
    from google.protobuf.message import Message as Protobuf
    from opentelemetry.sdk.metrics.export import MetricsData

Kind = Literal["otlp-http", "otlp-grpc", "mlflow"]

EXPERIMENT = "journeyman"
"""MLflow experiment that spans go to unless a header `x-mlflow-experiment-id` names another."""

# What the OTLP specification calls worth another try.
_RETRYABLE_STATUS = (429, 502, 503, 504)
_RETRYABLE_CODES = ("CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS")

_EXPERIMENT_ID = re.compile(r'"experiment_id":\s*"(\d+)"')
_LOOPBACK = re.compile(r"localhost|127\.|\[?::1")


class Endpoint(Protocol):
    """Somewhere to send to; each call is one attempt and raises `DeliveryError` if it fails."""

    shown: str
    """The address without user, password or path: for messages."""

    def send_spans(self, spans: Sequence[SpanRecord], timeout_s: float) -> int:
        """Sends the spans, and says how many of them were refused."""

    def send_label(self, label: Label, timeout_s: float) -> None: ...

    def send_metrics(self, metrics: MetricsData, timeout_s: float) -> None: ...

    def close(self) -> None: ...


def open_endpoint(url: str, kind: Kind = "otlp-http", headers: Mapping[str, str] | None = None) -> Endpoint:
    """Sends nothing yet. `headers` go with every request; raises `ConfigError` for an address that cannot be one."""
    return _KINDS[kind](_url(url), headers or {})


class OtlpHttp:
    """`/v1/traces` and `/v1/logs` under an address, as protobuf."""

    def __init__(self, url: httpx.URL, headers: Mapping[str, str]) -> None:
        self._base = re.sub(r"/(v1/traces)?/*$", "", str(url))
        self.shown = _shown(url)
        self._headers = dict(headers)
        # A proxy is for addresses out there: one that the environment names knows nothing of this machine's ports.
        # Certificates take a while to read, and plain HTTP asks for none.
        self._client = httpx.Client(trust_env=not _LOOPBACK.match(url.host), verify=url.scheme == "https")

    def send_spans(self, spans: Sequence[SpanRecord], timeout_s: float) -> int:
        reply = self._post("/v1/traces", to_otlp(spans), timeout_s)
        return refused_spans(reply.content)

    def send_label(self, label: Label, timeout_s: float) -> None:
        self._post("/v1/logs", log_request(label), timeout_s)

    def send_metrics(self, metrics: MetricsData, timeout_s: float) -> None:
        self._post("/v1/metrics", _encoded(metrics), timeout_s)

    def close(self) -> None:
        self._client.close()

    def _post(self, path: str, message: Protobuf, timeout_s: float) -> httpx.Response:
        headers = {**self._headers, "Content-Type": "application/x-protobuf"}
        return self._request("POST", path, timeout_s, headers=headers, content=message.SerializeToString())

    def _request(self, method: str, path: str, timeout_s: float, **parts: Any) -> httpx.Response:
        try:
            reply = self._client.request(method, f"{self._base}{path}", timeout=timeout_s, **parts)
        except httpx.HTTPError as error:
            raise DeliveryError(f"{self.shown} does not answer: {type(error).__name__}", retryable=True) from None
        if not reply.is_success:
            raise DeliveryError(
                f"{self.shown} answered {reply.status_code} to {path}", retryable=reply.status_code in _RETRYABLE_STATUS
            )
        return reply


class MLflow(OtlpHttp):
    """An MLflow server: spans in the form that its pages show, labels as its assessments."""

    def __init__(self, url: httpx.URL, headers: Mapping[str, str]) -> None:
        super().__init__(url, headers)
        self._placed = "x-mlflow-experiment-id" in {name.lower() for name in headers}

    def send_spans(self, spans: Sequence[SpanRecord], timeout_s: float) -> int:
        if not self._placed:
            self._headers["x-mlflow-experiment-id"] = self._experiment(timeout_s)
            self._placed = True
        return super().send_spans([mlflow_span(span) for span in spans], timeout_s)

    def send_label(self, label: Label, timeout_s: float) -> None:
        path = f"/api/3.0/mlflow/traces/tr-{label.trace_id}/assessments"
        self._request("POST", path, timeout_s, headers=self._headers, json={"assessment": assessment(label)})

    def _experiment(self, timeout_s: float) -> str:
        """Id of the experiment, which is made where there is none of that name."""
        root = "/api/2.0/mlflow/experiments"
        try:
            found = f"{root}/get-by-name?experiment_name={EXPERIMENT}"
            reply = self._request("GET", found, timeout_s, headers=self._headers)
        except DeliveryError as error:
            if error.retryable:
                raise
            named = {"name": EXPERIMENT}
            reply = self._request("POST", f"{root}/create", timeout_s, headers=self._headers, json=named)
        match = _EXPERIMENT_ID.search(reply.text)
        if match is None:
            raise DeliveryError(f"{self.shown} names no experiment: is an MLflow server there?", retryable=False)
        return match[1]


class OtlpGrpc:
    """A collector's OTLP services, without TLS unless the address begins with `https`."""

    def __init__(self, url: httpx.URL, headers: Mapping[str, str]) -> None:
        try:
            import grpc  # type: ignore[import-untyped]
        except ImportError:
            raise ConfigError('OTLP over gRPC needs grpcio: pip install "journeyman[otlp]"') from None
        self.shown = _shown(url)
        target = f"{url.host}:{url.port or 4317}"
        if url.scheme == "https":
            self._channel = grpc.secure_channel(target, grpc.ssl_channel_credentials())
        else:
            self._channel = grpc.insecure_channel(target)
        self._failure = grpc.RpcError
        self._metadata = tuple((name.lower(), value) for name, value in headers.items())

    def send_spans(self, spans: Sequence[SpanRecord], timeout_s: float) -> int:
        return refused_spans(self._call("trace.v1.TraceService", to_otlp(spans), timeout_s))

    def send_label(self, label: Label, timeout_s: float) -> None:
        self._call("logs.v1.LogsService", log_request(label), timeout_s)

    def send_metrics(self, metrics: MetricsData, timeout_s: float) -> None:
        self._call("metrics.v1.MetricsService", _encoded(metrics), timeout_s)

    def close(self) -> None:
        self._channel.close()

    def _call(self, service: str, request: Protobuf, timeout_s: float) -> bytes:
        export = self._channel.unary_unary(f"/opentelemetry.proto.collector.{service}/Export")
        try:
            reply: bytes = export(request.SerializeToString(), timeout=timeout_s, metadata=self._metadata)
            return reply
        except self._failure as error:
            code = error.code().name
            raise DeliveryError(f"{self.shown} answered {code}", retryable=code in _RETRYABLE_CODES) from None


_KINDS: dict[Kind, Callable[[httpx.URL, Mapping[str, str]], Endpoint]] = {
    "otlp-http": OtlpHttp,
    "otlp-grpc": OtlpGrpc,
    "mlflow": MLflow,
}


def _encoded(metrics: MetricsData) -> Protobuf:
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics

    return encode_metrics(metrics)


def _url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        # The address itself may hold a password.
        raise ConfigError(f"the endpoint's address is no URL: {error}") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigError(f"an endpoint's address is written http://host:port, not {url.scheme or 'without a scheme'}")
    return url


def _shown(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}"
