"""The store: traces and their labels, found by what is in them, in segments and live files, while runs write more."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar, Unpack, cast

import pyarrow as pa

from journeyman.traces import attributes as a
from journeyman.traces.assemble import assemble
from journeyman.traces.capture.log import Damage, SpanRecord
from journeyman.traces.capture.wholes import Wholes, by_id, part_of
from journeyman.traces.errors import StoreError
from journeyman.traces.labels import Label, LabelLog
from journeyman.traces.storage.arrays import to_array, to_list
from journeyman.traces.storage.columns import SCHEMA, to_spans
from journeyman.traces.storage.conditions import Conditions, Query, asked_of, found
from journeyman.traces.storage.database import Database
from journeyman.traces.storage.pace import Pace
from journeyman.traces.storage.prompt_columns import GrownColumns
from journeyman.traces.storage.relations import WIDE
from journeyman.traces.trace import Trace

T = TypeVar("T")
R = TypeVar("R")

BATCH_SPANS = 4096
"""At most about as many spans are in memory while traces are iterated."""

SLICE_CALLS = 16_384
"""At most about as many model calls are in memory while turns are iterated."""


class TraceStore:
    """Traces of a span log and its segments. Every question sees what was written before it was asked."""

    def __init__(
        self, spans: Path, labels: Path, *, segments: str | None = None, memory_mb: float | None = None
    ) -> None:
        """`spans` is the log's folder, `labels` the file of labels, `segments` where segments lie if not in `spans`: a
        folder or an fsspec URL. None of them need exist yet. `memory_mb` is what DuckDB may take, a quarter of the
        machine's memory by default: beyond it, sorts and joins go to temporary files."""
        self._folder = spans
        self._label_log = LabelLog(labels)
        self._database = Database(spans, labels, segments, memory_mb)
        self._unusable = 0
        self._pace = Pace(BATCH_SPANS)

    @property
    def damage(self) -> Damage:
        """What the last question had to leave out."""
        return self._database.damage.model_copy(update={"traces": self._unusable})

    def traces(self, *, newest_first: bool = False, **conditions: Unpack[Conditions]) -> Iterator[Trace]:
        """Traces that meet every condition given, oldest first, a few in memory at a time.

        A trace that cannot be assembled is left out and counted in `damage`.
        """
        self._unusable = 0
        for extents in self._extents(conditions, newest_first):
            yield from self._assembled(extents)

    def spans(self, **conditions: Unpack[Conditions]) -> Iterator[SpanRecord]:
        """The spans of the traces that meet every condition given, a trace after the other, oldest first."""
        for extents in self._extents(conditions, newest_first=False):
            for spans in self._spans(extents).values():
                yield from _whole(spans)

    def ids(self, *, newest_first: bool = False, **conditions: Unpack[Conditions]) -> list[str]:
        """Ids of the traces that meet every condition given, oldest first."""
        query = found(conditions)
        order = f"ORDER BY started_ns {'DESC' if newest_first else ''}, trace_id"
        rows = self._database.ask(f"SELECT trace_id FROM ({query.sql}) {order}", query.parameters)
        return list(dict.fromkeys(rows["trace_id"].to_pylist()))

    def get(self, prefix: str) -> Trace:
        """The trace whose id starts with `prefix`; raises `StoreError` where there is none, or more than one."""
        self._unusable = 0
        extents = self._database.ask(
            """SELECT trace_id, min(start_ns) AS first_ns, max(start_ns) AS last_ns FROM spans
            WHERE starts_with(trace_id, ?) GROUP BY trace_id ORDER BY trace_id""",
            [prefix.lower()],
        )
        if not len(extents):
            raise StoreError(f"no trace {prefix!r} in {self._folder}: `journeyman traces list` shows those there are")
        if len(extents) > 1:
            some = ", ".join(trace_id[:12] for trace_id in extents["trace_id"].to_pylist()[:4])
            raise StoreError(f"{len(extents)} traces start with {prefix!r} ({some}, …): give more of the id")
        ((trace_id, spans),) = self._spans(extents).items()
        return assemble(spans, self._database.labels.get(trace_id, ()))

    def turns(self, columns: Sequence[str], **conditions: Unpack[Conditions]) -> Iterator[tuple[Any, ...]]:
        """Model calls in the order in which they began, of each the `columns` of the view `turns`.

        `agent` and `policy` are the call's own, the other conditions are its trace's. Lists of numbers are NumPy
        arrays. Large columns are read for a few thousand calls at a time, the next ones while the last ones are used.
        Nothing is assembled, so a call of a trace that makes no sense as a whole is here too.
        """
        calls = self._database.ask(*_calls([name for name in columns if name not in WIDE], conditions))
        grown = GrownColumns(columns, self._earlier)
        pace = Pace(SLICE_CALLS)
        seen = ("", "")
        for rows in _ahead(partial(self._widened, columns=grown.asked, pace=pace), _time_slices(calls, pace)):
            for row in zip(*map(to_list, rows.columns), strict=True):
                if row[:2] != seen:  # A span that was recorded twice is one call.
                    seen = row[:2]
                    yield grown.whole(row)

    def _earlier(self, trace_id: str) -> Mapping[str, SpanRecord]:
        """The model calls of a trace, by span id."""
        table = self._database.ask(f"SELECT * FROM spans WHERE trace_id = ? AND operation IN {a.INFERENCE}", [trace_id])
        return by_id(to_spans(table, self._database.texts))

    def _widened(self, calls: pa.Table, columns: Sequence[str], pace: Pace) -> pa.Table:
        """The keys of those calls and `columns`, the large ones too."""
        named = [WIDE.get(name, f'"{name}"') for name in columns]
        places = to_array(range(len(calls)), pa.int64())
        found = self._database.ask(
            f"""SELECT trace_id, span_id, {", ".join(named)} FROM asked
            JOIN (SELECT trace_id, span_id, {", ".join(_LARGE)} FROM spans
                WHERE operation IN {a.INFERENCE} AND start_ns BETWEEN ? AND ?) AS chats USING (trace_id, span_id)
            ORDER BY place""",
            [calls["started_ns"][0].as_py(), calls["started_ns"][-1].as_py()],
            asked=calls.append_column("place", places),
        )
        pace.took(len(calls), found.nbytes)
        return found

    @property
    def texts(self) -> Mapping[str, str]:
        """Large texts that many spans share, by the digest in `system_digest` and `tools_digest`."""
        return self._database.texts

    def label(self, *labels: Label) -> None:
        """Keeps the labels durably; raises `StoreError` if the disk refuses."""
        self._label_log.append(*labels)

    def statements(self, name: str) -> list[Label]:
        """All labels of that name as they were written, those too that a later one of their source replaced."""
        return [label for label in self._label_log if label.name == name]

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """The answer to one SELECT over the views of `relations`; `?` stands for a parameter.

        A span that was recorded twice, as when an exporter sends again what had arrived, is two rows of `spans` and of
        what counts them; `SELECT DISTINCT` tells them apart. Traces and mined turns have it once.

        Raises `ConfigError`, in DuckDB's words, for a query that it cannot answer.
        """
        self._database.check_is_question(query)
        return self._database.ask(query, parameters)

    def _extents(self, conditions: Conditions, newest_first: bool) -> Iterator[pa.Table]:
        """Where the traces that meet the conditions lie in time, a few in a table."""
        query = found(conditions)
        extents = self._database.ask(
            f"""SELECT trace_id, count(*) AS spans, min(start_ns) AS first_ns, max(start_ns) AS last_ns
            FROM spans JOIN ({query.sql}) AS found USING (trace_id)
            GROUP BY trace_id, started_ns ORDER BY started_ns {"DESC" if newest_first else ""}, trace_id""",
            query.parameters,
        )
        sizes = extents["spans"].to_pylist()
        start = 0
        while start < len(sizes):
            end, spans = start + 1, sizes[start]
            while end < len(sizes) and spans + sizes[end] <= self._pace.rows:
                spans += sizes[end]
                end += 1
            yield extents.slice(start, end - start)
            start = end

    def _assembled(self, extents: pa.Table) -> Iterator[Trace]:
        spans = self._spans(extents)
        for trace_id in extents["trace_id"].to_pylist():
            try:
                trace = assemble(spans[trace_id], self._database.labels.get(trace_id, ()))
            except StoreError:
                self._unusable += 1
            else:
                yield trace

    def _spans(self, extents: pa.Table) -> Mapping[str, Sequence[SpanRecord]]:
        """The spans of those traces. Their times keep DuckDB from reading more than a few row groups."""
        first = min(extents["first_ns"].to_pylist())
        last = max(extents["last_ns"].to_pylist())
        table = self._database.ask(
            "SELECT * FROM spans WHERE start_ns BETWEEN ? AND ? AND trace_id IN (SELECT trace_id FROM wanted)",
            [first, last],
            wanted=extents.select(["trace_id"]),
        )
        self._pace.took(len(table), table.nbytes)
        spans: dict[str, list[SpanRecord]] = defaultdict(list)
        for span in to_spans(table, self._database.texts):
            spans[span.trace_id].append(span)
        return spans


_LARGE = [*(name for name in WIDE if name in SCHEMA.names), "attributes"]
"""What the large columns of `turns` are computed of."""


def _whole(spans: Sequence[SpanRecord]) -> Iterator[SpanRecord]:
    """The spans of a trace by start, with the lists that grew whole."""
    known = by_id(spans)
    wholes = Wholes(lambda _, span_id, name: part_of(known.get(span_id), name))
    return map(wholes.span, sorted(spans, key=attrgetter("start_ns")))


def _ahead(work: Callable[[T], R], items: Iterator[T]) -> Iterator[R]:
    """`map`, in which a thread works on the next item while the caller uses what came of the last one."""
    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(work, item) for item in islice(items, 1)]
        while coming:
            done = coming.pop().result()
            coming += [pool.submit(work, item) for item in islice(items, 1)]
            yield done


def _calls(columns: Sequence[str], conditions: Conditions) -> Query:
    """Keys, starts and `columns` of the model calls that are asked for, in order."""
    agent, policy = conditions.get("agent"), conditions.get("policy")
    own = [] if agent is None else [Query("agent = ?", [agent])]
    own += [] if policy is None else [asked_of(policy)]
    tests, parameters = [test.sql for test in own], [value for test in own for value in test.parameters]
    of_trace = cast(Conditions, {name: value for name, value in conditions.items() if name not in ("agent", "policy")})
    if any(value is not None for value in of_trace.values()):
        query = found(of_trace)
        tests.append(f"trace_id IN (SELECT trace_id FROM ({query.sql}))")
        parameters += query.parameters
    names = dict.fromkeys(["trace_id", "span_id", "started_ns", *columns])
    return Query(
        f"""SELECT {", ".join(f'"{name}"' for name in names)} FROM turns WHERE {" AND ".join(tests) or "true"}
        ORDER BY started_ns, trace_id, span_id""",
        parameters,
    )


def _time_slices(calls: pa.Table, pace: Pace) -> Iterator[pa.Table]:
    """As many calls at a time as the pace says, never two slices with calls of the same moment."""
    starts = calls["started_ns"].to_pylist()
    start = 0
    while start < len(starts):
        end = len(starts)
        if start + pace.rows < end:
            end = bisect_right(starts, starts[start + pace.rows])
        yield calls.slice(start, end - start)
        start = end
