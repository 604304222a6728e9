"""The scope: which runs a report is about, and what solved means in it."""

from typing import Any, cast

from journeyman.traces.base import Config
from journeyman.traces.storage.conditions import Conditions, found
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.trace import Ending, Purpose

OVER = "status NOT IN ('unfinished', 'needs_input', 'paused')"
"""Test for runs that are over: the others still run, died, or can be taken up again."""

SOLVED = "CASE WHEN score IS NULL THEN status = 'ok' ELSE score >= 1 END"
"""A scored run is solved where nothing is missing, one that nobody scored where the runtime says that it ended well."""


class Scope(Config):
    """Runs that meet every condition given; what each means is told in `Conditions`."""

    family: str | None = None
    agent: str | None = None
    policy: tuple[str, ...] | None = None
    session: str | None = None
    user: str | None = None
    crew: str | None = None
    task_set: str | None = None
    purpose: Purpose | None = None
    status: Ending | None = None
    label: str | None = None
    value: bool | float | str | None = None
    min_value: float | None = None
    text: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None

    def ask(self, store: TraceStore, query: str) -> list[dict[str, Any]]:
        """The rows of `query`, in which the view `chosen` holds these runs: the columns of `traces`, and `solved`."""
        conditions = self.model_dump(exclude_none=True)
        only, parameters = "", []
        if conditions:
            wanted = found(cast(Conditions, conditions))
            only, parameters = f"SEMI JOIN ({wanted.sql}) USING (trace_id)", wanted.parameters
        rows = store.sql(f"WITH chosen AS (SELECT *, {SOLVED} AS solved FROM traces {only}) {query}", parameters)
        return cast(list[dict[str, Any]], rows.to_pylist())


EVERYTHING = Scope()
