"""The intake: what comes from other programs on its way into the record, redacted like a run and never twice."""

from types import TracebackType
from typing import Self

from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.workspace import Workspace
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.exchange.conversation import Imported
from journeyman.traces.labels import Label, LabelLog, numbered, unsaid
from journeyman.traces.tombstones import Tombstones

BATCH = 2000
"""Spans that are compared with the record and written together, at most."""

BATCH_BYTES = 16 * 2**20
"""Characters of them."""


class Intake:
    """Takes entries, and has all of them on the disk when it ends well. Use it as a context manager."""

    def __init__(self, workspace: Workspace) -> None:
        self.spans = 0
        """Spans that are new in the record."""
        self.known = 0
        """Spans that were there before."""
        self.deleted = 0
        """Spans of runs that were deleted here, which stay so."""
        self.labels = 0
        self._store = workspace.store
        self._recording = Recording(workspace)
        self._tombstones = Tombstones(workspace.spans)
        self._label_log = LabelLog(workspace.labels)
        self._waiting: dict[tuple[str, str], SpanRecord] = {}
        self._weight = 0
        self._said: list[Label] = []

    def take(self, entry: Imported) -> None:
        for span in entry.spans:
            if self._waiting.setdefault((span.trace_id, span.span_id), span) is not span:
                self.known += 1
            self._weight += sum(len(value) for value in span.attributes.values() if isinstance(value, str))
            if len(self._waiting) >= BATCH or self._weight >= BATCH_BYTES:
                self._keep()
        self._said += entry.labels

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self._keep()
        finally:
            self._recording.close()

    def _keep(self) -> None:
        """Writes what waits, labels after the spans that they are of."""
        deleted = self._tombstones.trace_ids()
        there = self._there()
        fresh = [span for key, span in self._waiting.items() if key not in there]
        wanted = [span for span in fresh if span.trace_id not in deleted]
        if wanted:
            self._recording.keep(wanted)
        self.spans += len(wanted)
        self.deleted += len(fresh) - len(wanted)
        self.known += len(self._waiting) - len(fresh)
        self._waiting.clear()
        self._weight = 0
        self._label([label for label in self._said if label.trace_id not in deleted])
        self._said.clear()

    def _there(self) -> set[tuple[str, str]]:
        """Which of the waiting spans the record has."""
        trace_ids = sorted({trace_id for trace_id, _ in self._waiting})
        rows = self._store.sql("SELECT trace_id, span_id FROM spans WHERE list_contains(?, trace_id)", (trace_ids,))
        return {(row["trace_id"], row["span_id"]) for row in rows.to_pylist()}

    def _label(self, said: list[Label]) -> None:
        if not said:
            return
        trace_ids = {label.trace_id for label in said}
        known = [label for label in self._label_log if label.trace_id in trace_ids]
        labels = numbered(unsaid(said, known), known)
        if labels:
            self._recording.label(*labels, shown=False)
        self.labels += len(labels)
