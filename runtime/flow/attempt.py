"""A part of a run: from where it is taken up to its end, or to where it must wait."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from journeyman.agents.decision import Point, write_decisions
from journeyman.agents.guards.guardrails import Guards
from journeyman.runtime.flow.in_memory import take_steps
from journeyman.runtime.flow.nesting import invoke, nested
from journeyman.runtime.loops import stop
from journeyman.runtime.run.endings import CancelledRunError
from journeyman.runtime.run.events import Ended, Event
from journeyman.runtime.run.ledger import Ledger
from journeyman.runtime.run.run import Run, origin_attributes
from journeyman.runtime.run.setting import Setting
from journeyman.runtime.store.questions import Question
from journeyman.runtime.store.run_store import WAITING, RunRecord, RunStore, taken_up
from journeyman.traces import attributes as a
from journeyman.traces.capture.energy import read_counters
from journeyman.traces.capture.tracer import Span
from journeyman.traces.errors import StoreError
from journeyman.traces.trace import Origin, Outcome, Status, Task

if TYPE_CHECKING:
    from langgraph.runtime import RunControl


CANCEL_POLL_S = 0.5
"""How often a run that is kept looks whether somebody cancelled it."""
NOTED_SHARE = 0.1
"""It notes its seconds at work when they are this share more, and a second: a kill gives back no more of a budget."""

SPOKEN: tuple[Point, ...] = ("call", "output", "answer")
"""Where guardrails check what models write."""

CANCELLED: Mapping[str, Any] = {"status": "cancelled", "error": "it was cancelled"}


class Attempt:
    """One task, for as long as a process is at work on it. `graph` gives the compiled graph that keeps its steps."""

    def __init__(
        self,
        setting: Setting,
        graph: Callable[[], Any],
        task: Task,
        origin: Origin,
        *,
        control: "RunControl | None",
        emit: Callable[[Event], None],
        shows_tokens: bool,
    ) -> None:
        self._setting = setting
        self._graph = graph
        self._task = task
        self._origin = origin
        self._control = control
        self._emit = emit
        self._shows_tokens = shows_tokens
        self._cancelled = False
        self._taken_up = False

    async def carry_out(self, known: RunRecord | None, run_id: str) -> Outcome:
        setting, task, name = self._setting, self._task, self._setting.crew.name
        attributes = {a.OPERATION: "invoke_workflow", a.WORKFLOW_NAME: name}
        with setting.tracer.span(
            f"invoke_workflow {name}",
            parent=None,
            attributes=attributes,
            trace_id=None if known is None else known.trace_id,
        ) as workflow:
            # Agents must never see the reference; the record keeps it, so that scores can be made later.
            workflow.set({a.TASK: task.model_dump_json()})
            record = known or self._new_record(run_id, workflow.trace_id)
            if known is None and setting.runs is not None:
                record = await setting.runs.put(record)
            run = await self._run(record, workflow)
            workflow.set(run.attributes | origin_attributes(record.origin))
            with _metered(workflow):
                state = await self._state(run)
            outcome = self._outcome(run, state, workflow.trace_id)
            workflow.set({a.OUTCOME: outcome.model_dump_json(), a.STATUS: outcome.status})
            if run.decisions:
                workflow.set({a.DECISIONS: write_decisions(run.decisions)})
            if outcome.status != "ok":
                workflow.fail(outcome.status, outcome.error or outcome.status)
        await setting.tracer.synced()
        await self._keep(record, outcome, state)
        self._emit(Ended(outcome=outcome))
        return outcome

    def _new_record(self, run_id: str, trace_id: str) -> RunRecord:
        setting = self._setting
        return RunRecord(
            id=run_id,
            trace_id=trace_id,
            crew=setting.crew.name,
            crew_path=setting.crew_path,
            task=self._task,
            origin=self._origin,
            policies=setting.policies(),
            seed=setting.seed,
            temperature=setting.temperature,
        )

    async def _run(self, record: RunRecord, workflow: Span) -> Run:
        setting = self._setting
        state = await self._saved(record)
        spent = state.get("spent")
        guards = Guards(setting.crew.guardrails)
        return Run(
            setting=setting,
            record=record,
            guards=guards,
            ledger=Ledger(setting.crew.budget, setting.prices, spent=spent, seconds=record.seconds),
            decisions=list(state.get("decisions", ())),
            over_budget=state.get("over_budget"),
            history=await setting.memory.turns(self._task),
            shows_tokens=self._shows_tokens and not any(map(guards.stopping.watch, SPOKEN)),
            emit=self._emit,
            root=workflow,
        )

    async def _saved(self, record: RunRecord) -> Mapping[str, Any]:
        """What the last checkpoint holds of a run that was interrupted."""
        if record.attempt == 1:
            return {}
        snapshot = await self._graph().aget_state(_config(record.id))
        return dict(snapshot.values)

    async def _state(self, run: Run) -> Mapping[str, Any]:
        """The state that the graph ended with, under the orchestrator's span where the crew has one."""
        orchestrator = run.crew.orchestrator
        if orchestrator is None:
            return await self._watched(run)
        attributes = {
            a.OPERATION: "invoke_agent",
            **run.attributes,
            a.AGENT_NAME: orchestrator.name,
            a.AGENT_DESCRIPTION: orchestrator.description or None,
            a.ATTEMPT: run.attempt,
        }
        with run.tracer.span(f"invoke_agent {orchestrator.name}", parent=run.root, attributes=attributes) as span:
            run.root = span
            state = await self._watched(run)
            span.set({a.STATUS: state["status"]})
            span.set_json(a.OUTPUT, state.get("answer", ""))
            if state["status"] != "ok":
                span.fail(state["status"], state.get("error") or state["status"])
        return state

    async def _watched(self, run: Run) -> Mapping[str, Any]:
        """The graph's work, which `journeyman runs cancel` can end from another process."""
        if run.store is None:
            return await self._invoked(run)
        working = asyncio.ensure_future(self._invoked(run))
        watching = asyncio.create_task(self._watch(run.store, run, working))
        try:
            state = await working
            if state["status"] in WAITING:
                known = await run.store.get(run.id)
                if known is not None and known.cancel:
                    return CANCELLED
            return state
        except asyncio.CancelledError:
            if self._taken_up:
                raise taken_up(run.id) from None
            if not self._cancelled:
                await stop(working)
                raise
            return CANCELLED
        finally:
            watching.cancel()

    async def _watch(self, runs: RunStore, run: Run, working: "asyncio.Future[Any]") -> None:
        while True:
            if await self._must_end(runs, run):
                working.cancel()
                return
            await asyncio.sleep(CANCEL_POLL_S)

    async def _must_end(self, runs: RunStore, run: Run) -> bool:
        try:
            record = await runs.get(run.id)
            if record is None:
                return False
            self._cancelled, self._taken_up = record.cancel, record.attempt != run.attempt
            if self._cancelled or self._taken_up:
                return True
            at_work = {"seconds": run.ledger.seconds}
            if at_work["seconds"] > record.seconds * (1 + NOTED_SHARE) + 1:
                await runs.change(run.id, partial(RunRecord.model_copy, update=at_work))
        except StoreError:
            pass  # It may answer the next time; what must be kept by now fails by itself.
        return False

    async def _invoked(self, run: Run) -> Mapping[str, Any]:
        try:
            # Two engines take the same steps: LangGraph's cost more than all else in a run with quick models, see
            # `benchmarks/overhead.py`, and its import 0.7 s. It is used where it adds something: where a run is kept,
            # or a graph is around it. A property test holds both to the same rules.
            if run.store is None and not nested():
                return await take_steps(run)
            return await self._through_graph(run)
        except CancelledRunError:
            return CANCELLED
        except StoreError:
            raise  # What cannot be recorded must not go on.
        except Exception as error:
            return {"status": "failed", "error": f"{type(error).__name__}: {error}"}

    async def _through_graph(self, run: Run) -> Mapping[str, Any]:
        """Of LangGraph, which keeps each step where there is a store, and shows it to the graph around it."""
        from langgraph.errors import GraphDrained

        from journeyman.runtime.flow.graph import most_steps

        graph = self._graph()
        begun: Any = {}
        options: dict[str, Any] = {}
        if run.store is not None:
            options = {"durability": run.store.durability, "control": self._control}
            if (await graph.aget_state(_config(run.id))).created_at is not None:
                begun = None
        config = {**_config(run.id), "recursion_limit": most_steps(run.crew)}
        try:
            state = await invoke(graph, begun, context=run, config=config, **options)
        except GraphDrained as drained:
            return {"status": "paused", "error": f"stopped where nothing is lost ({drained.reason})"}
        asked = [question for one in state.get("__interrupt__", ()) for question in one.value]
        if not asked:
            return state
        questions = tuple(sorted(map(Question.model_validate_json, asked), key=lambda question: question.order))
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
            await self._setting.memory.add(asked, outcome.answer, run_id=record.id)
        runs = self._setting.runs
        if runs is None:
            return
        pending = state.get("pending", ())
        ended = {"status": outcome.status, "outcome": outcome, "seconds": outcome.seconds, "pending": pending}
        latest = await runs.change(record.id, lambda known: known.of_part(record.attempt).model_copy(update=ended))
        if outcome.status not in WAITING:
            await runs.finish(latest)


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
