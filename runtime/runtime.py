"""The runtime: runs tasks with a crew, and records every step."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any, Self, TypeVar
from uuid import uuid4

from journeyman.agents.agent import Crew, load_crew
from journeyman.agents.model import Model, ModelTable
from journeyman.runtime.config import Workspace, find_workspace
from journeyman.runtime.events import Ended, Event
from journeyman.runtime.policies import PolicyTable
from journeyman.runtime.recording import Recording
from journeyman.runtime.run import Run
from journeyman.traces import attributes as a
from journeyman.traces.energy import read_counters
from journeyman.traces.trace import Outcome, Task
from journeyman.traces.tracer import Span, Tracer

T = TypeVar("T")


class Runtime:
    """A crew ready to work.

    async with Runtime.open("crew.toml") as runtime:
        outcome = await runtime.run("Who directed the five highest-grossing films?")

    `policies` is a table, or a function that gives the table of the moment: each run asks once, when it starts.
    `base_digest` is that of the model's weights, for the record.
    """

    def __init__(
        self,
        crew: Crew,
        *,
        model: Model | ModelTable,
        tracer: Tracer | None = None,
        policies: PolicyTable | Callable[[], PolicyTable] | Mapping[str, str] | None = None,
        base_digest: str | None = None,
        seed: int = 0,
        temperature: float = 0.0,
        concurrency: int = 32,
    ) -> None:
        self.crew = crew
        self._models = model if isinstance(model, ModelTable) else ModelTable(model)
        self._tracer = tracer or Tracer()
        self._policies = _policy_source(policies)
        self._base_digest = base_digest
        self._seed = seed
        self._temperature = temperature
        self._concurrency = concurrency
        self._gates: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}
        self._recording: Recording | None = None

    @classmethod
    def open(
        cls,
        crew: Crew | Path | str,
        *,
        workspace: Workspace | Path | str | None = None,
        attach: str | None = None,
        seed: int = 0,
        temperature: float = 0.0,
        concurrency: int = 32,
    ) -> Self:
        """A runtime on the workspace's server and span log, with the policies its journal has in service.

        `attach` names a server that someone else runs. Raises `ConfigError` or `ServerError`.
        """
        from journeyman.runtime.adapters import current_policies
        from journeyman.runtime.server import running
        from journeyman.runtime.vllm import ChatVLLM

        place = (
            workspace if isinstance(workspace, Workspace) else find_workspace(Path(workspace) if workspace else None)
        )
        server = None if attach else running(place)
        recording = Recording(place, compacts=True)
        model = ChatVLLM(base_url=attach if server is None else server.url)
        runtime = cls(
            crew if isinstance(crew, Crew) else load_crew(Path(crew)),
            model=model,
            tracer=recording.tracer,
            policies=lambda: current_policies(place),
            base_digest=None if server is None else server.model_digest,
            seed=seed,
            temperature=temperature,
            concurrency=concurrency,
        )
        runtime._recording = recording
        return runtime

    async def run(self, task: Task | str) -> Outcome:
        """Runs one task to its end. What goes wrong is in the outcome; only a record that can't be kept raises."""
        return await self._run(_task(task), lambda event: None)

    def run_sync(self, task: Task | str) -> Outcome:
        """`run` for code without an event loop, and safe inside one (it then runs in a thread of its own)."""
        return _in_own_loop(self._run_and_close(_task(task)))

    async def stream(self, task: Task | str) -> AsyncIterator[Event]:
        """The events of one run, the last one `Ended`. Leaving the loop early cancels the run."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        running = asyncio.create_task(self._run(_task(task), queue.put_nowait))
        running.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (event := await queue.get()) is not None:
                yield event
            await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._models.aclose()
        self.close()

    def close(self) -> None:
        """Closes what `open` opened; views get a few seconds for what is on its way to them."""
        if self._recording is not None:
            self._recording.close()

    async def _run_and_close(self, task: Task) -> Outcome:
        try:
            return await self.run(task)
        finally:
            await self._models.aclose()

    @cached_property
    def _graph(self) -> Any:
        from journeyman.runtime.graph import compile_graph  # LangGraph takes a second to import.

        return compile_graph()

    def _gate(self) -> asyncio.Semaphore:
        """The limit on model calls in flight, one for each event loop that runs come from."""
        for loop in [loop for loop in self._gates if loop.is_closed()]:
            del self._gates[loop]
        return self._gates.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self._concurrency))

    async def _run(self, task: Task, emit: Callable[[Event], None]) -> Outcome:
        name = self.crew.name
        attributes = {a.OPERATION: "invoke_workflow", a.WORKFLOW_NAME: name}
        with self._tracer.span(f"invoke_workflow {name}", parent=None, attributes=attributes) as workflow:
            # Agents must never see the reference; the record keeps it, so that scores can be made later.
            workflow.set({a.TASK: task.model_dump_json()})
            started = perf_counter()
            run = Run(
                task=task,
                crew=self.crew,
                models=self._models,
                tracer=self._tracer,
                policies=self._policies(),
                gate=self._gate(),
                base_digest=self._base_digest,
                seed=self._seed,
                temperature=self._temperature,
                emit=emit,
                root=workflow,
            )
            workflow.set(run.attributes)
            with _metered(workflow):
                state = await self._under_orchestrator(run)
            outcome = Outcome(
                task_id=task.id,
                trace_id=workflow.trace_id,
                status=state["status"],
                answer=state.get("answer", ""),
                error=state.get("error"),
                usage=run.usage,
                model_calls=run.model_calls,
                tool_calls=run.tool_calls,
                seconds=perf_counter() - started,
            )
            workflow.set({a.OUTCOME: outcome.model_dump_json(), a.STATUS: outcome.status})
            if outcome.status != "ok":
                workflow.fail(outcome.status, outcome.error or outcome.status)
        emit(Ended(outcome=outcome))
        return outcome

    async def _under_orchestrator(self, run: Run) -> dict[str, Any]:
        orchestrator = self.crew.orchestrator
        if orchestrator is None:
            return await self._invoke(run)
        attributes = {
            a.OPERATION: "invoke_agent",
            **run.attributes,
            a.AGENT_NAME: orchestrator.name,
            a.AGENT_DESCRIPTION: orchestrator.description or None,
        }
        with self._tracer.span(f"invoke_agent {orchestrator.name}", parent=run.root, attributes=attributes) as span:
            run.root = span
            state = await self._invoke(run)
            span.set({a.STATUS: state["status"]})
            span.set_json(a.OUTPUT, state.get("answer", ""))
            if state["status"] != "ok":
                span.fail(state["status"], state.get("error") or state["status"])
        return state

    async def _invoke(self, run: Run) -> dict[str, Any]:
        from journeyman.runtime.graph import MAX_WAVES

        state: dict[str, Any] = await self._graph.ainvoke({}, context=run, config={"recursion_limit": 2 * MAX_WAVES})
        return state


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


def _policy_source(
    policies: PolicyTable | Callable[[], PolicyTable] | Mapping[str, str] | None,
) -> Callable[[], PolicyTable]:
    if callable(policies):
        return policies
    table = policies if isinstance(policies, PolicyTable) else PolicyTable(agents=dict(policies or {}))
    return lambda: table


def _task(task: Task | str) -> Task:
    return task if isinstance(task, Task) else Task(id=uuid4().hex[:12], prompt=task)


def _in_own_loop(work: Coroutine[Any, Any, T]) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    results: list[T] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
