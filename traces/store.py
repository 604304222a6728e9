"""The store: traces and their labels, found by what is in them, in the span log as it is, also while runs write it."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Literal

from journeyman.traces.assemble import assemble
from journeyman.traces.errors import StoreError
from journeyman.traces.labels import Label, LabelLog
from journeyman.traces.log import Damage, LogReader, Place
from journeyman.traces.trace import Status, Trace

Ending = Literal[Status, "unfinished"]
"""How a run ended; `unfinished` while there is no outcome, because it still runs or because its process died."""


class TraceStore:
    """Traces of a span log. In memory are one trace at a time and the place of every span."""

    def __init__(self, spans: Path, labels: Path) -> None:
        """`spans` is the log's folder, `labels` the file of labels; neither need exist yet."""
        self._folder = spans
        self._log = LogReader(spans)
        self._labels = LabelLog(labels)
        self._unusable = 0

    @property
    def damage(self) -> Damage:
        """What the last `traces` or `get` had to leave out."""
        return self._log.damage.model_copy(update={"traces": self._unusable, "labels": self._labels.damaged})

    def traces(
        self,
        *,
        agent: str | None = None,
        policy: str | None = None,
        family: str | None = None,
        status: Ending | None = None,
        label: str | None = None,
        since_ns: int | None = None,
        ids: Collection[str] | None = None,
        newest_first: bool = False,
    ) -> Iterator[Trace]:
        """Traces that meet every condition given, oldest first.

        `agent` took part, `policy` was asked, `label` is the name of one that the trace has, `since_ns` is the earliest
        start, `ids` are whole trace ids. A trace that cannot be assembled is left out and counted in `damage`.
        """
        asked = None if ids is None else frozenset(ids)
        for trace in self._assembled(lambda trace_id: asked is None or trace_id in asked, since_ns or 0, newest_first):
            if (
                (agent is None or any(trajectory.agent == agent for trajectory in trace.trajectories))
                and (policy is None or any(turn.policy == policy for turn in trace.turns))
                and (family is None or (trace.task is not None and trace.task.family == family))
                and (status is None or ending(trace) == status)
                and (label is None or trace.label(label) is not None)
            ):
                yield trace

    def get(self, prefix: str) -> Trace:
        """The trace whose id starts with `prefix`; raises `StoreError` where there is none, or more than one."""
        index = self._index(lambda trace_id: trace_id.startswith(prefix.lower()))
        if not index:
            raise StoreError(f"no trace {prefix!r} in {self._folder}: `journeyman traces list` shows those there are")
        if len(index) > 1:
            some = ", ".join(trace_id[:12] for trace_id in sorted(index)[:4])
            raise StoreError(f"{len(index)} traces start with {prefix!r} ({some}, …): give more of the id")
        ((trace_id, found),) = index.items()
        labels = [label for label in self._labels if label.trace_id == trace_id]
        return assemble(self._log.read(*found.places), labels)

    def label(self, *labels: Label) -> None:
        """Keeps the labels durably; raises `StoreError` if the disk refuses."""
        self._labels.append(*labels)

    def _assembled(self, wanted: Callable[[str], bool], since_ns: int, newest_first: bool) -> Iterator[Trace]:
        labels: dict[str, list[Label]] = {}
        for label in self._labels:
            labels.setdefault(label.trace_id, []).append(label)
        index = self._index(wanted)
        for trace_id in sorted(index, key=lambda trace_id: index[trace_id].start_ns, reverse=newest_first):
            if index[trace_id].start_ns < since_ns:
                continue
            spans = list(self._log.read(*index[trace_id].places))
            try:
                trace = assemble(spans, labels.get(trace_id, ()))
            except StoreError:
                self._unusable += 1
            else:
                yield trace

    def _index(self, wanted: Callable[[str], bool]) -> dict[str, "_Found"]:
        self._unusable = 0
        index: dict[str, _Found] = {}
        for place, span in self._log.scan():
            if wanted(span.trace_id):
                found = index.setdefault(span.trace_id, _Found(span.start_ns))
                found.start_ns = min(found.start_ns, span.start_ns)
                found.places.append(place)
        return index


class _Found:
    """Where the spans of one trace lie: in more than one file if several processes worked on it."""

    def __init__(self, start_ns: int) -> None:
        self.start_ns = start_ns
        self.places: list[Place] = []


def ending(trace: Trace) -> Ending:
    return "unfinished" if trace.outcome is None else trace.outcome.status
