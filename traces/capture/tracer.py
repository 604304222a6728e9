"""The tracer: spans with explicit parents, handed to the sinks the moment they end.

They are OpenTelemetry's spans, its ids, kinds, parents and status, made without its SDK: that is for a provider that a
whole process shares, its settings would thin out our record, and it costs several times what is done here.
"""

import asyncio
import secrets
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter, perf_counter_ns, time_ns
from types import TracebackType
from typing import Any, Literal, Protocol, Self, runtime_checkable

from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.capture.content import ContentPolicy
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.capture.span import SPAN_VERSION
from journeyman.traces.errors import StoreError, error_type
from journeyman.traces.messages import as_json

AttributeValue = str | bool | int | float | list[str]
Kind = Literal["internal", "client"]

GATHER_S = 0.05
"""Seconds in which the ends of agents' work gather for one fsync; whoever waits for it, as a run does before it gives
its outcome, does not wait so long."""
QUICK_S = 0.001
"""An fsync that took less than this is done in the event loop the next time: a thread for it would take longer."""


class Sink(Protocol):
    """Where finished spans go: a `SpanLog` first, then what may lose them."""

    def append(self, span: SpanRecord, *, sync: bool) -> None: ...


@runtime_checkable
class DurableSink(Protocol):
    """A sink whose spans survive the process at once, and the machine after `sync`."""

    def sync(self) -> None: ...


class Span:
    """A span for a `with` block; an exception that leaves the block marks it failed and travels on."""

    def __init__(
        self, writer: "_Writer | None", name: str, kind: Kind, trace_id: str, span_id: str, parent_id: str | None
    ) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self._writer = writer
        self._name = name
        self._kind = kind
        self._parent_id = parent_id
        self._attributes: dict[str, JsonValue] = {}
        self._failed = False
        self._start_ns = time_ns()
        # The clock of the day can be set back; a span never ends before it starts.
        self._began_ns = perf_counter_ns()

    @property
    def traceparent(self) -> str:
        """W3C trace context, for the server that does the work."""
        return f"00-{self.trace_id}-{self.span_id}-01"

    def set(self, values: Mapping[str, AttributeValue | None]) -> None:
        """Sets the attributes that are not None."""
        if self._writer is not None:
            self._attributes.update(
                {
                    name: [*value] if isinstance(value, list) else value
                    for name, value in values.items()
                    if value is not None
                }
            )

    def remove(self, names: Iterable[str]) -> None:
        """Takes back attributes that turn out not to be so."""
        for name in names:
            self._attributes.pop(name, None)

    def set_json(self, name: str, value: object) -> None:
        if self._writer is not None:
            self._attributes[name] = as_json(value)

    def fail(self, kind: str, message: str) -> None:
        """Marks the span as failed: `kind` is `error.type`, `message` one line."""
        self.set({a.ERROR_TYPE: kind, a.ERROR: message})
        self._failed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            # LangGraph gives a cancellation an object for its message.
            said = "" if isinstance(error, asyncio.CancelledError) else str(error)
            self.fail(error_type(error), said or type(error).__name__)
        if self._writer is not None:
            self._writer.write(self._record())

    def _record(self) -> SpanRecord:
        # Not validated: all of it was made here, and a run makes four spans for each worker.
        return SpanRecord.model_construct(
            version=SPAN_VERSION,
            trace_id=self.trace_id,
            span_id=self.span_id,
            parent_id=self._parent_id,
            name=self._name,
            kind=self._kind,
            start_ns=self._start_ns,
            end_ns=self._start_ns + perf_counter_ns() - self._began_ns,
            status="error" if self._failed else "ok",
            attributes=self._attributes,
        )


class Tracer:
    """Makes spans. Every runtime has its own: nothing global is set or read."""

    def __init__(self, *sinks: Sink, content: ContentPolicy | None = None) -> None:
        """Every sink gets each span, in their order, as `content` leaves it: by default without keys and tokens."""
        self._writer = _Writer(sinks, content or ContentPolicy()) if sinks else None

    @property
    def records(self) -> bool:
        """Whether spans go anywhere; else they are ids and nothing more."""
        return self._writer is not None

    def span(
        self,
        name: str,
        *,
        parent: Span | None,
        kind: Kind = "internal",
        attributes: Mapping[str, AttributeValue | None] | None = None,
        trace_id: str | None = None,
    ) -> Span:
        """Starts a span; `trace_id` is for a root span that goes on with a trace.

        Parents are explicit: context variables lose them in LangGraph's fan-out. Ids come from the operating system,
        because training seeds `random`, and they would come again.
        """
        trace = parent.trace_id if parent is not None else trace_id or secrets.token_hex(16)
        span = Span(self._writer, name, kind, trace, secrets.token_hex(8), None if parent is None else parent.span_id)
        if attributes:
            span.set(attributes)
        return span

    async def synced(self) -> None:
        """Returns once the work of agents and the runs that ended before are on the disk; raises `StoreError`."""
        if self._writer is not None:
            await self._writer.synced()


class _Writer:
    """Hands each span to the kernel when it ends: nothing is batched, so nothing is dropped.

    The end of an agent's work or of a run is a promise, and goes on to the disk soon. Ends that are close together
    share one fsync. It takes 0.2 to 4 ms on a disk, in which the event loop does other work and a thread waits. One
    that is quick is done without the thread: a recorded run of one worker took 9% longer with it.
    """

    def __init__(self, sinks: Sequence[Sink], content: ContentPolicy) -> None:
        self._sinks = sinks
        self._durable = [sink for sink in sinks if isinstance(sink, DurableSink)]
        self._content = content
        self._due: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}
        self._syncs: dict[asyncio.AbstractEventLoop, asyncio.Future[None]] = {}
        """The last one of each loop: all that ended before it began is on the disk after it."""
        self._sync_s = QUICK_S
        """Seconds that the last one took."""
        self._refusal: StoreError | None = None

    def write(self, span: SpanRecord) -> None:
        self._check()
        record = self._content.apply(span)
        for sink in self._sinks:
            sink.append(record, sync=False)
        if record.attributes.get(a.OPERATION) in ("invoke_agent", "invoke_workflow"):
            self._sync_soon()

    async def synced(self) -> None:
        loop = asyncio.get_running_loop()
        if loop in self._due:
            self._begin(loop)
        if loop in self._syncs:
            await asyncio.shield(self._syncs[loop])
        self._check()

    def _sync_soon(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._sync()
            self._check()
            return
        if loop not in self._due:
            _forget_closed(self._due)
            self._due[loop] = loop.call_later(GATHER_S, self._begin, loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due.pop(loop).cancel()
        _forget_closed(self._syncs)
        if self._sync_s < QUICK_S:
            self._sync()
        else:
            self._syncs[loop] = loop.run_in_executor(None, self._sync)

    def _sync(self) -> None:
        began = perf_counter()
        try:
            for sink in self._durable:
                sink.sync()
        except StoreError as error:
            self._refusal = error  # Told to whoever writes or waits next.
        self._sync_s = perf_counter() - began

    def _check(self) -> None:
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            raise refusal


def _forget_closed(table: dict[asyncio.AbstractEventLoop, Any]) -> None:
    """Other threads, with loops of their own, may do the same in this moment."""
    for loop in list(table):
        if loop.is_closed():
            table.pop(loop, None)
