"""The meter: sums that are sent from time to time, and an endpoint that does not want them is left alone."""

from collections.abc import Sequence
from typing import Any

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.errors import DeliveryError
from journeyman.traces.exchange.meter import EVERY_S, Meter
from journeyman.traces.labels import Label

CHAT = SpanRecord(
    trace_id="7" * 32,
    span_id="1" * 16,
    parent_id=None,
    name="chat base",
    kind="client",
    start_ns=0,
    end_ns=2_000_000_000,
    status="ok",
    attributes={a.OPERATION: "chat", a.REQUEST_MODEL: "base"},
)


class Metering:
    """An endpoint that keeps the sums of durations that it is sent, or fails as it is told to."""

    shown = "http://meter"

    def __init__(self, failure: DeliveryError | None = None) -> None:
        self.failure = failure
        self.seconds: list[float] = []

    def send_metrics(self, metrics: Any, timeout_s: float) -> None:
        if self.failure is not None:
            raise self.failure
        (scope,) = metrics.resource_metrics[0].scope_metrics
        found = {metric.name: metric for metric in scope.metrics}
        self.seconds.append(found["gen_ai.client.inference.duration"].data.data_points[0].sum)

    def send_spans(self, spans: Sequence[SpanRecord], timeout_s: float) -> int:
        return 0

    def send_label(self, label: Label, timeout_s: float) -> None: ...

    def close(self) -> None: ...


def test_what_is_sent_are_the_sums_since_the_start() -> None:
    meter, endpoint = Meter(older=False), Metering()
    for _ in range(2):
        meter.measure([CHAT])
        meter.send(endpoint, 1.0)
    assert endpoint.seconds == [2.0, 4.0]


def test_sums_are_due_when_there_is_something_new_and_not_at_once() -> None:
    meter = Meter(older=False)
    assert meter.due_s is None
    meter.measure([CHAT])
    assert meter.due_s is not None and EVERY_S - 1 < meter.due_s <= EVERY_S
    meter.send(Metering(), 1.0)
    assert meter.due_s is None


def test_what_did_not_arrive_is_due_again_and_in_the_next_sums() -> None:
    meter, endpoint = Meter(older=False), Metering(DeliveryError("busy", retryable=True))
    meter.measure([CHAT])
    meter.send(endpoint, 1.0)
    assert meter.due_s is not None
    endpoint.failure = None
    meter.measure([CHAT])
    meter.send(endpoint, 1.0)
    assert endpoint.seconds == [4.0]


def test_an_endpoint_without_metrics_is_not_asked_again() -> None:
    meter = Meter(older=False)
    meter.measure([CHAT])
    meter.send(Metering(DeliveryError("answered 404", retryable=False)), 1.0)
    meter.measure([CHAT])
    assert meter.due_s is None
