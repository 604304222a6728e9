"""A view: a copy of the record that an endpoint gets while runs go on. It may lose, and counts what it loses."""

import random
import threading
from collections import deque
from collections.abc import Mapping
from typing import Literal, Self

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.errors import DeliveryError, StoreError
from journeyman.traces.exchange.endpoint import Endpoint, Kind, open_endpoint
from journeyman.traces.exchange.meter import Meter
from journeyman.traces.labels import Label

BATCH = 256
"""Spans in one request."""

LINGER_S = 0.2
"""How long spans wait for company, so that a request carries more than one."""

ATTEMPTS = 4
"""For one request, where the endpoint is down, busy or slow; anything else is not asked twice."""

LONGEST_PAUSE_S = 15.0

# Only training reads these, from the record itself, and they are most of a span.
_LEFT_OUT = {a.PROMPT_TOKEN_IDS, a.TOKEN_IDS, a.LOGPROBS}


class View:
    """Sends from a thread of its own, so that `append` and `label` neither wait nor raise.

    What finds no room in the queue and what the endpoint does not take is dropped and counted in `lost`.
    """

    def __init__(
        self,
        url: str,
        kind: Kind = "otlp-http",
        *,
        headers: Mapping[str, str] | None = None,
        queue: int = 4096,
        timeout_s: float = 5.0,
        first_pause_s: float = 0.5,
        metrics: bool | Literal["older"] = True,
    ) -> None:
        """`queue` is how much may wait, `timeout_s` is for one request, `first_pause_s` follows the first failure and
        doubles with each further one. `metrics` are sent too, unless to MLflow; "older" adds the two that dashboards
        made for the conventions up to 1.41 read. Raises `ConfigError` for an address that cannot be one."""
        self._endpoint: Endpoint = open_endpoint(url, kind, headers)
        self.sent = 0
        """Spans and labels that the endpoint took."""
        self.lost = 0
        """Spans and labels that it did not get, or did not take."""
        self._meter = Meter(older=metrics == "older") if metrics and kind != "mlflow" else None
        self._queue = queue
        self._timeout_s = timeout_s
        self._first_pause_s = first_pause_s
        self._waiting: deque[SpanRecord | Label] = deque()
        self._flying = 0
        self._failures = 0
        self._why: str | None = None
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._over = False
        self._thread: threading.Thread | None = None

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        """Takes the span to send it later. `sync` is for sinks that promise to keep it."""
        self._take(span)

    def label(self, label: Label) -> None:
        self._take(label)

    @property
    def loss(self) -> str | None:
        """What was lost and why, in one line; None where nothing was."""
        if not self.lost:
            return None
        return f"{self._endpoint.shown} did not get {self.lost} of {self.sent + self.lost}: {self._why or 'queue full'}"

    def close(self, deadline_s: float = 3.0) -> None:
        """Sends what waits, for at most so long; an endpoint that failed last time is not waited for."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(0.0 if self._failures else deadline_s)
        with self._changed:
            if self._flying or self._waiting:
                self._why = self._why or f"no answer within {deadline_s:g} s"
            self.lost += self._flying + len(self._waiting)
            self._waiting.clear()
            self._over = True
        if self._thread is None:
            self._endpoint.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, entry: SpanRecord | Label) -> None:
        with self._changed:
            if self._closing.is_set() or len(self._waiting) >= self._queue:
                self.lost += 1
                return
            self._waiting.append(entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="view", daemon=True)
                self._thread.start()
            # Waking the thread for every span would cost the run a switch of threads for each.
            if len(self._waiting) in (1, BATCH):
                self._changed.notify()

    def _work(self) -> None:
        while (batch := self._next()) or not self._closing.is_set():
            if batch:
                self._deliver(batch)
            self._measure(batch)
        if self._meter is not None and not self._failures:
            self._meter.send(self._endpoint, self._timeout_s)
        self._endpoint.close()

    def _next(self) -> list[SpanRecord] | Label | None:
        """What to send next; None when metrics are due, or the end has come."""
        due_s = None if self._meter is None or self._failures else self._meter.due_s
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing.is_set(), due_s)
            self._changed.wait_for(lambda: len(self._waiting) >= BATCH or self._closing.is_set(), LINGER_S)
            if not self._waiting or self._over or (self._closing.is_set() and self._failures):
                return None
            first = self._waiting.popleft()
            if isinstance(first, Label):
                self._flying = 1
                return first
            batch = [first]
            while self._waiting and len(batch) < BATCH and not isinstance(self._waiting[0], Label):
                batch.append(self._waiting.popleft())  # type: ignore[arg-type]
            self._flying = len(batch)
            return batch

    def _deliver(self, batch: list[SpanRecord] | Label) -> None:
        for _ in range(ATTEMPTS):
            try:
                self._landed(refused=self._send(batch))
                return
            except StoreError as error:  # It has no OTLP form.
                self._why = str(error)
                break
            except DeliveryError as error:
                self._why = str(error)
                self._failures += 1
                if self._pause() or not error.retryable:
                    break
        self._landed(refused=self._flying, failed=True)

    def _measure(self, batch: list[SpanRecord] | Label | None) -> None:
        if self._meter is None:
            return
        if isinstance(batch, list):
            self._meter.measure(batch)
        if self._meter.due_s == 0 and not self._failures:
            self._meter.send(self._endpoint, self._timeout_s)

    def _send(self, batch: list[SpanRecord] | Label) -> int:
        if isinstance(batch, Label):
            self._endpoint.send_label(batch, self._timeout_s)
            return 0
        return self._endpoint.send_spans([_shown(span) for span in batch], self._timeout_s)

    def _landed(self, *, refused: int, failed: bool = False) -> None:
        with self._changed:
            if not self._over:
                self.sent += self._flying - refused
                self.lost += refused
            self._flying = 0
            if not failed:
                self._failures = 0

    def _pause(self) -> bool:
        """Waits before the next request, longer after each failure and never twice the same; True if closing."""
        longest = min(LONGEST_PAUSE_S, self._first_pause_s * 2 ** min(self._failures - 1, 10))
        return self._closing.wait(longest * random.uniform(0.5, 1.0))


def _shown(span: SpanRecord) -> SpanRecord:
    kept = {name: value for name, value in span.attributes.items() if name not in _LEFT_OUT}
    return span.model_copy(update={"attributes": kept})
