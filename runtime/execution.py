"""Execution: one task carried out, kept while it goes on, and taken up again where it was left."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from journeyman.agents.agent import Crew
from journeyman.agents.decision import write_decisions
from journeyman.agents.guardrails import Guards
from journeyman.agents.model import ModelTable
from journeyman.runtime.events import Ended, Event
from journeyman.runtime.ledger import Ledger
from journeyman.runtime.loops import stop
from journeyman.runtime.policies import PolicyTable
from journeyman.runtime.questions import Consent, Question
from journeyman.runtime.run import Run
from journeyman.runtime.runstore import WAITING, RunRecord, RunStore
from journeyman.traces import attributes as a
from journeyman.traces.energy import read_counters
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.reports.prices import Price
from journeyman.traces.trace import Outcome, Status, Task
from journeyman.traces.tracer import Span, Tracer

if TYPE_CHECKING:
    from langgraph.runtime import RunControl

    from journeyman.runtime.memory import Memory
    from journeyman.runtime.routing import Router

CANCEL_POLL_S = 0.5
"""How often a run that is kept looks whether somebody cancelled it."""
NOTED_SHARE = 0.1
"""It notes its seconds at work when they are this share more, and a second: a kill gives back no more of a budget."""

CANCELLED: Mapping[str, Any] = {"status": "cancelled", "error": "it was cancelled"}


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Everything that the runs of one runtime have in common."""

    crew: Crew
    crew_path: str | None
    models: ModelTable
    tracer: Tracer
    policies: Callable[[], PolicyTable]
    router: "Router | None"
    prices: Mapping[str, Price]
    base_digest: str | None
    seed: int
    temperature: float
    memory: "Memory"
    runs: RunStore | None
    words: Callable[[Question], Consent | None] | None
    graph: Callable[[], Any]
    """The compiled graph, with the run store's checkpoints where there is one."""

    async def run(
        self,
        task: Task,
        *,
        run_id: str | None,
        gate: asyncio.Semaphore,
        control: "RunControl",
        emit: Callable[[Event], None],
        shows_tokens: bool,
    ) -> Outcome:
        """A run that ended before gives back how; one that was interrupted goes on; else it is a new one."""
        part = _Part(self, task, gate=gate, control=control, emit=emit, shows_tokens=shows_tokens)
        if self.runs is None:
            return await part.carry_out(None, uuid4().hex)
        run_id = run_id or uuid4().hex
        async with self.runs.lock(run_id):
            known = await self.runs.get(run_id)
            if known is not None:
                known = await self._taken_up(self.runs, known, task)
                if known.outcome is not None and known.status not in WAITING:
                    emit(Ended(outcome=known.outcome))
                    return known.outcome
            return await part.carry_out(known, run_id)

    async def _taken_up(self, runs: RunStore, known: RunRecord, task: Task) -> RunRecord:
        """The record of a run that goes on; what a person said lies where the call that asked will look for it."""
        if (known.task, known.crew) != (task, self.crew.name):
            raise ConfigError(f"run {known.id} is of another task or crew: give this one another run id")
        if known.status not in WAITING:
            return known
        asked = {question.id: question for question in known.pending}
        for question_id, answer in known.answers.items():
            if (question := asked.get(question_id)) is None:
                continue  # It was asked once, and is not asked any more.
            kept = (await runs.steps(known.id, question.place)).get(question.number, {})
            said = {"question": question.model_dump(mode="json"), "answer": answer}
            await runs.note_step(known.id, question.place, question.number, {**kept, **said})
        return await runs.change(known.id, partial(_going_on, known))


class _Part:
    """A run from where it is now to its end, or to where it must wait."""

    def __init__(
        self,
        execution: Execution,
        task: Task,
        *,
        gate: asyncio.Semaphore,
        control: "RunControl",
        emit: Callable[[Event], None],
        shows_tokens: bool,
    ) -> None:
        self._execution = execution
        self._task = task
        self._gate = gate
        self._control = control
        self._emit = emit
        self._shows_tokens = shows_tokens
        self._cancelled = False

    async def carry_out(self, known: RunRecord | None, run_id: str) -> Outcome:
        execution, task, name = self._execution, self._task, self._execution.crew.name
        attributes = {a.OPERATION: "invoke_workflow", a.WORKFLOW_NAME: name}
        with execution.tracer.span(
            f"invoke_workflow {name}",
            parent=None,
            attributes=attributes,
            trace_id=None if known is None else known.trace_id,
        ) as workflow:
            # Agents must never see the reference; the record keeps it, so that scores can be made later.
            workflow.set({a.TASK: task.model_dump_json()})
            record = known or self._new_record(run_id, workflow.trace_id)
            if known is None and execution.runs is not None:
                record = await execution.runs.put(record)
            run = await self._run(record, workflow)
            workflow.set(run.attributes)
            with _metered(workflow):
                state = await self._state(run, record)
            outcome = self._outcome(run, state, workflow.trace_id)
            workflow.set({a.OUTCOME: outcome.model_dump_json(), a.STATUS: outcome.status})
            if run.decisions:
                workflow.set({a.DECISIONS: write_decisions(run.decisions)})
            if outcome.status != "ok":
                workflow.fail(outcome.status, outcome.error or outcome.status)
        await execution.tracer.synced()
        await self._keep(record, outcome, state)
        self._emit(Ended(outcome=outcome))
        return outcome

    def _new_record(self, run_id: str, trace_id: str) -> RunRecord:
        execution = self._execution
        return RunRecord(
            id=run_id,
            trace_id=trace_id,
            crew=execution.crew.name,
            crew_path=execution.crew_path,
            task=self._task,
            policies=execution.policies(),
            seed=execution.seed,
            temperature=execution.temperature,
        )

    async def _run(self, record: RunRecord, workflow: Span) -> Run:
        execution = self._execution
        state = await self._saved(record)
        spent = state.get("spent")
        return Run(
            id=record.id,
            task=self._task,
            crew=execution.crew,
            models=execution.models,
            tracer=execution.tracer,
            policies=record.policies,
            router=execution.router,
            gate=self._gate,
            guards=Guards(execution.crew.guardrails),
            ledger=Ledger(execution.crew.budget, execution.prices, spent=spent, seconds=record.seconds),
            decisions=list(state.get("decisions", ())),
            over_budget=state.get("over_budget"),
            store=execution.runs,
            attempt=record.attempt,
            base_digest=execution.base_digest,
            seed=record.seed,
            temperature=record.temperature,
            history=await execution.memory.turns(self._task),
            notes=execution.memory.notes(self._task),
            words=execution.words,
            shows_tokens=self._shows_tokens,
            emit=self._emit,
            root=workflow,
        )

    async def _saved(self, record: RunRecord) -> Mapping[str, Any]:
        """What the last checkpoint holds of a run that was interrupted."""
        if record.attempt == 1:
            return {}
        snapshot = await self._execution.graph().aget_state(_config(record.id))
        return dict(snapshot.values)

    async def _state(self, run: Run, record: RunRecord) -> Mapping[str, Any]:
        """The state that the graph ended with, under the orchestrator's span where the crew has one."""
        orchestrator = run.crew.orchestrator
        if orchestrator is None:
            return await self._watched(run, record)
        attributes = {
            a.OPERATION: "invoke_agent",
            **run.attributes,
            a.AGENT_NAME: orchestrator.name,
            a.AGENT_DESCRIPTION: orchestrator.description or None,
            a.ATTEMPT: run.attempt,
        }
        with run.tracer.span(f"invoke_agent {orchestrator.name}", parent=run.root, attributes=attributes) as span:
            run.root = span
            state = await self._watched(run, record)
            span.set({a.STATUS: state["status"]})
            span.set_json(a.OUTPUT, state.get("answer", ""))
            if state["status"] != "ok":
                span.fail(state["status"], state.get("error") or state["status"])
        return state

    async def _watched(self, run: Run, record: RunRecord) -> Mapping[str, Any]:
        """The graph's work, which `journeyman runs cancel` can end from another process."""
        if run.store is None:
            return await self._invoked(run, record)
        working = asyncio.ensure_future(self._invoked(run, record))
        watching = asyncio.create_task(self._watch(run.store, run, working))
        try:
            state = await working
            if state["status"] in WAITING:
                known = await run.store.get(run.id)
                if known is not None and known.cancel:
                    return CANCELLED
            return state
        except asyncio.CancelledError:
            if not self._cancelled:
                await stop(working)
                raise
            return CANCELLED
        finally:
            watching.cancel()

    async def _watch(self, runs: RunStore, run: Run, working: "asyncio.Future[Any]") -> None:
        while True:
            record = await runs.get(run.id)
            if record is not None and record.cancel:
                self._cancelled = True
                working.cancel()
                return
            at_work = {"seconds": run.ledger.seconds}
            if record is not None and at_work["seconds"] > record.seconds * (1 + NOTED_SHARE) + 1:
                await runs.change(run.id, partial(RunRecord.model_copy, update=at_work))
            await asyncio.sleep(CANCEL_POLL_S)

    async def _invoked(self, run: Run, record: RunRecord) -> Mapping[str, Any]:
        from langgraph.errors import GraphDrained

        from journeyman.runtime.graph import most_steps
        from journeyman.runtime.nesting import invoke

        graph = self._execution.graph()
        begun: Any = {}
        options: dict[str, Any] = {}
        if run.store is not None:
            options["durability"] = run.store.durability
            if (await graph.aget_state(_config(run.id))).created_at is not None:
                begun = None
        config = {**_config(run.id), "recursion_limit": most_steps(run.crew)}
        try:
            state = await invoke(graph, begun, context=run, config=config, control=self._control, **options)
        except GraphDrained as drained:
            return {"status": "paused", "error": f"stopped where nothing is lost ({drained.reason})"}
        except StoreError:
            raise  # What cannot be recorded must not go on.
        except Exception as error:
            return {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        asked = [question for one in state.get("__interrupt__", ()) for question in one.value]
        if not asked:
            return state
        questions = tuple(sorted(map(Question.model_validate, asked), key=lambda question: question.order))
        return {"status": "needs_input", "error": f"it waits for a person: {questions[0].text}", "pending": questions}

    def _outcome(self, run: Run, state: Mapping[str, Any], trace_id: str) -> Outcome:
        status: Status = state["status"]
        spent = run.ledger.spent
        return Outcome(
            task_id=self._task.id,
            trace_id=trace_id,
            run_id=run.id,
            status=status,
            answer=state.get("answer", ""),
            evidence=tuple(state.get("evidence", ())),
            error=state.get("error"),
            usage=spent.usage,
            model_calls=spent.model_calls,
            tool_calls=spent.tool_calls,
            cost=spent.cost,
            seconds=run.ledger.seconds,
        )

    async def _keep(self, record: RunRecord, outcome: Outcome, state: Mapping[str, Any]) -> None:
        if outcome.status == "ok":
            # As the guardrails left it: what they took out must not come back with the next task.
            asked = self._task.model_copy(update={"prompt": state.get("prompt", self._task.prompt)})
            await self._execution.memory.add(asked, outcome.answer, run_id=record.id)
        runs = self._execution.runs
        if runs is None:
            return
        pending = state.get("pending", ())
        ended = {"status": outcome.status, "outcome": outcome, "seconds": outcome.seconds, "pending": pending}
        latest = await runs.change(record.id, lambda known: known.model_copy(update=ended))
        if outcome.status not in WAITING:
            await runs.finish(latest)


def _going_on(known: RunRecord, latest: RunRecord) -> RunRecord:
    """The next part of a run begins; an answer that came after `known` was read is kept for the part after it."""
    later = {question: word for question, word in latest.answers.items() if question not in known.answers}
    update = {"attempt": latest.attempt + 1, "status": "running", "pending": (), "answers": later}
    return latest.model_copy(update=update)


def _config(run_id: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": run_id}}


@contextmanager
def _metered(workflow: Span) -> Iterator[None]:
    """Writes down what the machine's energy counters say before and after, where it has any."""
    before = read_counters()
    try:
        yield
    finally:
        after = read_counters()
        if before is not None and after is not None and before.source == after.source:
            workflow.set(
                {a.ENERGY_START: before.joules, a.ENERGY: after.joules, a.ENERGY_SOURCE: after.source},
            )
