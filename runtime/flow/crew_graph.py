"""A crew as a LangGraph graph: for an app that has a graph of its own and wants the crew as a part of it.

What the app gets: its stream shows the run's events (`custom`) and the crew's own steps (`subgraphs=True`), its
drawing the crew's nodes (`xray=True`). Its callbacks, tags and metadata reach the crew. A question to a person is an
interrupt of the app's graph, and `Command(resume=...)` the answer. A task of the app's graph that is done again after a
crash goes on with the same run. What the app cancels is cancelled in the crew.

What it does not get: the steps of the crew in the app's checkpointer. They are kept where all runs are, in the
runtime's run store; without one nothing can wait, and a crash begins the crew's part anew. So the app's
`get_state(subgraphs=True)` has no values of the crew. A fork of the app's graph before the crew's part is a new run,
one within it is `journeyman replay`. A drain of the app's graph waits for the crew; `Runtime.drain` stops it, and ends
the app's graph with `GraphDrained`, as one that can be taken up again.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, TypeVar

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.channels import EphemeralValue
from langgraph.config import get_stream_writer
from langgraph.errors import GraphDrained
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Checkpointer, Command, Send, interrupt
from typing_extensions import TypedDict  # Of Python 3.11's own, pydantic makes no schema.

from journeyman.runtime.flow import control as interventions
from journeyman.runtime.flow.graph import compile_graph
from journeyman.runtime.loops import run_in_own_loop
from journeyman.runtime.run.events import Ended, Event
from journeyman.runtime.store.questions import Question, read_word
from journeyman.runtime.store.run_store import RunStore
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Outcome, Task

T = TypeVar("T")


class CrewInput(TypedDict, total=False):
    """`prompt`, or `messages` whose last one is the user's."""

    messages: Annotated[list[AnyMessage], add_messages]
    prompt: str
    session: str
    """Tasks of the same session are one conversation; the app's thread where it is not given."""


class CrewOutput(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    """With the answer as the last one."""
    answer: str
    outcome: dict[str, Any]
    """An `Outcome` as JSON values."""


class CrewState(CrewInput, CrewOutput, total=False):
    """All of it, for an app whose state is this."""


class Asking(TypedDict):
    """What a person is asked, as the value of an interrupt.

    `Command(resume=...)` wants the answer to the one question there is, or a mapping from ids of questions to answers.
    An answer is a text, or where yes or no is wanted true, false or `{"approved": true, "reason": "..."}`.
    """

    run_id: str
    questions: list[dict[str, Any]]
    """Each a `Question` as JSON values; a whole number beyond 64 bits is a text, as no checkpoint takes it."""
    problem: str | None
    """Why what was said before is no answer."""


class _GraphState(CrewState, total=False):
    """Of a task nothing stays for the next one on the same thread."""

    prompt: Annotated[str, EphemeralValue(str)]
    session: Annotated[str, EphemeralValue(str)]


class _Going(TypedDict, total=False):
    """What a node is sent for a run that waited, or that was not understood."""

    run_id: str
    problem: str


CrewGraph = CompiledStateGraph[_GraphState, None, CrewInput, CrewOutput]


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """A crew as a graph sees it."""

    name: str
    runs: RunStore | None
    stream: Callable[[Task, str | None], AsyncGenerator[Event, None]]
    """The events of a task's run, of that id where runs are kept."""
    aclose: Callable[[], Awaitable[None]]
    """Closes the connections of the running event loop."""

    def graph(self, checkpointer: Checkpointer) -> CrewGraph:
        """The node `name` runs the crew, and a second one asks what a run that waits wants to know."""
        asks = f"{self.name}_asks"
        graph = StateGraph(_GraphState, input_schema=CrewInput, output_schema=CrewOutput)
        graph.add_node(self.name, _either_way(self.name, self._work, self.aclose), destinations=(asks, END))
        graph.add_node(asks, _either_way(asks, self._ask, self.aclose), destinations=(self.name, asks))
        graph.add_edge(START, self.name)
        compiled = graph.compile(checkpointer=checkpointer, name=self.name)
        # For drawing: a run compiles its own, with the run store's checkpoints.
        steps: Any = compile_graph()
        compiled.nodes[self.name].subgraphs = [steps]
        return compiled

    async def _work(self, state: Mapping[str, Any], config: RunnableConfig) -> Command[Any]:
        task, run_id = await self._task(state, config)
        outcome = await self._outcome(task, run_id)
        told = {"answer": outcome.answer, "outcome": outcome.model_dump(mode="json")}
        if outcome.status == "paused":
            raise GraphDrained(outcome.error or "the crew was drained")
        if outcome.status == "needs_input":
            return Command(update=told, goto=Send(f"{self.name}_asks", _Going(run_id=outcome.run_id)))
        said = AIMessage(content=outcome.answer, id=outcome.run_id, name=self.name)
        return Command(update={**told, "messages": [said]}, goto=END)

    async def _task(self, state: Mapping[str, Any], config: RunnableConfig) -> tuple[Task, str | None]:
        """The task of a run that waited; or a new one, whose id is the same however often this node begins with it."""
        if self.runs is not None and (waited := state.get("run_id")) is not None:
            known = await (await self.runs.open()).get(waited)
            if known is None:
                raise ConfigError(f"run {waited!r} was deleted while it waited: begin it again with a new thread")
            return known.task, waited
        here = config.get("configurable", {})
        thread = here.get("thread_id")
        new = sha256(f"{thread} {here['checkpoint_ns']}".encode()).hexdigest()[:32]
        task = Task(id=new[:12], prompt=_prompt(state), session=state.get("session") or thread)
        return task, None if self.runs is None else new

    async def _outcome(self, task: Task, run_id: str | None) -> Outcome:
        write = get_stream_writer()
        async with aclosing(self.stream(task, run_id)) as events:
            async for event in events:
                write(event)
                if isinstance(event, Ended):
                    return event.outcome
        raise AssertionError("a run ends with `Ended`")

    async def _ask(self, state: _Going, config: RunnableConfig) -> Command[Any]:
        """Puts what a person may have answered elsewhere meanwhile, too; whoever is faster counts."""
        assert self.runs is not None  # Where runs are not kept nobody is asked.
        runs, run_id, problem = await self.runs.open(), state["run_id"], None
        if questions := await _open_questions(runs, run_id):
            asked = [_kept(question.model_dump(mode="json")) for question in questions]
            said = interrupt(Asking(run_id=run_id, questions=asked, problem=state.get("problem")))
            try:
                for question_id, word in _words(said, questions).items():
                    await interventions.say(runs, run_id, read_word(word), question_id=question_id)
            except ConfigError as error:
                problem = str(error)
        if not await _open_questions(runs, run_id):
            return Command(goto=Send(self.name, _Going(run_id=run_id)))
        again = _Going(run_id=run_id) if problem is None else _Going(run_id=run_id, problem=problem)
        return Command(goto=Send(f"{self.name}_asks", again))


def _either_way(
    name: str, work: Callable[[Any, RunnableConfig], Coroutine[Any, Any, T]], aclose: Callable[[], Awaitable[None]]
) -> RunnableLambda[Any, T]:
    """`work` as a node, also of a graph that is run without an event loop."""

    async def alone(state: Any, config: RunnableConfig) -> T:
        try:
            return await work(state, config)
        finally:
            await aclose()

    def in_own_loop(state: Any, config: RunnableConfig) -> T:
        return run_in_own_loop(alone(state, config))

    return RunnableLambda(in_own_loop, afunc=work, name=name)


def _prompt(state: Mapping[str, Any]) -> str:
    if prompt := state.get("prompt"):
        return str(prompt)
    messages = state.get("messages") or []
    if not messages or not isinstance(messages[-1], HumanMessage):
        raise ConfigError("a crew needs `prompt`, or `messages` whose last one is the user's")
    return str(messages[-1].text)


async def _open_questions(runs: RunStore, run_id: str) -> tuple[Question, ...]:
    known = await runs.get(run_id)
    return () if known is None else known.open_questions


def _kept(value: Any) -> Any:
    """A JSON value as the checkpoints of any app take it."""
    if isinstance(value, dict):
        return {name: _kept(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_kept(one) for one in value]
    return str(value) if isinstance(value, int) and value.bit_length() > 63 else value


def _words(said: object, questions: tuple[Question, ...]) -> Mapping[str, object]:
    """What was said, by question's id."""
    if isinstance(said, Mapping) and "approved" not in said:
        return said
    if len(questions) > 1:
        ids = ", ".join(question.id for question in questions)
        raise ConfigError(f"the run asks {len(questions)} questions: give a mapping, from {ids} to answers")
    return {questions[0].id: said}
