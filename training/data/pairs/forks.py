"""Forks: replays that left the run that they repeat, each beside its original."""

from collections.abc import Collection

from journeyman.traces import attributes as a
from journeyman.traces.storage.store import TraceStore
from journeyman.training.data.replies import Replies

QUERY = f"""
SELECT trace_id, min(attributes ->> '$."{a.REPLAY_OF}"') AS original FROM spans
WHERE operation IN ('invoke_workflow', 'invoke_agent') AND attributes ->> '$."{a.REPLAY_OF}"' IS NOT NULL
GROUP BY trace_id
"""

REPLAY = "made for replay"


class Forks:
    """A replay is made to measure, so nothing is learned from it alone. Beside its original it is the other side of a
    pair, where the original may be learned from and the task isn't held out."""

    def __init__(self, store: TraceStore, ids: Collection[str] | None) -> None:
        """`ids` are the runs that are looked at, None for all."""
        rows = store.sql(QUERY).to_pylist()
        self._originals = {row["trace_id"]: row["original"] for row in rows if ids is None or row["trace_id"] in ids}
        self._forked = frozenset(self._originals.values())

    def __contains__(self, trace_id: str) -> bool:
        return trace_id in self._originals

    def family(self, trace_id: str) -> str | None:
        """The run that a fork, or the original itself, is a version of; None for a run that was never forked."""
        return self._originals.get(trace_id, trace_id if trace_id in self._forked else None)

    def refusal(self, trace_id: str, replies: Replies) -> str | None:
        """Why a run may be no side of a pair, in words fit for counting."""
        own = replies.run_refusal(trace_id)
        if trace_id not in self._originals or own not in (None, REPLAY):
            return own
        return replies.run_refusal(self._originals[trace_id])

    def wants(self, trace_id: str, replies: Replies) -> bool:
        """Whether the run, or a fork's original, was made for a purpose that is asked for."""
        return replies.wants(self._originals.get(trace_id, trace_id))
