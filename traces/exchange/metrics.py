"""Metrics: what finished spans say of durations, tokens and calls, as the GenAI conventions count them."""

import threading
from collections import Counter
from collections.abc import Iterator
from typing import TypeAlias

from opentelemetry import metrics as otel
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.conventions import MetricConvention, conventions

Point: TypeAlias = tuple[str, float, dict[str, str | int]]
"""A metric's name, a value, and the attributes that the span's own do not have."""

DURATIONS = {
    "invoke_workflow": "gen_ai.invoke_workflow.duration",
    "invoke_agent": "gen_ai.invoke_agent.duration",
    "execute_tool": "gen_ai.execute_tool.duration",
    **dict.fromkeys(a.INFERENCE, "gen_ai.client.inference.duration"),
}


class Metrics:
    """A sink that measures every span appended to it; readers bring what it measured to where it is wanted."""

    def __init__(self, *readers: MetricReader, older: bool = False, service: str = "journeyman") -> None:
        """`older` adds the two metrics of the conventions up to 1.41, which many dashboards still read."""
        self._provider = MeterProvider(
            metric_readers=readers, resource=Resource.create({"service.name": service}), shutdown_on_exit=False
        )
        self._older = older
        table = conventions()
        self._conventions = table.metrics | (table.older_metrics if older else {})
        meter = self._provider.get_meter("journeyman")
        self._instruments = {name: _instrument(meter, name, metric) for name, metric in self._conventions.items()}
        self._calls = _Calls()

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        """Measures a span; those below it must have come before, as they do when spans are appended as they end."""
        for name, value, added in self._points(span):
            metric, instrument = self._conventions[name], self._instruments[name]
            known = {key: value for key, value in span.attributes.items() if key in metric.attributes}
            attributes = {key: value for key, value in (known | added).items() if isinstance(value, str | int)}
            if isinstance(instrument, otel.Counter):
                instrument.add(value, attributes)
            else:
                instrument.record(value, attributes)

    def close(self) -> None:
        """Lets the readers collect for the last time."""
        self._provider.shutdown()

    def _points(self, span: SpanRecord) -> Iterator[Point]:
        operation = str(span.attributes.get(a.OPERATION))
        seconds = (span.end_ns - span.start_ns) / 1e9
        if operation in DURATIONS:
            yield DURATIONS[operation], seconds, {}
        if operation in a.INFERENCE:
            yield from self._inference(span, seconds)
        calls = self._calls.end(span, operation)
        if operation == "invoke_agent":
            yield "gen_ai.invoke_agent.inference_calls", calls["inference"], {}
            yield "gen_ai.invoke_agent.tool_calls", calls["tool"], {}

    def _inference(self, span: SpanRecord, seconds: float) -> Iterator[Point]:
        if self._older:
            yield "gen_ai.client.operation.duration", seconds, {}
        for side, name in (("input", a.INPUT_TOKENS), ("output", a.OUTPUT_TOKENS)):
            tokens = span.attributes.get(name)
            if isinstance(tokens, int):
                yield f"gen_ai.client.inference.operation.{side}_tokens", tokens, {}
                yield f"gen_ai.client.inference.usage.{side}_tokens", tokens, {a.TOKEN_MODALITY: "text"}
                if self._older:
                    yield "gen_ai.client.token.usage", tokens, {"gen_ai.token.type": side}
        cached = span.attributes.get(a.CACHED_TOKENS)
        if isinstance(cached, int):
            yield "gen_ai.client.inference.usage.cache_read.input_tokens", cached, {a.TOKEN_MODALITY: "text"}


class _Calls:
    """Counts the calls below spans that have not ended yet, until the agent that made them ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._below: dict[str, dict[str, Counter[str]]] = {}

    def end(self, span: SpanRecord, operation: str) -> Counter[str]:
        """What was counted below `span`; of anything but an agent it counts for the span above too."""
        with self._lock:
            counts = self._below.get(span.trace_id, {}).pop(span.span_id, Counter())
            if operation in a.INFERENCE:
                counts["inference"] += 1
            elif operation == "execute_tool":
                counts["tool"] += 1
            if span.parent_id is None:
                self._below.pop(span.trace_id, None)
            elif operation != "invoke_agent" and counts:
                self._below.setdefault(span.trace_id, {}).setdefault(span.parent_id, Counter()).update(counts)
            return counts


def _instrument(meter: otel.Meter, name: str, metric: MetricConvention) -> otel.Counter | otel.Histogram:
    if metric.instrument == "counter":
        return meter.create_counter(name, unit=metric.unit)
    return meter.create_histogram(name, unit=metric.unit, explicit_bucket_boundaries_advisory=metric.buckets)
