"""Teaching: a crew works under teachers, and the runs that are good enough become what its agents learn from."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import Field, JsonValue

from journeyman.agents.crew_file import load_crew
from journeyman.agents.verify import Verifiers, verifier_name
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import Config, Record
from journeyman.traces.errors import ConfigError
from journeyman.traces.prices import Price
from journeyman.traces.trace import Task
from journeyman.training.data.accepted import Accepting
from journeyman.training.data.tasks.heldout import less_held_out
from journeyman.training.evaluation.bench import Bench
from journeyman.training.evaluation.evaluate import Episode
from journeyman.training.improve.spending import Estimate, Limit, Purse, estimate
from journeyman.training.improve.teachers import DEMONSTRATIONS, EVERYBODY, Teachers, find_teachers
from journeyman.training.rewards import answer_in_text, compared

SCORER = f"{answer_in_text.__module__}:{answer_in_text.__name__}"
NO_DEMONSTRATION = "no demonstration"
BETTER = "another run of the task was better"
MADE_AGAIN = "it was made again"


class TeachConfig(Config):
    scorer: str = SCORER
    """What says how good an answer is, as `module:function`."""
    verify: Verifiers = ()
    """What an answer must pass besides, such as `number`; like those that the crew itself names."""
    min_score: float = Field(default=1.0, allow_inf_nan=False)
    """Smallest score of a run that is accepted."""
    best_of: int = Field(default=1, ge=1)
    """Runs of each task, of which the best is accepted; with other seeds each."""
    temperature: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Of sampling; None for 0, or for 1 where the best of several is wanted."""
    seed: int = 0
    concurrency: int = Field(default=8, ge=1)
    """Runs at once."""
    again: bool = False
    """Makes the runs again that were made before."""
    limit: Limit = Limit()
    """What the runs that are made now may spend together."""

    @property
    def heat(self) -> float:
        if self.temperature is None:
            return 1.0 if self.best_of > 1 else 0.0
        return self.temperature


class Taught(Record):
    """What came of teaching."""

    tasks: int
    """Tasks that were taught."""
    accepted: dict[str, str]
    """By task, the trace of the run that agents may learn from."""
    refused: dict[str, int]
    """Runs that they may not learn from, counted by reason."""
    passed_over: dict[str, int]
    """Tasks that were not taught, counted by reason."""
    made: int
    """Runs that were made now; the others were made before."""
    runs: int
    cost: float
    """Money for the runs that were made now."""
    tokens: int
    """Of the same."""
    used_up: str | None
    """Which limit ended it, in words; None where all runs were made."""
    first_problem: str | None
    """Of the first run that did not end well."""


class Teaching:
    """A crew with teachers and tasks, ready to begin: what can be checked before is checked when it is made."""

    def __init__(
        self,
        workspace: Workspace,
        teachers: Teachers,
        config: TeachConfig,
        *,
        source: str,
        conditions: Sequence[JsonValue],
        passed_over: Mapping[str, int] | None = None,
    ) -> None:
        """`source` says where the tasks are from, `conditions` what makes a run another one besides teachers, tasks and
        `config`, and `passed_over` how many tasks are left out, by reason. Raises `ConfigError`."""
        self._workspace = workspace
        self._config = config
        self._source = source
        self._conditions = conditions
        self._passed_over = passed_over or {}
        self.teachers = teachers
        self._check(teachers.tasks)
        self._purse = Purse(config.limit, self.estimate)

    @classmethod
    def open(
        cls,
        workspace: Workspace,
        crew: Path,
        tasks: Sequence[Task],
        named: Mapping[str, str],
        config: TeachConfig,
        *,
        source: str,
    ) -> Self:
        """A crew's file; `named` is agent to teacher as in `find_teachers`. Raises `ConfigError` or `AdapterError`.

        Tasks that nobody may learn from are left out.
        """
        loaded = load_crew(crew)
        checked = loaded.model_copy(update={"verify": (*loaded.verify, *config.verify)})
        teachable, passed_over = less_held_out(workspace, tasks, source)
        teachers = find_teachers(workspace, checked, teachable, named or {EVERYBODY: DEMONSTRATIONS})
        if teachers.without:
            passed_over[NO_DEMONSTRATION] = teachers.without
        conditions = [crew.read_text(encoding="utf-8"), *map(verifier_name, config.verify)]
        return cls(workspace, teachers, config, source=source, conditions=conditions, passed_over=passed_over)

    @cached_property
    def estimate(self) -> Estimate:
        """What the runs that are not made yet will cost."""
        known = 0 if self._config.again else sum(len(bench.known(self._policies)) for bench in self._benches)
        return estimate(
            self._workspace.store,
            self.teachers.crew,
            self.teachers.tasks,
            self._policies,
            self._prices,
            runs=self._config.best_of * len(self.teachers.tasks) - known,
        )

    def teach(self, *, on_run: Callable[[Episode], None] = lambda episode: None) -> Taught:
        """Makes the runs that were not made before, and marks the best of each task as accepted.

        Runs that were made before are not made again, unless `config` wants that. Raises `ServerError` where a teacher
        can't be reached; what was made is kept and judged, and the same call goes on. What a kill leaves is judged by
        the next call, and until then nobody learns from it.
        """
        accepting, runs = Accepting(self._workspace.store), list[Episode]()
        before = [run for bench in self._benches for run in bench.known(self._policies)] if self._config.again else []

        def ended(episode: Episode) -> None:
            self._purse.ended(episode)
            runs.append(episode)
            on_run(episode)

        try:
            for bench in self._benches:
                bench.episodes(
                    self._policies, may_begin=self._purse.may_begin, on_episode=ended, again=self._config.again
                )
        finally:
            position = {task.id: number for number, task in enumerate(self.teachers.tasks)}
            runs.sort(key=lambda run: position[run.task_id])  # They come as they end.
            chosen = self._chosen(runs)
            reasons = {run.trace_id: self._reason(run, chosen.get(run.task_id)) for run in runs}
            made = {run.task_id for run in runs}
            accepting.put({run.trace_id: MADE_AGAIN for run in before if run.task_id in made} | reasons)
        return self._taught(runs, chosen, reasons)

    def _chosen(self, runs: Sequence[Episode]) -> dict[str, Episode]:
        """Of each task the good run with the highest score; of equal ones the shortest, by model calls, then tokens."""
        best: dict[str, Episode] = {}
        for run in filter(self._good, runs):
            best[run.task_id] = min(best.get(run.task_id, run), run, key=_rank)
        return best

    def _taught(
        self, runs: Sequence[Episode], chosen: Mapping[str, Episode], reasons: Mapping[str, str | None]
    ) -> Taught:
        refused = Counter(reason for reason in reasons.values() if reason is not None)
        problems = (f"{one.task_id} {one.status}: {one.error}" for one in runs if one.status != "ok")
        return Taught(
            tasks=len(self.teachers.tasks),
            accepted={task_id: episode.trace_id for task_id, episode in chosen.items()},
            refused=dict(refused.most_common()),
            passed_over=dict(self._passed_over),
            made=self._purse.made,
            runs=len(runs),
            cost=self._purse.spent["cost"],
            tokens=round(self._purse.spent["tokens"]),
            used_up=self._purse.used_up,
            first_problem=next(problems, None),
        )

    def _good(self, run: Episode) -> bool:
        return run.status == "ok" and run.score >= self._config.min_score

    def _reason(self, run: Episode, best: Episode | None) -> str | None:
        if run.status != "ok":
            return f"run {run.status}"
        if not self._good(run):
            return f"score below {self._config.min_score:g}"
        return None if run is best else BETTER

    @cached_property
    def _prices(self) -> Mapping[str, Price]:
        """What is no server costs nothing, unless it has a price of its own."""
        return dict.fromkeys(self.teachers.models, Price()) | self._workspace.config.traces.prices

    @property
    def _policies(self) -> PolicyTable:
        return self.teachers.policies

    @cached_property
    def _benches(self) -> list[Bench]:
        """One for each run of a task."""
        return [
            Bench(
                self._workspace,
                self.teachers.crew,
                self.teachers.tasks,
                self._config.scorer,
                backend=lambda: self.teachers.backend(self._workspace),
                conditions=[*self._conditions, *self._answered_by()],
                source=self._source,
                purpose="teach",
                concurrency=self._config.concurrency,
                seed=self._config.seed + number,
                temperature=self._config.heat,
                prices=self._prices,
            )
            for number in range(self._config.best_of)
        ]

    def _answered_by(self) -> list[JsonValue]:
        """Which model on which server each endpoint is: what it costs and how often it is asked again don't matter."""
        models = self._workspace.config.models
        return [[name, models[name].url, models[name].model] for name in sorted(self.teachers.asked & {*models})]

    def _check(self, tasks: Sequence[Task]) -> None:
        config = self._config
        content = self._workspace.config.traces.content
        if content != "full":
            raise ConfigError(
                f'nothing can be learned from what `content = "{content}"` leaves of a run: set `content = "full"` '
                f"under [traces] in {self._workspace.config_file}"
            )
        if not tasks:
            raise ConfigError(
                f"{self._source}: no task of it has a `demonstration` to teach with: add one to its line, or name a "
                "--teacher that does the work"
            )
        if config.best_of > 1 and (not self.teachers.samples or config.heat == 0):
            why, remedy = "at temperature 0", "raise --temperature"
            if not self.teachers.samples:
                why, remedy = "of a teacher that always says the same", "name one that samples"
            raise ConfigError(
                f"best of {config.best_of} {why}: each run would be the same; leave --best-of out, or {remedy}"
            )
        check_references(tasks, config.scorer, self._source)


def check_references(tasks: Sequence[Task], scorer: str, source: str) -> None:
    """Raises `ConfigError` where a task of `source` has nothing that the scorer could compare an answer with."""
    if scorer == SCORER and (without := [task.id for task in tasks if not compared(task.reference)]):
        raise ConfigError(
            f"{source}: {len(without)} tasks have no `reference` to score by, the first is {without[0]!r}: "
            "add it, or name another --scorer"
        )


def _rank(run: Episode) -> tuple[float, int, int]:
    return -run.score, run.model_calls, run.input_tokens + run.output_tokens
