"""Entries: what is remembered of each row while steps choose among all of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from journeyman.traces.reports.scope import OVER
from journeyman.training.data.choosing.row import Row
from journeyman.training.data.source import Source

if TYPE_CHECKING:
    from rensa import RMinHash

RUNS = f"""
SELECT trace_id, family, session, "user", coalesce(md5(prompt), task_id) AS task, purpose = 'teach' AS taught,
    {OVER} AS over, status = 'ok' AS ok
FROM (SELECT trace_id, min(family) AS family, min(session) AS session, min("user") AS "user",
        min(task_id) AS task_id FROM spans GROUP BY trace_id)
LEFT JOIN (SELECT trace_id, prompt, status, purpose FROM workflows) USING (trace_id)
"""
"""A task that comes again has the same prompt, but not always the same id."""


class RunOf(NamedTuple):
    """What the record says of a run."""

    family: str | None = None
    session: str | None = None
    user: str | None = None
    task: str | None = None
    """Tells the task from others."""
    taught: bool | None = None
    """Whether a teacher was at work; this and what follows is None where the run died before its end."""
    over: bool | None = None
    ok: bool | None = None


NO_RUN = RunOf()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A row that is still in."""

    number: int
    """Of its line."""
    order: bytes
    """What chance says of it: by its contents and the seed alone, so the same wherever its line stands."""
    origin: str | None
    policy: str | None
    sampled: bool
    """Whether a server of ours sampled what is learned."""
    trace_id: str | None
    run: RunOf
    score: float | None
    """How much better a pair's better side is, else what the run was worth."""
    sketch: "RMinHash | None" = None
    """Of its texts, where rows are compared."""


class Factor(NamedTuple):
    """On a row's weight."""

    group: str
    """What the row has in common with others of that factor."""
    value: float


class Decision(NamedTuple):
    """Of a step, by the number of the row; what isn't named stays as it is."""

    left_out: Mapping[int, str] = {}
    """Why."""
    factors: Mapping[int, Factor] = {}


Step = Callable[[Sequence[Entry]], Decision]
"""Looks at all rows that are still in. Their order says nothing."""


class Entries:
    """Makes an entry of each row."""

    def __init__(self, source: Source, seed: int, *, sketched: bool) -> None:
        """`sketched` where near rows are to be found."""
        self.runs = runs_of_record(source)
        self._scores = source.scores()
        self._seed = b"%d:" % seed
        self._sketch: Callable[[Row], RMinHash] | None = None
        if sketched:
            from journeyman.training.data.choosing.sketch import sketch

            self._sketch = sketch

    def of(self, number: int, row: Row) -> Entry:
        trace_id = row.trace_id
        margin = row.values.get("margin")
        return Entry(
            number=number,
            order=sha256(self._seed + row.digest).digest()[:8],
            origin=row.origin,
            policy=row.policy,
            sampled=row.sampled,
            trace_id=trace_id,
            run=self.runs.get(trace_id or "", NO_RUN),
            score=self._scores.get(trace_id or "") if margin is None else margin,
            sketch=None if self._sketch is None else self._sketch(row),
        )


def runs_of_record(source: Source) -> dict[str, RunOf]:
    """Every run, by trace id."""
    rows = source.store.sql(RUNS)
    trace_ids, *columns = (column.to_pylist() for column in rows.columns)
    return dict(zip(trace_ids, map(RunOf._make, zip(*columns, strict=True)), strict=True))
