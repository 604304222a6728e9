"""Admission: which runs may be learned from, by why they were made."""

from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple, get_args

from journeyman.traces import attributes as a
from journeyman.traces.exchange.conversation import IMPORTED
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.trace import HELD_OUT, LEARNED_FROM

Learnable = Literal["service", "teach", "rollout", "unknown"]
"""`unknown` is a run of which nothing says why it was made, as of one from before there were purposes."""

DEFAULT: tuple[Learnable, ...] = ("service", "teach", "rollout")
LEARNED: tuple[Learnable, ...] = get_args(Learnable)
assert (*LEARNED_FROM, "unknown") == LEARNED

QUERY = f"""
SELECT trace_id, list(DISTINCT coalesce(purpose, CASE
        WHEN workflow = '{IMPORTED}' OR attributes ->> '$."{a.RESOURCE}"' IS NOT NULL THEN 'service' END)) AS purposes,
    bool_or(attributes ->> '$."{a.REPLAY_OF}"' IS NOT NULL) AS replays,
    bool_or(operation = 'invoke_workflow') AS ended
FROM spans WHERE operation IN ('invoke_workflow', 'invoke_agent') GROUP BY trace_id
"""
"""A run's own span says why it was made. What another program recorded is somebody's service, and has no such span.
Every span of a run that repeats another one says so; it is a replay unless it says why else it was made."""


UNKNOWN = "nothing says why it was made"


class Admission:
    """Says of each run why it may not be learned from."""

    def __init__(
        self, store: TraceStore, purposes: Collection[Learnable] = DEFAULT, evaluated: Collection[str] = ()
    ) -> None:
        """`evaluated` are runs that were measured; of one that says itself why it was made, that counts."""
        self._wanted = frozenset(purposes)
        self._evaluated = evaluated
        rows = store.sql(QUERY).to_pylist()
        self._told = {row["trace_id"]: _told(row) for row in rows}

    def refusal(self, trace_id: str) -> str | None:
        """In words fit for counting; None where it may be learned from."""
        purposes, ended = self._told.get(trace_id, _NOTHING_TOLD)
        if not purposes and trace_id in self._evaluated:
            return "made for evaluation"
        # The worst that any part of a run says of it counts.
        if measures := next((purpose for purpose in HELD_OUT if purpose in purposes), None):
            return f"made for {measures}"
        if not purposes and not ended:
            return "run unfinished"
        return None if purposes or "unknown" in self._wanted else UNKNOWN

    def wants(self, trace_id: str) -> bool:
        """Whether a run that may be learned from was made for one of the purposes that are asked for."""
        purposes, _ = self._told.get(trace_id, _NOTHING_TOLD)
        return (purposes or {"unknown"}) <= self._wanted

    def origin(self, trace_id: str) -> Learnable:
        """Why a run that may be learned from was made."""
        purposes, _ = self._told.get(trace_id, _NOTHING_TOLD)
        return next((purpose for purpose in LEARNED if purpose in purposes), "unknown")


class _Told(NamedTuple):
    purposes: frozenset[str]
    ended: bool
    """Whether the run's own span is there, which is written at its end."""


_NOTHING_TOLD = _Told(frozenset(), ended=False)


def _told(row: Mapping[str, Any]) -> _Told:
    purposes = frozenset(purpose for purpose in row["purposes"] if purpose is not None)
    return _Told(purposes or frozenset({"replay"} if row["replays"] else ()), row["ended"])
