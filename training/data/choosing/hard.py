"""Hard tasks: rows of what rarely succeeds count for more, for an agent's own successes are mostly the easy ones."""

from collections import Counter
from collections.abc import Mapping, Sequence

from journeyman.training.data.choosing.entries import Decision, Entry, Factor, RunOf
from journeyman.training.data.source import Source


class Hard:
    """Weighs a row by (runs + 1) / (successes + 1) of its task, at most by `most`.

    A task gives rows in proportion to how often it succeeds, which this undoes; the ones are what is known before a
    task has run. A row whose run says of no task keeps its weight.
    """

    def __init__(self, most: float, source: Source, runs: Mapping[str, RunOf]) -> None:
        self._most = most
        self._runs, self._successes = tried(source, runs)

    def __call__(self, entries: Sequence[Entry]) -> Decision:
        tasks = {entry.number: entry.run.task for entry in entries}
        return Decision(factors={number: self._factor(task) for number, task in tasks.items() if task in self._runs})

    def _factor(self, task: str | None) -> Factor:
        runs, successes = self._runs[task], self._successes[task]
        return Factor(_share(successes / runs), min(self._most, (runs + 1) / (successes + 1)))


def tried(source: Source, runs: Mapping[str, RunOf]) -> tuple[Counter[str | None], Counter[str | None]]:
    """Runs that are over and successes so far, by task; a teacher's runs say nothing of how hard a task is.

    A run succeeded where its label is at least `min_score`, by default 1; one without that label where it ended `ok`.
    """
    scores, least = source.scores(), source.threshold
    counted, succeeded = Counter[str | None](), Counter[str | None]()
    for trace_id, run in runs.items():
        if run.task is None or run.taught or not run.over:
            continue
        score = scores.get(trace_id)
        counted[run.task] += 1
        succeeded[run.task] += bool(run.ok) if score is None else score >= least
    return counted, succeeded


def _share(rate: float) -> str:
    """A quarter of the success rates."""
    quarter = min(3, int(rate * 4))
    return f"succeeds in {25 * quarter}-{25 * quarter + 25}%"
