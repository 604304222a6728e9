"""The tracer: spans with explicit parents, written to the log the moment they end. The only import of the OTel SDK."""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Protocol

from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.content import ContentPolicy
from journeyman.traces.errors import ConfigError
from journeyman.traces.log import SpanRecord

AttributeValue = str | bool | int | float | list[str]
Kind = Literal["internal", "client"]

_KINDS = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT}


class Sink(Protocol):
    """Where finished spans go: a `SpanLog` first, then what may lose them."""

    def append(self, span: SpanRecord, *, sync: bool) -> None: ...


class Span:
    """A span that is open; closing it is the tracer's."""

    def __init__(self, span: otel.Span) -> None:
        self._span = span

    @property
    def trace_id(self) -> str:
        return f"{self._span.get_span_context().trace_id:032x}"

    @property
    def span_id(self) -> str:
        return f"{self._span.get_span_context().span_id:016x}"

    @property
    def traceparent(self) -> str:
        """W3C trace context, for the server that does the work."""
        return f"00-{self.trace_id}-{self.span_id}-01"

    def set(self, values: Mapping[str, AttributeValue | None]) -> None:
        """Sets the attributes that are not None."""
        if self._span.is_recording():
            self._span.set_attributes({name: value for name, value in values.items() if value is not None})

    def set_json(self, name: str, value: object) -> None:
        if self._span.is_recording():
            self._span.set_attribute(name, json.dumps(value, ensure_ascii=False))

    def fail(self, kind: str, message: str) -> None:
        """Marks the span as failed: `kind` is `error.type`, `message` one line."""
        self._span.set_attribute(a.ERROR_TYPE, kind)
        self._span.set_attribute(a.ERROR, message)
        self._span.set_status(StatusCode.ERROR, message)

    @property
    def context(self) -> Context:
        return otel.set_span_in_context(self._span, Context())


class Tracer:
    """Makes spans. Every runtime has its own: nothing global is set or read."""

    def __init__(self, *sinks: Sink, content: ContentPolicy | None = None, service: str = "journeyman") -> None:
        """Every sink gets each span, in their order, as `content` leaves it: by default without keys and tokens."""
        # The SDK's default limits drop attributes beyond 128 without a word.
        limits = SpanLimits(
            max_span_attributes=SpanLimits.UNSET,
            max_span_attribute_length=SpanLimits.UNSET,
            max_attributes=SpanLimits.UNSET,
            max_attribute_length=SpanLimits.UNSET,
        )
        # The sampler is named because OTEL_TRACES_SAMPLER, set for other telemetry, would thin out our record.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            id_generator=_IDS,
            resource=Resource.create({"service.name": service}),
            span_limits=limits,
            shutdown_on_exit=False,
        )
        self.records = bool(sinks)
        """Whether spans go anywhere; else they are ids and nothing more."""
        if sinks:
            self._provider.add_span_processor(_Writer(sinks, content or ContentPolicy()))
        self._tracer = self._provider.get_tracer("journeyman")
        if isinstance(self._tracer, otel.NoOpTracer):
            raise ConfigError("OTEL_SDK_DISABLED is set, so that nothing would be recorded: unset it")

    @contextmanager
    def span(
        self,
        name: str,
        *,
        parent: Span | None,
        kind: Kind = "internal",
        attributes: Mapping[str, AttributeValue | None] | None = None,
        trace_id: str | None = None,
    ) -> Iterator[Span]:
        """A span around the block; an exception that leaves the block marks it failed and travels on.

        Parents are explicit: context variables lose them in LangGraph's fan-out. `trace_id` is for a root span that
        goes on with a trace.
        """
        context = Context() if parent is None else parent.context
        with _trace_id(trace_id):
            span = Span(self._started(name, context, kind))
        span.set(attributes or {})
        try:
            yield span
        except BaseException as error:
            span.fail(type(error).__name__, str(error) or type(error).__name__)
            raise
        finally:
            span._span.end()


    def _started(self, name: str, context: Context, kind: Kind) -> otel.Span:
        if self.records:
            return self._tracer.start_span(name, context=context, kind=_KINDS[kind])
        parent = otel.get_current_span(context).get_span_context()
        trace_id = parent.trace_id if parent.is_valid else _IDS.generate_trace_id()
        return otel.NonRecordingSpan(otel.SpanContext(trace_id, _IDS.generate_span_id(), is_remote=False))


class _Ids(IdGenerator):
    """Ids from the operating system: the SDK's come from `random`, which training seeds, so that they come again."""

    def generate_span_id(self) -> int:
        return secrets.randbits(64) or 1

    def generate_trace_id(self) -> int:
        named = _TRACE_ID.get()
        return (secrets.randbits(128) or 1) if named is None else int(named, 16)


_IDS = _Ids()

_TRACE_ID: ContextVar[str | None] = ContextVar("trace_id", default=None)
"""Of the root span that is being started: the SDK asks its id generator, which takes no arguments."""


@contextmanager
def _trace_id(named: str | None) -> Iterator[None]:
    token = _TRACE_ID.set(named)
    try:
        yield
    finally:
        _TRACE_ID.reset(token)


class _Writer(SpanProcessor):
    """Writes each span synchronously when it ends; nothing is batched, so nothing is dropped."""

    def __init__(self, sinks: Sequence[Sink], content: ContentPolicy) -> None:
        self._sinks = sinks
        self._content = content

    def on_end(self, span: ReadableSpan) -> None:
        record = self._content.apply(_record(span))
        # The end of an agent's work or of a run is a promise: it must be on the disk before anyone acts on it.
        sync = record.attributes.get(a.OPERATION) in ("invoke_agent", "invoke_workflow")
        for sink in self._sinks:
            sink.append(record, sync=sync)


def _record(span: ReadableSpan) -> SpanRecord:
    context = span.get_span_context()
    assert context is not None and span.start_time is not None and span.end_time is not None
    attributes: dict[str, JsonValue] = {
        name: list(value) if isinstance(value, tuple) else value  # type: ignore[misc]
        for name, value in (span.attributes or {}).items()
    }
    return SpanRecord(
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        parent_id=None if span.parent is None else f"{span.parent.span_id:016x}",
        name=span.name,
        kind=span.kind.name.lower(),
        start_ns=span.start_time,
        end_ns=span.end_time,
        status="error" if span.status.status_code is StatusCode.ERROR else "ok",
        attributes=attributes,
    )
