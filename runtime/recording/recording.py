"""Recording: a workspace's record and its views, put together as `[traces]` says. Every run is recorded through one."""

import logging
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from journeyman.runtime.config import read_headers
from journeyman.runtime.workspace import Workspace
from journeyman.traces.capture.content import ContentPolicy
from journeyman.traces.capture.log import SpanLog, SpanRecord
from journeyman.traces.capture.tracer import Sink, Tracer
from journeyman.traces.errors import StoreError
from journeyman.traces.labels import Label, LabelLog

if TYPE_CHECKING:
    from journeyman.traces.exchange.view import View

VIEW_DEADLINE_S = 3.0
"""How long closing waits, for each view, until what is on its way has arrived."""

_logger = logging.getLogger(__name__)


class Recording:
    """Spans and labels on their way into a workspace, as many of them as its content policy lets through.

    with Recording(workspace) as recording:
        runtime = Runtime(crew, model=model, tracer=recording.tracer)
    """

    def __init__(self, workspace: Workspace, *sinks: Sink, compacts: bool = False) -> None:
        """`sinks` get every span too, after the log. `compacts`: once a log file is full, a process of its own makes
        segments; for processes that live long. Raises `ConfigError` for settings that can't be used."""
        config = workspace.config.traces
        self._workspace = workspace
        self._policy = ContentPolicy(config.content, config.redact)
        self._log = SpanLog(
            workspace.create().spans,
            on_full=config.on_full,
            rotate_bytes=int(config.rotate_mb * 2**20),
            on_rotate=self._compact if compacts else None,
        )
        self._labels = LabelLog(workspace.labels)
        self._views = _open_views(workspace) if config.views else []
        self.compaction: threading.Thread | None = None
        """Ends with the last compaction that was begun."""
        self._sinks: tuple[Sink, ...] = (self._log, *self._views, *sinks)
        self.tracer = Tracer(*self._sinks, content=self._policy)

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        """Takes a span that another program made, the way that our own go."""
        kept = self._policy.apply(span)
        for sink in self._sinks:
            sink.append(kept, sync=sync)

    def keep(self, spans: Iterable[SpanRecord]) -> None:
        """Takes spans of the past, durably: they come into the record, redacted like all, and into no view.

        Raises `StoreError` if the disk refuses, also where a run would go on.
        """
        dropped = self._log.dropped
        self._log.append_many([self._policy.apply(span) for span in spans], sync=True)
        if self._log.dropped > dropped:
            raise StoreError(f"spans were not written to {self._log.path}: the disk refused")

    def label(self, *labels: Label, shown: bool = True) -> None:
        """Keeps the labels durably, redacted like spans, and shows them in the views; raises `StoreError`.

        `shown` is False for labels that came from there, or are of runs that the views never saw.
        """
        kept = [self._redacted(label) for label in labels]
        self._labels.append(*kept)
        for view in self._views if shown else []:
            for label in kept:
                view.label(label)

    @property
    def losses(self) -> list[str]:
        """What did not get where it should have gone, and why, in a line each."""
        lines = [loss for view in self._views if (loss := view.loss) is not None]
        if self._log.dropped:
            lines.append(f"the disk refused {self._log.dropped} spans of {self._log.path.parent}")
        if self._policy.failures:
            lines.append(f"{self._policy.failures} spans have no content, because a function of `redact` failed")
        return lines

    def close(self) -> None:
        """Closes the log and the views, which get a few seconds; what was lost is told in the log of the process."""
        self._log.close()
        for view in self._views:
            view.close(VIEW_DEADLINE_S)
        for loss in self.losses:
            _logger.warning("%s", loss)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _redacted(self, label: Label) -> Label:
        texts = {name: text for name in ("value", "comment") if isinstance(text := getattr(label, name), str)}
        return label.model_copy(update={name: self._policy.redact(text) for name, text in texts.items()})

    def _compact(self) -> None:
        if self.compaction is None or not self.compaction.is_alive():
            from journeyman.traces.storage.background import compact_in_background

            self.compaction = compact_in_background(self._workspace.spans, self._workspace.segments)


def _open_views(workspace: Workspace) -> "list[View]":
    from journeyman.traces.exchange.view import View  # Not for those who have none.

    return [
        View(
            view.url,
            view.kind,
            headers=read_headers(view.headers_env),
            queue=view.queue,
            metrics="older" if view.older_metrics else True,
        )
        for view in workspace.config.traces.views
    ]
