"""Deletion: which runs go, and how all of them leaves the disk, also when that is cut short on its way.

The tombstone comes first: from then on no reader shows the runs. What follows only takes away what nobody sees any
more, so the next deletion finishes what a crash left.
"""

import re
from collections.abc import Collection
from pathlib import Path
from time import monotonic, sleep, time, time_ns
from typing import TYPE_CHECKING, Any

from journeyman.traces import attributes as a
from journeyman.traces.base import Record
from journeyman.traces.capture.texts import Texts
from journeyman.traces.errors import StoreError
from journeyman.traces.files import RowFile
from journeyman.traces.labels import LabelLog
from journeyman.traces.storage.columns import REPEATED
from journeyman.traces.storage.compact import Compaction, compact, sole_compactor
from journeyman.traces.storage.layout import Progress
from journeyman.traces.storage.segments import Segments
from journeyman.traces.tombstones import Tombstones

if TYPE_CHECKING:
    from journeyman.traces.storage.store import TraceStore

PATIENCE_S = 60.0
"""How long a deletion waits for a compaction that is at work."""

GB = 10**9
_DAY_NS = 86_400 * 10**9
_TRACE_ID = re.compile(rb"[0-9a-f]{32}")


class Doomed(Record):
    """Runs that are to be deleted."""

    trace_ids: tuple[str, ...]
    """Oldest first."""
    span_ids: frozenset[str]
    """Of their model calls, which the rows of datasets name."""
    spans: int


class Deletion(Record):
    """What a deletion did."""

    traces: int = 0
    spans: int = 0
    """That those traces had."""
    labels: int = 0
    texts: int = 0
    """Large texts that no other run had used."""
    live: int = 0
    """Log files that a process is writing; what they hold of the runs goes when they are compacted."""
    aside: int = 0
    """Damaged segments, set aside, that cannot be searched."""
    finished: bool = True
    """False where another compaction was at work all the time; the next one goes on."""

    def __add__(self, other: "Deletion") -> "Deletion":
        counts = {name: getattr(self, name) + getattr(other, name) for name in ("traces", "spans", "labels", "texts")}
        return other.model_copy(update=counts)


def find_doomed(
    store: "TraceStore",
    *,
    ids: Collection[str] | None = None,
    sessions: Collection[str] | None = None,
    users: Collection[str] | None = None,
    ended_before_ns: int | None = None,
    keep_share: float | None = None,
) -> Doomed:
    """The runs that meet every condition given; None is none.

    A run is of each session and user that one of its spans names, so that one which crashed is found too. `keep_share`
    (0..1): the newest runs with so much of all spans do not meet it.
    """
    tests: list[tuple[str, Any]] = [
        ("list_contains(?::VARCHAR[], trace_id)", _list(ids)),
        ("sessions && ?::VARCHAR[]", _list(sessions)),
        ("users && ?::VARCHAR[]", _list(users)),
        ("ended_ns < ?", ended_before_ns),
        ("newer > ? * total", keep_share),
    ]
    given = [(test, value) for test, value in tests if value is not None]
    runs = store.sql(
        f"""WITH runs AS (
            SELECT trace_id, count(*) AS spans, max(end_ns) AS ended_ns,
                list(DISTINCT session) AS sessions, list(DISTINCT "user") AS users
            FROM spans GROUP BY trace_id
        ), aged AS (
            SELECT *, sum(spans) OVER (ORDER BY ended_ns DESC, trace_id) AS newer, sum(spans) OVER () AS total FROM runs
        )
        SELECT trace_id, spans FROM aged WHERE {" AND ".join(test for test, _ in given) or "true"}
        ORDER BY ended_ns, trace_id""",
        [value for _, value in given],
    )
    trace_ids = runs["trace_id"].to_pylist()
    calls = store.sql(
        f"""SELECT span_id FROM spans
        WHERE operation IN {a.INFERENCE} AND trace_id IN (SELECT unnest(?::VARCHAR[]))""",
        [trace_ids],
    )
    return Doomed(
        trace_ids=tuple(trace_ids),
        span_ids=frozenset(calls["span_id"].to_pylist()),
        spans=sum(runs["spans"].to_pylist()),
    )


def delete(
    spans: Path, labels: Path, segments: Segments, doomed: Doomed, *, reason: str, progress: Progress | None = None
) -> Deletion:
    """Deletes the runs, and finishes earlier deletions; raises `StoreError` if the disk refuses: then do it again.

    `reason` is kept, the runs' content is not.
    """
    tombstones, log = Tombstones(spans), LabelLog(labels)
    if doomed.trace_ids:
        ids = frozenset(doomed.trace_ids)
        said = sum(label.trace_id in ids for label in log)
        tombstones.add(doomed.trace_ids, reason=reason, spans=doomed.spans, labels=said)
    deleted = tombstones.trace_ids()
    removed = log.remove(deleted)
    done = _compacted(spans, segments, progress)
    _clean_copies(spans, deleted)
    return Deletion(
        traces=len(doomed.trace_ids),
        spans=doomed.spans,
        labels=removed,
        texts=0 if done.busy else _remove_texts(spans, segments),
        live=done.live,
        aside=len([path for path in segments.aside() if not str(path).endswith(".jsonl")]),
        finished=not done.busy,
    )


def retain(
    store: "TraceStore",
    spans: Path,
    labels: Path,
    segments: Segments,
    *,
    keep_days: float | None,
    keep_gb: float | None,
    now_ns: int | None = None,
) -> Deletion:
    """Deletes the runs that ended more than `keep_days` ago, then the oldest of those beyond `keep_gb`."""
    done = Deletion()
    if keep_days is not None:
        old = find_doomed(store, ended_before_ns=(now_ns or time_ns()) - int(keep_days * _DAY_NS))
        if old.trace_ids:
            done += delete(spans, labels, segments, old, reason=f"older than {keep_days:g} days")
    if keep_gb is not None:
        beyond = find_doomed(store, keep_share=keep_gb * GB / max(1, size(spans, segments)))
        if beyond.trace_ids:
            done += delete(spans, labels, segments, beyond, reason=f"beyond {keep_gb:g} GB")
    return done


def size(spans: Path, segments: Segments) -> int:
    """Bytes of the log files and segments that there are. A run's share of them is taken to be that of its spans."""
    snapshot = segments.snapshot(spans)
    files = sum(path.stat().st_size for path in snapshot.files if path.exists())
    return files + sum(segment.size for segment in snapshot.segments)


def _list(values: Collection[str] | None) -> list[str] | None:
    return None if values is None else list(values)


def _compacted(spans: Path, segments: Segments, progress: Progress | None) -> Compaction:
    """A compaction, which leaves out what was deleted; it waits a while for another one that is at work."""
    deadline = monotonic() + PATIENCE_S
    while (done := compact(spans, segments, progress=progress)).busy and monotonic() < deadline:
        sleep(0.5)
    return done


def _clean_copies(spans: Path, deleted: Collection[str]) -> None:
    """Takes the runs out of the log files that were set aside because a record of theirs is damaged."""
    for path in (spans / "damaged").glob("*.jsonl"):
        try:
            RowFile(path).rewrite(lambda line: not any(found.decode() in deleted for found in _TRACE_ID.findall(line)))
        except OSError as error:
            raise StoreError(f"{path} was not rewritten: {error.strerror}") from error


def _remove_texts(spans: Path, segments: Segments) -> int:
    """Removes the texts that no span refers to, if nobody is writing spans that may, and none is unreadable."""
    if not spans.exists():
        return 0
    began = time()
    with sole_compactor(spans) as origin:
        snapshot = segments.snapshot(spans)
        if origin is None or snapshot.files or snapshot.damaged:
            return 0
        columns = list(REPEATED)
        groups = (group for segment in snapshot.segments for group in segments.groups(segment.path, columns))
        used = {digest for group in groups for name in columns for digest in group[name].unique().to_pylist()}
        # Object storage may be shared with another workspace, which uses them.
        stores = [Texts(spans), segments.texts] if segments.local else [Texts(spans)]
        unused = [(texts, digest) for texts in stores for digest in texts if digest not in used]
        return len({digest for texts, digest in unused if texts.remove(digest, unused_since=began)})
