"""Runs to fork: which recorded runs may be, and how each came out. What may not is refused, counted and shown."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from journeyman.agents.agent import Crew
from journeyman.runtime.replay.fork import changed
from journeyman.traces import attributes as a
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.data.admission import Admission
from journeyman.training.data.source import Source
from journeyman.training.data.tasks.near import plain
from journeyman.training.forks.alternatives import Step
from journeyman.training.rewards import Scorer, score_of, solved

QUERY = f"""
SELECT trace_id, arg_max_null(crew, end_ns) AS crew, arg_max_null(status, end_ns) AS status,
    arg_max_null(answer, end_ns) AS answer, arg_max_null(task, end_ns) AS task, bool_or(replayed) AS replayed
FROM (
    SELECT run_parts.*, spans.attributes ->> '$."{a.TASK}"' AS task,
        spans.attributes ->> '$."{a.REPLAY_OF}"' IS NOT NULL AS replayed
    FROM run_parts JOIN spans USING (trace_id, span_id)
)
GROUP BY trace_id
"""

CUT_SHORT = ("unfinished", "cancelled", "needs_input", "paused")
"""How a run ends whose record isn't that of a whole run."""


class ScoredRun(NamedTuple):
    """A run that may be forked."""

    trace_id: str
    task: Task
    """With the reference that answers are compared with."""
    score: float

    @property
    def solved(self) -> bool:
        return solved(self.score)


class Forkable:
    """The runs of a crew with an agent at work that may be forked, the newest first."""

    def __init__(self, source: Source, crew: Crew, scorer: Scorer, *, tasks: Iterable[Task] = ()) -> None:
        """`source` says whose runs, as for mining; `tasks` have the references of runs that were made without one, by
        their prompts. Raises `ConfigError` where no run can be forked."""
        self._source = source
        self._crew = crew
        self._scorer = scorer
        self._known = {plain(task.prompt): task for task in tasks}
        self.refused: Counter[str] = Counter()
        """Runs that may not be forked, by reason."""
        self.runs = list(self._found())
        if not self.runs:
            raise ConfigError(self._none())

    def _found(self) -> Iterator[ScoredRun]:
        source = self._source
        held = source.held_out.runs(source.store)
        admission = Admission(source.store, source.config.purposes, source.evaluated)
        among = source.store.ids(**source.wanted(None))
        rows = {row["trace_id"]: row for row in source.store.sql(QUERY).to_pylist() if not row["replayed"]}
        for trace_id in reversed(among):
            if (row := rows.get(trace_id)) is None:
                continue
            one = held.get(trace_id) or admission.refusal(trace_id) or self._scored(row)
            if isinstance(one, str):
                self.refused[one] += 1
            elif admission.wants(trace_id):
                yield one

    def steps(self, run: ScoredRun) -> list[Step]:
        """The agent's model calls in the run, in their order; none where the crew has changed since."""
        trace = self._source.store.get(run.trace_id)
        if (reason := changed(trace, self._crew)) is not None:
            self.refused[reason] += 1
            return []
        own = [turn for turn in trace.turns if turn.agent == self._source.agent and not turn.cut_off]
        return [Step(trace, turn, run.task, run.score) for turn in sorted(own, key=lambda turn: turn.started_ns)]

    def check_some(self, steps: Collection[object]) -> None:
        """Raises `ConfigError` where there is no step to fork at."""
        if not steps:
            raise ConfigError(self._none())

    def _scored(self, row: Mapping[str, Any]) -> ScoredRun | str:
        """Or why it can't be forked, in words fit for counting."""
        if row["crew"] != self._crew.name:
            return "another crew's run"
        if row["status"] in CUT_SHORT:
            return f"run {row['status']}"
        try:
            own = Task.model_validate_json(row["task"] or "")
        except ValidationError:
            return "no task in the record"
        known = self._known.get(plain(own.prompt))
        task = own if known is None else own.model_copy(update={"reference": known.reference})
        try:
            # Where no answer came too: those of its forks must be comparable.
            score = score_of(self._scorer, task, row["answer"] or task.prompt)
        except ConfigError:
            return "no reference to score with"
        return ScoredRun(row["trace_id"], task, score if row["answer"] else 0.0)

    def _none(self) -> str:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in self.refused.most_common())
        why = reasons or "there are none; run tasks with the crew first"
        return f"no run of {self._source.agent} in crew {self._crew.name!r} can be forked: {why}"
