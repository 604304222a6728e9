"""Runs to fork: which recorded runs may be, and how each came out. What may not is refused, counted and shown."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from journeyman.agents.agent import Crew
from journeyman.runtime.replay.fork import changed
from journeyman.traces import attributes as a
from journeyman.traces.errors import ConfigError
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.trace import Task
from journeyman.training.data.admission import DEFAULT, Admission, Learnable
from journeyman.training.data.heldout import NOTHING, HeldOut
from journeyman.training.data.near import plain
from journeyman.training.forks.alternatives import Step
from journeyman.training.rewards import Scorer, solved

QUERY = f"""
SELECT trace_id, arg_max_null(crew, end_ns) AS crew, arg_max_null(status, end_ns) AS status,
    arg_max_null(answer, end_ns) AS answer, arg_max_null(task, end_ns) AS task, bool_or(replayed) AS replayed
FROM (
    SELECT run_parts.*, spans.attributes ->> '$."{a.TASK}"' AS task,
        spans.attributes ->> '$."{a.REPLAY_OF}"' IS NOT NULL AS replayed
    FROM run_parts JOIN spans USING (trace_id, span_id)
)
WHERE trace_id IN (SELECT trace_id FROM spans WHERE agent = ?)
GROUP BY trace_id ORDER BY min(start_ns) DESC, trace_id
"""

CUT_SHORT = ("unfinished", "cancelled", "needs_input", "paused")
"""How a run ends whose record isn't that of a whole run."""


class Scored(NamedTuple):
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

    def __init__(
        self,
        store: TraceStore,
        agent: str,
        crew: Crew,
        scorer: Scorer,
        *,
        ids: Collection[str] | None = None,
        tasks: Iterable[Task] = (),
        purposes: Collection[Learnable] = DEFAULT,
        held_out: HeldOut = NOTHING,
        evaluated: Collection[str] = (),
    ) -> None:
        """`tasks` have the references of runs that were made without one, by their prompts. The others are as in
        `Mining`. Raises `ConfigError` where no run can be forked."""
        self._store = store
        self._agent = agent
        self._crew = crew
        self._scorer = scorer
        self._known = {plain(task.prompt): task for task in tasks}
        self.refused: Counter[str] = Counter()
        """Runs that may not be forked, by reason."""
        held = held_out.runs(store)
        admission = Admission(store, purposes, evaluated)
        self.runs: list[Scored] = []
        for row in store.sql(QUERY, [agent]).to_pylist():
            trace_id = row["trace_id"]
            if row["replayed"] or (ids is not None and trace_id not in ids):
                continue
            one = held.get(trace_id) or admission.refusal(trace_id) or self._scored(row)
            if isinstance(one, str):
                self.refused[one] += 1
            elif admission.wants(trace_id):
                self.runs.append(one)
        if not self.runs:
            raise ConfigError(self._none())

    def steps(self, run: Scored) -> list[Step]:
        """The agent's model calls in the run, in their order; none where the crew has changed since."""
        trace = self._store.get(run.trace_id)
        if (reason := changed(trace, self._crew)) is not None:
            self.refused[reason] += 1
            return []
        turns = sorted((turn for turn in trace.turns if turn.agent == self._agent), key=lambda turn: turn.started_ns)
        return [Step(trace, turn, run.task, run.score) for turn in turns]

    def check_some(self, steps: Collection[object]) -> None:
        """Raises `ConfigError` where there is no step to fork at."""
        if not steps:
            raise ConfigError(self._none())

    def _scored(self, row: Mapping[str, Any]) -> Scored | str:
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
            score = float(self._scorer(task, row["answer"])) if row["answer"] else 0.0
        except ConfigError:
            return "no reference to score with"
        return Scored(row["trace_id"], task, score)

    def _none(self) -> str:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in self.refused.most_common())
        why = reasons or "there are none; run tasks with the crew first"
        return f"no run of {self._agent} in crew {self._crew.name!r} can be forked: {why}"
