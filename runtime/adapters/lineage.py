"""Lineage, both ways: from an adapter down to the spans it learned from, and from a span up to what came of it.

A dataset's rows name their spans, an adapter names its dataset by digest, its parent and its start. That is all.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from journeyman.runtime.adapters.adapter import Adapter, adapter_folders, find_adapter, read_adapter
from journeyman.runtime.adapters.datasets import (
    Row,
    Side,
    dataset_files,
    find_dataset,
    read_dataset,
    row_of,
    split_row,
)
from journeyman.runtime.workspace import Workspace
from journeyman.traces import attributes as a
from journeyman.traces.base import Record
from journeyman.traces.errors import AdapterError, StoreError
from journeyman.traces.labels import Label, LabelLog, newest
from journeyman.traces.tombstones import Tombstones

State = Literal["recorded", "deleted", "unknown"]
"""`unknown`: neither recorded here nor deleted here."""


How = Literal[
    "trained on it",
    "replayed rows of it",
    "trained to replace it",
    "trained from its weights",
    "trained on its replies",
]


class Source(Record):
    """A run that an adapter learned from."""

    trace_id: str | None
    """None where the run of the spans is not known any more."""
    state: State
    span_ids: tuple[str, ...]
    demonstrations: int = 0
    """Spans among them that a person or a script wrote, or another program recorded: they were learned from as text."""
    labels: tuple[Label, ...] = ()
    """What is said of the run now."""


class Descendant(Record):
    """An adapter, and what was derived from it."""

    policy: str
    digest: str
    how: How
    """What links it to what stands above it."""
    children: "tuple[Descendant, ...]" = ()


class Use(Record):
    """A dataset that something recorded is in."""

    path: Path
    digest: str
    rows: int
    """Rows that it is in."""
    numbers: tuple[int, ...]
    """Of those rows, as `traces lineage DATASET:ROW` takes them."""
    adapters: tuple[Descendant, ...]
    """Those that were trained on the dataset."""


class AdapterLineage(Record):
    adapter: Adapter
    parents: tuple[str, ...]
    """The policies that it and its parents were trained to replace, `base` last."""
    starts: tuple[str, ...]
    """The policies whose weights it and those started from, `base` last."""
    datasets: tuple[Path, ...]
    """Files with the rows that it was trained on; empty where there is none any more."""
    replayed: tuple[Path, ...]
    """Files of earlier datasets of which it learned rows again."""
    sources: tuple[Source, ...]
    children: tuple[Descendant, ...]

    @property
    def spans(self) -> int:
        return sum(len(source.span_ids) for source in self.sources)


class RecordLineage(Record):
    """What came of a run, or of one span."""

    trace_id: str | None
    span_id: str | None
    state: State
    datasets: tuple[Use, ...]


class RowLineage(Record):
    """Where a row of a dataset came from, and what learned from it."""

    path: Path
    digest: str
    number: int
    sources: tuple[Source, ...]
    adapters: tuple[Descendant, ...]
    """Those that were trained on the dataset."""


def trace_lineage(workspace: Workspace, name: str) -> AdapterLineage | RecordLineage | RowLineage:
    """The lineage of an adapter (`worker@8`), of a row (`DATASET:ROW`), or of a trace or a span by the start of its id.

    Raises `AdapterError`, `ConfigError` or `StoreError` for a name of nothing.
    """
    family = _Family(workspace)
    if (row := split_row(name)) is not None:
        return family.of_row(find_dataset(workspace.datasets, row[0]), row[1])
    if "@" in name:
        return family.of_adapter(read_adapter(find_adapter(workspace.adapters, name)))
    return family.of_record(name.lower())


def uses(workspace: Workspace, trace_ids: Collection[str], span_ids: Collection[str]) -> tuple[Use, ...]:
    """The datasets with rows from those runs or spans, and the adapters that came of them."""
    return _Family(workspace).uses(frozenset(trace_ids), frozenset(span_ids))


class _Family:
    def __init__(self, workspace: Workspace) -> None:
        self._store = workspace.store
        self._tombstones = Tombstones(workspace.spans)
        self._workspace = workspace
        self._adapters = list(_adapters(workspace.adapters))
        self._datasets = [read_dataset(path) for path in dataset_files(workspace.datasets)]

    def of_adapter(self, adapter: Adapter) -> AdapterLineage:
        datasets = [dataset for dataset in self._datasets if dataset.digest == adapter.dataset_digest]
        rows = datasets[0].rows if datasets else ()
        numbers = {one.dataset_digest: one.numbers for one in adapter.replayed}
        again = {
            one.path: [row for row in one.rows if row.number in numbers[one.digest]]
            for one in self._datasets
            if one.digest in numbers
        }
        return AdapterLineage(
            adapter=adapter,
            parents=tuple(self._above(adapter.parent, lambda one: one.parent)),
            starts=tuple(self._above(adapter.start, lambda one: one.start)),
            datasets=tuple(dataset.path for dataset in datasets),
            replayed=tuple(again),
            sources=tuple(self._sources([*rows, *chain.from_iterable(again.values())])),
            children=self._children(adapter, frozenset({adapter.policy})),
        )

    def of_row(self, path: Path, number: int) -> RowLineage:
        dataset = read_dataset(path)
        return RowLineage(
            path=path,
            digest=dataset.digest,
            number=number,
            sources=tuple(self._sources([row_of(dataset, number)])),
            adapters=self._trained_on(dataset.digest, frozenset({number})),
        )

    def of_record(self, name: str) -> RecordLineage:
        trace_id, span_id = self._resolved(name)
        datasets = self.uses(frozenset() if span_id else frozenset({str(trace_id)}), self._calls(trace_id, span_id))
        state = self._state(trace_id, recorded=self._is_recorded(trace_id))
        return RecordLineage(trace_id=trace_id, span_id=span_id, state=state, datasets=datasets)

    def uses(self, trace_ids: frozenset[str], span_ids: frozenset[str]) -> tuple[Use, ...]:
        found = []
        for dataset in self._datasets:
            numbers = tuple(row.number for row in dataset.rows if row.is_from(trace_ids, span_ids))
            if numbers:
                adapters = self._trained_on(dataset.digest, frozenset(numbers))
                more = {"rows": len(numbers), "numbers": numbers, "adapters": adapters}
                found.append(Use(path=dataset.path, digest=dataset.digest, **more))
        return tuple(found)

    def _above(self, policy: str, above: Callable[[Adapter], str]) -> Iterator[str]:
        known = {one.policy: one for one in self._adapters}
        for _ in range(len(known) + 1):
            yield policy
            if policy not in known:
                break
            policy = above(known[policy])

    def _children(self, adapter: Adapter, above: frozenset[str]) -> tuple[Descendant, ...]:
        """What was trained from the adapter's weights, to replace it or on its replies, but for those `above`."""
        taught = {
            one.digest for one in self._datasets if any(side.policy == adapter.policy for side in _sides(one.rows))
        }
        children = []
        for one in self._adapters:
            links: dict[How, bool] = {
                "trained from its weights": one.start == adapter.policy,
                "trained to replace it": one.parent == adapter.policy,
                "trained on its replies": not taught.isdisjoint(_datasets(one)),
            }
            how = next((how for how, linked in links.items() if linked), None)
            if one.policy not in above and how is not None:
                children.append(self._descendant(one, how, above))
        return tuple(children)

    def _trained_on(self, digest: str, numbers: frozenset[int]) -> tuple[Descendant, ...]:
        """The adapters that learned from the dataset, or again from a row of it with one of those numbers."""
        trained = [one for one in self._adapters if one.dataset_digest == digest]
        again = [
            one
            for one in self._adapters
            if any(part.dataset_digest == digest and not numbers.isdisjoint(part.numbers) for part in one.replayed)
        ]
        return (
            *(self._descendant(one, "trained on it", frozenset()) for one in trained),
            *(self._descendant(one, "replayed rows of it", frozenset()) for one in again),
        )

    def _descendant(self, adapter: Adapter, how: How, above: frozenset[str]) -> Descendant:
        children = self._children(adapter, above | {adapter.policy})
        return Descendant(policy=adapter.policy, digest=adapter.digest, how=how, children=children)

    def _sources(self, rows: Sequence[Row]) -> Iterator[Source]:
        sides = list(_sides(rows))
        named = {side.span_ids[0]: side.trace_id for side in sides if side.span_ids}
        spans = list(dict.fromkeys(span_id for side in sides for span_id in side.span_ids))
        shown = {span_id for side in sides if side.demonstration for span_id in side.span_ids}
        recorded = self._ask("SELECT span_id, trace_id FROM spans WHERE list_contains(?::VARCHAR[], span_id)", spans)
        there = {row["span_id"]: row["trace_id"] for row in recorded}
        runs: dict[str | None, list[str]] = {}
        for span_id in spans:
            runs.setdefault(there.get(span_id, named.get(span_id)), []).append(span_id)
        labels: dict[str, list[Label]] = {}
        for label in newest(LabelLog(self._workspace.labels)):
            labels.setdefault(label.trace_id, []).append(label)
        traces = set(there.values())
        for trace_id, span_ids in runs.items():
            yield Source(
                trace_id=trace_id,
                state=self._state(trace_id, recorded=trace_id in traces),
                span_ids=tuple(span_ids),
                demonstrations=sum(span_id in shown for span_id in span_ids),
                labels=tuple(labels.get(trace_id or "", ())),
            )

    def _state(self, trace_id: str | None, *, recorded: bool) -> State:
        if recorded:
            return "recorded"
        return "deleted" if trace_id in self._tombstones.trace_ids() else "unknown"

    def _resolved(self, name: str) -> tuple[str | None, str | None]:
        """The trace, and the span if it is one, that an id or the start of one names."""
        if not re.fullmatch(r"[0-9a-f]{1,32}", name):
            raise StoreError(
                f"{name!r} names neither an adapter (as worker@8 does) nor a row (as DATASET:7 does), a trace "
                "or a span (hex digits)"
            )
        sides = [side for dataset in self._datasets for side in _sides(dataset.rows)]
        spans: dict[str, str | None] = {
            span_id: side.trace_id if position == 0 else None
            for side in sides
            for position, span_id in enumerate(side.span_ids)
            if span_id.startswith(name)
        }
        traces = {side.trace_id for side in sides} | self._tombstones.trace_ids()
        traces = {trace_id for trace_id in traces if trace_id.startswith(name)}
        query = "SELECT DISTINCT trace_id, span_id FROM spans WHERE starts_with(trace_id, ?) OR starts_with(span_id, ?)"
        for found in self._store.sql(query, [name, name]).to_pylist():
            if found["trace_id"].startswith(name):
                traces.add(found["trace_id"])
            else:
                spans[found["span_id"]] = found["trace_id"]
        if len(traces) + len(spans) > 1:
            some = ", ".join(sorted([*traces, *spans])[:4])
            raise StoreError(f"{len(traces) + len(spans)} traces and spans start with {name!r} ({some}, …): give more")
        if traces:
            return traces.pop(), None
        if spans:
            ((span_id, trace_id),) = spans.items()
            return trace_id, span_id
        raise StoreError(f"no trace or span {name!r} is recorded in {self._workspace.spans}, or in a dataset")

    def _calls(self, trace_id: str | None, span_id: str | None) -> frozenset[str]:
        if span_id is not None:
            return frozenset({span_id})
        query = f"SELECT span_id FROM spans WHERE trace_id = ? AND operation IN {a.INFERENCE}"
        return frozenset(self._store.sql(query, [trace_id])["span_id"].to_pylist())

    def _is_recorded(self, trace_id: str | None) -> bool:
        return bool(self._store.ids(ids=[] if trace_id is None else [trace_id]))

    def _ask(self, query: str, ids: Sequence[str | None]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._store.sql(query, [list(ids)]).to_pylist()
        return rows


def _sides(rows: Iterable[Row]) -> Iterator[Side]:
    return (side for row in rows for side in row.sides)


def _datasets(adapter: Adapter) -> list[str | None]:
    """Digests of what it learned from."""
    return [adapter.dataset_digest, *(one.dataset_digest for one in adapter.replayed)]


def _adapters(folder: Path) -> Iterator[Adapter]:
    for one in adapter_folders(folder):
        try:
            yield read_adapter(one)
        except AdapterError:
            continue  # `journeyman adapters` says what is wrong with it.
