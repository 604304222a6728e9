"""A meter: what spans say of durations and tokens, added up and sent to an endpoint from time to time."""

from collections.abc import Sequence
from time import monotonic

from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.errors import DeliveryError
from journeyman.traces.exchange.endpoint import Endpoint
from journeyman.traces.exchange.metrics import Metrics

EVERY_S = 10.0


class Meter:
    """Sums since its start are what is sent, so that one message that is lost loses nothing."""

    def __init__(self, *, older: bool) -> None:
        self._reader = InMemoryMetricReader()
        self._metrics = Metrics(self._reader, older=older)
        self._sent_at = monotonic()
        self._news = False
        self._wanted = True

    def measure(self, spans: Sequence[SpanRecord]) -> None:
        for span in spans:
            self._metrics.append(span, sync=False)
        self._news = True

    @property
    def due_s(self) -> float | None:
        """Seconds until there is something to send, None where nothing is new."""
        if not (self._news and self._wanted):
            return None
        return max(0.0, self._sent_at + EVERY_S - monotonic())

    def send(self, endpoint: Endpoint, timeout_s: float) -> None:
        """Sends the sums. An endpoint that takes no metrics, as many that show spans, is not asked again."""
        collected = self._reader.get_metrics_data()
        self._sent_at, self._news = monotonic(), False
        if collected is None:
            return
        try:
            endpoint.send_metrics(collected, timeout_s)
        except DeliveryError as error:
            self._wanted = error.retryable
            self._news = True
