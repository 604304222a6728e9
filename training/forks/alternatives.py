"""Alternatives: recorded runs taken up again at one model call, which is asked anew, and scored beside the original."""

import asyncio
import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from pydantic import JsonValue, ValidationError

from journeyman.agents.agent import Crew
from journeyman.agents.crew_file import load_crew
from journeyman.agents.model import Model, ModelReply, ModelRequest, ModelTable
from journeyman.runtime.adapters.live import current_policies
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.replay.fork import Fork, Replacement
from journeyman.runtime.replay.replay import Replay, ReplaySink
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import Record
from journeyman.traces.capture.content import ContentPolicy
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import ConfigError, ServerError, StoreError
from journeyman.traces.files import RowFile, is_torn
from journeyman.traces.labels import Label
from journeyman.traces.trace import Purpose, Status, Task, Trace, Turn
from journeyman.training.evaluation.bench import answered_by
from journeyman.training.evaluation.evaluate import Watched, load_scorer
from journeyman.training.rewards import Scorer, score_of

if TYPE_CHECKING:
    from journeyman.runtime.serving.backend import Backend

VERSION = 1
"""Of what an alternative means."""


class Step(NamedTuple):
    """A model call of a recorded run."""

    trace: Trace
    turn: Turn
    task: Task
    """With the reference that answers are compared with."""
    score: float
    """Of the run as it was."""

    @property
    def calls_from_here(self) -> int:
        """Model calls of the recorded run from this one on: about what a fork of it costs."""
        return sum(turn.started_ns >= self.turn.started_ns for turn in self.trace.turns)


class Alternative(Record):
    """A recorded run in which one model call was answered otherwise, and what became of it."""

    version: int = VERSION
    run: str
    """Trace id of the recorded run."""
    span_id: str
    """Of its call that was asked anew."""
    agent: str
    replacement: Replacement
    trace_id: str
    """Of the run that was made so; every span of it names the recorded one."""
    recorded: float
    """Score of the recorded run."""
    score: float
    """0..1; 0 where no answer came."""
    status: Status
    calls: int
    """Model calls that were made for it; what the record answered is none."""


class Alternatives:
    """Forks runs and scores them, within a budget of model calls. Each alternative is kept in the workspace, a file for
    each set of conditions that a score depends on, and never made twice."""

    def __init__(
        self,
        workspace: Workspace,
        crew: Crew,
        scorer: str,
        *,
        backend: "Backend",
        policies: PolicyTable,
        purpose: Purpose,
        budget: int,
        conditions: Sequence[JsonValue] = (),
        concurrency: int = 8,
    ) -> None:
        """`policies` answer what is live, `purpose` is what the runs are recorded for. `conditions` are the crew's and
        the models', besides the scorer and the policies. The budget counts what was made before for the same steps."""
        if budget < 1:
            raise ConfigError(f"a budget of {budget} model calls measures nothing: give --budget 1 or more")
        self.crew = crew
        self.budget = budget
        self.calls = 0
        """Model calls of all alternatives that were asked for, those made before included."""
        self.left_out = 0
        """Alternatives that the budget did not allow."""
        self.astray = 0
        """Forks that never came to their step, so that nothing was measured."""
        self.score: Scorer = load_scorer(scorer)
        self._scorer = scorer
        self._workspace = workspace
        self._backend = backend
        self._policies = policies
        self._purpose: Purpose = purpose
        self._concurrency = concurrency
        self._reserved = 0
        told = [VERSION, *conditions, scorer, policies.model_dump(mode="json", exclude={"forms"}), purpose]
        key = sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
        self.path = workspace.root / "alternatives" / f"{key}.jsonl"

    @classmethod
    def open(cls, workspace: Workspace, crew: Path, scorer: str, *, purpose: Purpose, budget: int) -> Self:
        """A crew's file, answered by what the workspace has running and in service; raises `ServerError`."""
        from journeyman.runtime.serving.backend import open_backend  # langchain takes a second to import.

        loaded, backend = load_crew(crew), open_backend(workspace)
        workspace.config.check_crew(loaded)
        return cls(
            workspace,
            loaded,
            scorer,
            backend=backend,
            policies=current_policies(workspace),
            purpose=purpose,
            budget=budget,
            conditions=[crew.read_text(encoding="utf-8"), *answered_by(workspace, backend)],
        )

    def take(
        self,
        wanted: Sequence[tuple[Step, Replacement]],
        *,
        on_alternative: Callable[[Alternative], None] = lambda alternative: None,
    ) -> list[Alternative]:
        """Those that there are, or that the budget allows to make, in the order in which they are wanted.

        A fork that has begun is finished, so the last ones may take a few calls more than the budget. Raises
        `ServerError` where a server failed; what was measured until then is kept.
        """
        known = {_key(one): one for one in read_alternatives(self.path)}
        kept = [known.get((step.trace.trace_id, step.turn.span_id, replacement)) for step, replacement in wanted]
        self.calls = sum(one.calls for one in kept if one is not None)
        self.left_out = self.astray = 0
        return asyncio.run(self._take(wanted, kept, on_alternative))

    async def _take(
        self,
        wanted: Sequence[tuple[Step, Replacement]],
        kept: list[Alternative | None],
        on_alternative: Callable[[Alternative], None],
    ) -> list[Alternative]:
        waiting = iter(range(len(wanted)))
        models = Watched(self._backend.models)

        async def work() -> None:
            for number in waiting:
                one = kept[number] or await self._affordable(*wanted[number], models, recording)
                if one is not None:
                    kept[number] = one
                    on_alternative(one)

        with Recording(self._workspace, compacts=True) as recording:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(self._concurrency):
                        group.create_task(work())
            except ExceptionGroup as failures:  # The first of them stopped the others.
                raise failures.exceptions[0] from None
            finally:
                await models.aclose()
        return [one for one in kept if one is not None]

    async def _affordable(
        self, step: Step, replacement: Replacement, models: Watched, recording: Recording
    ) -> Alternative | None:
        expected = step.calls_from_here
        if self.calls + self._reserved + expected > self.budget:
            self.left_out += 1
            return None
        self._reserved += expected
        try:
            return await self._made(step, replacement, models, recording)
        finally:
            self._reserved -= expected

    async def _made(
        self, step: Step, replacement: Replacement, models: Watched, recording: Recording
    ) -> Alternative | None:
        trace, turn = step.trace, step.turn
        live = _Counted(models)
        fork = Fork(span_id=turn.span_id, agent=turn.agent, at_ns=turn.started_ns)
        replay = Replay(trace, self.crew, fork=fork, live=live, replacement=replacement)
        runtime = Runtime(
            replay.crew,
            model=replay.models,
            # The recording has the workspace's own content policy.
            tracer=Tracer(ReplaySink(recording, trace.trace_id), content=ContentPolicy("full", ())),
            policies=self._policies,
            router=self._backend.router,
            prices=self._workspace.config.traces.prices,
            memory=replay.memory,
            words=replay.words,
            revise=replay.revise,
            base_digest=self._backend.base_digest,
        )
        outcome = await runtime.run(replay.task, origin=replay.origin.model_copy(update={"purpose": self._purpose}))
        self.calls += live.calls
        if (outage := models.outages.get(outcome.trace_id)) is not None:
            raise ServerError(
                f"a fork of run {trace.trace_id[:12]} says nothing: {outage}; run it again, what was measured is kept"
            )
        if not replay.forked:
            self.astray += 1
            return None
        score = score_of(self.score, step.task, outcome.answer) if outcome.answer else 0.0
        recording.label(Label(trace_id=outcome.trace_id, name="score", source=self._scorer, value=score))
        made = Alternative(
            run=trace.trace_id,
            span_id=turn.span_id,
            agent=turn.agent,
            replacement=replacement,
            trace_id=outcome.trace_id,
            recorded=step.score,
            score=score,
            status=outcome.status,
            calls=live.calls,
        )
        self._keep(made)
        return made

    def _keep(self, made: Alternative) -> None:
        try:
            RowFile(self.path).append(made.model_dump_json().encode() + b"\n")
        except OSError as error:
            raise StoreError(f"{self.path} was not written: {error.strerror}; make room and run it again") from error


def read_alternatives(path: Path) -> list[Alternative]:
    """The alternatives in a file; a line that a crash cut short is none, so that it is made again."""
    try:
        return [Alternative.model_validate_json(line) for line in RowFile(path) if not is_torn(line)]
    except ValidationError:
        raise ConfigError(f"{path} holds something other than alternatives: move it away") from None


def _key(one: Alternative) -> tuple[str, str, Replacement]:
    return one.run, one.span_id, one.replacement


class _Counted(ModelTable):
    """The models of one fork, whose calls are counted. Whoever made the models closes them."""

    def __init__(self, models: ModelTable) -> None:
        self._models = models
        self.calls = 0

    def __getitem__(self, policy: str) -> Model:
        return _CountedModel(self._models[policy], self)

    def __contains__(self, policy: object) -> bool:
        return policy in self._models

    async def aclose(self) -> None:
        """Other forks use the models too."""


class _CountedModel:
    def __init__(self, model: Model, table: _Counted) -> None:
        self._model = model
        self._table = table

    @property
    def provider(self) -> str:
        return self._model.provider

    @property
    def demonstrates(self) -> bool:
        return self._model.demonstrates

    async def complete(self, request: ModelRequest) -> ModelReply:
        self._table.calls += 1
        return await self._model.complete(request)

    async def aclose(self) -> None:
        """See `_Counted.aclose`."""
