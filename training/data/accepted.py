"""Accepted: which runs under a teacher may be learned from, as a label on each says."""

from collections.abc import Mapping

from journeyman.traces import attributes as a
from journeyman.traces.labels import Label
from journeyman.traces.storage.store import TraceStore

ACCEPTED = "accepted"
SOURCE = "teach"
"""Of the label: the same word of somebody else's is another statement."""

SAID = f"""
SELECT trace_id, number, comment, version FROM labels
WHERE name = '{ACCEPTED}' AND source = '{SOURCE}' AND span_id IS NULL
"""
UNACCEPTED = f"""
SELECT DISTINCT trace_id, coalesce(comment, 'not judged yet') AS reason
FROM spans LEFT JOIN ({SAID}) AS said USING (trace_id)
WHERE operation = 'invoke_workflow' AND attributes ->> '$."{a.JUDGED}"' = 'true' AND number IS DISTINCT FROM 1
"""


class Accepting:
    """What is said of runs under a teacher: the last word counts."""

    def __init__(self, store: TraceStore) -> None:
        self._store = store
        self._said: dict[str, tuple[str | None, int]] = {
            row["trace_id"]: (None if row["number"] else row["comment"], row["version"])
            for row in store.sql(SAID).to_pylist()
        }
        """By trace id: why not, and the version of that statement."""

    def put(self, reasons: Mapping[str, str | None]) -> None:
        """Says of each run why it isn't accepted, or with None that it is; raises `StoreError` if the disk refuses."""
        labels = [
            self._label(trace_id, reason)
            for trace_id, reason in reasons.items()
            if trace_id not in self._said or self._said[trace_id][0] != reason
        ]
        if labels:
            self._store.label(*labels)
        self._said |= {label.trace_id: (label.comment, label.version) for label in labels}

    def _label(self, trace_id: str, reason: str | None) -> Label:
        _, version = self._said.get(trace_id, (None, 0))
        return Label(
            trace_id=trace_id, name=ACCEPTED, source=SOURCE, value=reason is None, comment=reason, version=version + 1
        )


def not_accepted(store: TraceStore) -> dict[str, str]:
    """Why runs that are judged may not be learned from, by trace id; the others are left out."""
    rows = store.sql(UNACCEPTED).to_pylist()
    return {row["trace_id"]: f"not accepted by teach: {row['reason']}" for row in rows}
