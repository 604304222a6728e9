"""The runtime: runs tasks with a crew, records every step, and takes up again what was interrupted."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from uuid import uuid4
from weakref import WeakKeyDictionary

from journeyman.agents.agent import Crew
from journeyman.agents.crew_file import load_crew
from journeyman.agents.model import Model, ModelRequest, ModelTable
from journeyman.runtime.flow import control as interventions
from journeyman.runtime.flow.executor import Executor
from journeyman.runtime.loops import iterate_in_own_loop, run_in_own_loop, stop
from journeyman.runtime.models.policies import CheckedPolicies, PolicyTable
from journeyman.runtime.models.routing import Router
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.run.events import Event
from journeyman.runtime.run.ledger import check_prices
from journeyman.runtime.run.limiter import Limiter
from journeyman.runtime.run.setting import Setting
from journeyman.runtime.store.database import check_text
from journeyman.runtime.store.memory import Memory
from journeyman.runtime.store.questions import Consent, Question
from journeyman.runtime.store.run_store import WAITING, RunRecord, RunStore
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import ConfigError, JourneymanError
from journeyman.traces.prices import Price
from journeyman.traces.trace import Origin, Outcome, Task

if TYPE_CHECKING:
    from langgraph.runtime import RunControl
    from langgraph.types import Checkpointer

    from journeyman.runtime.flow.crew_graph import CrewGraph

Answers: TypeAlias = Mapping[str, str | Consent]
"""Question's id to what a person said."""


class Runtime:
    """A crew ready to work.

    async with Runtime.open("crew.toml") as runtime:
        outcome = await runtime.run("Who directed the five highest-grossing films?")

    `policies` is a table, or a function that gives the table of the moment: each run asks once, when it starts.
    `base_digest` is that of the model's weights, for the record. `concurrency` is the limit on model calls in flight,
    of all runs in all event loops and threads together. With `runs`, a run is kept while it goes on: it can wait for a
    person and be taken up again by another process; without, it lives in memory and is faster. `words` and `revise` are
    of a run that is repeated, see `Replay`.
    """

    def __init__(
        self,
        crew: Crew,
        *,
        model: Model | ModelTable,
        tracer: Tracer | None = None,
        policies: PolicyTable | Callable[[], PolicyTable] | Mapping[str, str] | None = None,
        router: Router | None = None,
        prices: Mapping[str, Price] | None = None,
        runs: RunStore | None = None,
        memory: Memory | None = None,
        words: Callable[[Question], Consent | None] | None = None,
        revise: Callable[[ModelRequest], ModelRequest] | None = None,
        base_digest: str | None = None,
        crew_path: Path | None = None,
        seed: int = 0,
        temperature: float = 0.0,
        concurrency: int = 32,
    ) -> None:
        if concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency}: at least 1 model call must be possible at once")
        check_prices(crew.budget, prices or {})
        self.crew = crew
        self._models = model if isinstance(model, ModelTable) else ModelTable(model)
        self.runs = runs
        """Where runs are kept; None for a runtime whose runs end with the process."""
        self._graphs: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
        self._recording: Recording | None = None
        setting = Setting(
            crew=crew,
            crew_path=None if crew_path is None else str(crew_path.resolve()),
            models=self._models,
            tracer=tracer or Tracer(),
            policies=CheckedPolicies(crew, _policy_source(policies)),
            router=router,
            prices=prices or {},
            base_digest=base_digest,
            limiter=Limiter(concurrency),
            seed=seed,
            temperature=temperature,
            memory=memory or Memory(runs, crew.memory),
            runs=runs,
            words=words,
            revise=revise,
        )
        self._executor = Executor(setting=setting, graph=self._graph)

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
        """A runtime on the workspace's server, span log and run store, with the policies its journal has in service.

        `attach` names a server that someone else runs. Raises `ConfigError` or `ServerError`.
        """
        from journeyman.runtime.adapters.current import CurrentPolicies
        from journeyman.runtime.serving.backend import open_backend  # langchain takes a second to import.

        workspace = (
            workspace if isinstance(workspace, Workspace) else find_workspace(Path(workspace) if workspace else None)
        )
        config = workspace.config
        crew, crew_path = (crew, None) if isinstance(crew, Crew) else (load_crew(Path(crew)), Path(crew))
        config.check_crew(crew)
        asked = open_backend(workspace, attach)
        recording = Recording(workspace, compacts=True)
        runs = workspace.create().runs
        policies = CurrentPolicies(workspace)
        with suppress(JourneymanError):
            policies()  # A long journal is read here, where no other run waits. What is wrong with it is told to a run.
        runtime = cls(
            crew,
            model=asked.models,
            tracer=recording.tracer,
            policies=policies,
            router=asked.router,
            prices=config.traces.prices,
            runs=runs,
            memory=Memory(runs, crew.memory, config.memory),
            base_digest=asked.base_digest,
            crew_path=crew_path,
            seed=seed,
            temperature=temperature,
            concurrency=concurrency,
        )
        runtime._recording = recording
        return runtime

    async def run(
        self,
        task: Task | str | None = None,
        *,
        run_id: str | None = None,
        answers: Answers | None = None,
        origin: Origin | None = None,
    ) -> Outcome:
        """Runs one task to its end. What goes wrong is in the outcome; only a record that can't be kept raises.

        The same `run_id` twice never runs twice: a run that ended gives back its outcome, one that was interrupted goes
        on, and one that another process is at raises `RunBusyError`. It needs a run store. A text is the same task each
        time that it is given with the same `run_id`; a run that is known goes on without it.

        `answers` are by question id, beside those given before: a text, or a `Consent` where yes or no is wanted, for
        which a text that begins with either does. Raises `ConfigError`, also where a question was not asked or wants
        the other kind.

        `origin` says why the run is made, for the record; by default for service. A run that goes on keeps its own.
        """
        return await self._run(task, run_id, answers, origin)

    async def resume(self, run_id: str, answers: Answers | None = None) -> Outcome:
        """Goes on with a run that was interrupted or waits: `run` without the task."""
        return await self.run(run_id=run_id, answers=answers)

    def run_sync(
        self,
        task: Task | str | None = None,
        *,
        run_id: str | None = None,
        answers: Answers | None = None,
        origin: Origin | None = None,
    ) -> Outcome:
        """`run` for code without an event loop, and safe inside one (it then runs in a thread of its own)."""
        return run_in_own_loop(self._run_and_close(task, run_id, answers, origin))

    async def stream(
        self,
        task: Task | str | None = None,
        *,
        run_id: str | None = None,
        answers: Answers | None = None,
        origin: Origin | None = None,
        tokens: bool = False,
    ) -> AsyncGenerator[Event, None]:
        """The events of what `run` does, the last one `Ended`. Leaving the loop early stops the run and all its work.

        One that is kept was interrupted then: `resume` goes on with it, `cancel` ends it for good.

        With `tokens`, replies are streamed too: a `Token` for each piece of each agent's reply, and a `ReplyBroken`
        where pieces that were shown count no longer.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        work = self._run(task, run_id, answers, origin, emit=queue.put_nowait, shows_tokens=tokens)
        running = asyncio.create_task(work)
        running.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (event := await queue.get()) is not None:
                yield event
            await running
        finally:
            await stop(running)

    def stream_sync(
        self,
        task: Task | str | None = None,
        *,
        run_id: str | None = None,
        answers: Answers | None = None,
        origin: Origin | None = None,
        tokens: bool = False,
    ) -> Generator[Event, None, None]:
        """`stream` for code without an event loop, and safe inside one."""
        return iterate_in_own_loop(lambda: self._stream_and_close(task, run_id, answers, origin, tokens))

    async def find(self, run_id: str) -> RunRecord | None:
        """What is kept of a run; None for one that there is not."""
        return None if self.runs is None else await (await self.runs.open(self)).get(run_id)

    async def left(self) -> list[RunRecord]:
        """Runs of this crew that were interrupted or wait, and that nobody is at now."""
        found: list[RunRecord] = []
        if self.runs is not None:
            runs = await self.runs.open(self)
            for status in WAITING:
                for known in await runs.find(status):
                    if known.crew == self.crew.name and not await runs.alive(known.id):
                        found.append(known)
        return found

    async def cancel(self, run_id: str) -> None:
        """Ends a run, wherever it is: within a second if it is at work in another process, at once if it waits."""
        if self.runs is None:
            raise ConfigError("this runtime keeps no runs: cancel the task that awaits `run`")
        await interventions.cancel(await self.runs.open(self), run_id, self._executor.setting.tracer)

    def drain(self, reason: str = "drained") -> None:
        """Stops every run at its next step, where nothing is lost; they end `paused`, for another runtime to resume.

        So does every run that this one is given afterwards. Raises `ConfigError` where runs are not kept.
        """
        if self.runs is None:
            raise ConfigError("this runtime keeps no runs that could be resumed: cancel the task that awaits `run`")
        self._control.request_drain(reason)

    def as_graph(self, *, checkpointer: "Checkpointer" = None, tokens: bool = False) -> "CrewGraph":
        """The crew as a compiled LangGraph graph, to be run as it is or put into another graph as a node.

        It takes `prompt` or `messages`, of which the last one that a person wrote is the task, and gives `answer`,
        `outcome` and the answer as a message. A run without an answer raises `NoAnswerError`, a task that isn't text
        `ConfigError`. A question to a person is an interrupt, where runs are kept and the graph, or the one around it,
        has a `checkpointer`; see `journeyman.runtime.flow.crew_graph` for the answer to it, and for what else a graph
        has of the crew.
        """
        from journeyman.runtime.flow.crew_graph import Embedded

        def stream(task: Task, run_id: str | None) -> AsyncGenerator[Event, None]:
            return self.stream(task, run_id=run_id, tokens=tokens)

        return Embedded(name=self.crew.name, runs=self.runs, stream=stream, aclose=self.aclose).graph(checkpointer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
        self.close()

    async def aclose(self) -> None:
        """Closes the connections of the running event loop that no other runtime uses; the next run opens new ones."""
        self._graphs.pop(asyncio.get_running_loop(), None)
        await self._models.aclose()
        if self.runs is not None:
            await self.runs.aclose(self)

    def close(self) -> None:
        """Closes what `open` opened; views get a few seconds for what is on its way to them."""
        if self._recording is not None:
            self._recording.close()

    async def _run(
        self,
        task: Task | str | None,
        run_id: str | None,
        answers: Answers | None,
        origin: Origin | None,
        *,
        emit: Callable[[Event], None] = lambda event: None,
        shows_tokens: bool = False,
    ) -> Outcome:
        if self.runs is not None:
            await self.runs.open(self)
        elif run_id is not None:
            raise ConfigError("a run id needs a run store: give the runtime `runs=RunStore(...)`")
        return await self._executor.run(
            await self._asked(task, run_id, answers or {}),
            run_id=run_id,
            origin=origin or Origin(),
            control=None if self.runs is None else self._control,
            emit=emit,
            shows_tokens=shows_tokens,
        )

    async def _asked(self, task: Task | str | None, run_id: str | None, answers: Answers) -> Task:
        """The task. Of a run that goes on it need not be given, and what a person said is kept first."""
        if self.runs is None or run_id is None:
            if task is None or answers:
                raise ConfigError("a new run needs a task, and no answers: name one that goes on by its `run_id`")
            return _task(task, run_id)
        for question_id, word in answers.items():
            await interventions.say(self.runs, run_id, word, question_id=question_id)
        if task is not None:
            return _task(task, run_id)
        if (known := await self.runs.get(run_id)) is None:
            raise ConfigError(f"no run {run_id!r}: `journeyman runs list` shows those there are")
        return known.task

    async def _run_and_close(
        self, task: Task | str | None, run_id: str | None, answers: Answers | None, origin: Origin | None
    ) -> Outcome:
        try:
            return await self._run(task, run_id, answers, origin)
        finally:
            await self.aclose()

    async def _stream_and_close(
        self,
        task: Task | str | None,
        run_id: str | None,
        answers: Answers | None,
        origin: Origin | None,
        tokens: bool,
    ) -> AsyncGenerator[Event, None]:
        try:
            async for event in self.stream(task, run_id=run_id, answers=answers, origin=origin, tokens=tokens):
                yield event
        finally:
            await self.aclose()

    def _graph(self) -> Any:
        from journeyman.runtime.flow.graph import compile_graph  # LangGraph takes a second to import.

        loop = asyncio.get_running_loop()
        if loop not in self._graphs:
            self._graphs[loop] = compile_graph(None if self.runs is None else self.runs.checkpointer)
        return self._graphs[loop]

    @cached_property
    def _control(self) -> "RunControl":
        from langgraph.runtime import RunControl

        return RunControl()


def _policy_source(
    policies: PolicyTable | Callable[[], PolicyTable] | Mapping[str, str] | None,
) -> Callable[[], PolicyTable]:
    if callable(policies):
        return policies
    table = policies if isinstance(policies, PolicyTable) else PolicyTable(agents=dict(policies or {}))
    return lambda: table


def _task(task: Task | str, run_id: str | None) -> Task:
    """Raises `ConfigError` for a text that cannot be kept, as what a browser sends may be."""
    asked = task if isinstance(task, Task) else Task(id=uuid4().hex[:12] if run_id is None else run_id, prompt=task)
    check_text("the task", asked)
    return asked
