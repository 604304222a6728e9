"""A crew as a LangGraph graph: for an app that has a graph of its own and wants the crew as a part of it.

What the app gets: its stream shows the run's events (`custom`) and the crew's own steps (`subgraphs=True`), its
drawing the crew's nodes (`xray=True`). Its callbacks, tags and metadata reach the crew. A question to a person is an
interrupt of the app's graph, and `Command(resume=...)` the answer. A task of the app's graph that is done again after a
crash goes on with the same run. What the app cancels is cancelled in the crew. A run that ends without an answer is an
error of the node (`NoAnswerError`), so that nothing behind it takes silence for an answer, and the app's retry policies
and error handlers do their work; a node that is tried again is a new run. What went wrong in a run that has an answer
all the same stands in the `response_metadata` of its message, beside the run's status.

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
from journeyman.runtime.store.questions import Question
from journeyman.runtime.store.run_store import WAITING, RunRecord, RunStore
from journeyman.traces.errors import ConfigError, JourneymanError
from journeyman.traces.trace import Outcome, Task

T = TypeVar("T")


class NoAnswerError(JourneymanError):
    """A run of a crew ended without an answer."""

    def __init__(self, crew: str, outcome: Outcome) -> None:
        super().__init__(f"crew {crew!r} gave no answer ({outcome.status}): {outcome.error or 'its answer is empty'}")
        self.outcome = outcome


class CrewInput(TypedDict, total=False):
    """`prompt`, or `messages`, of which the last one that a person wrote is the task, whatever stands behind it."""

    messages: Annotated[list[AnyMessage], add_messages]
    prompt: str
    session: str
    """Tasks of the same session are one conversation; the app's thread where it is not given."""


class CrewOutput(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    """With the answer as the last one; its `response_metadata` holds the run's status, and what went wrong."""
    answer: str
    outcome: dict[str, Any]
    """An `Outcome` as JSON values."""


class CrewState(CrewInput, CrewOutput, total=False):
    """All of it, for an app whose state is this."""


class Asking(TypedDict):
    """What a person is asked, as the value of an interrupt.

    `Command(resume=...)` wants the answer to the one question there is, or a mapping from ids of questions to answers.
    An answer is a text, or where yes or no is wanted true, false, `{"approved": true, "reason": "..."}`, or a text that
    begins with yes or no. What is asked about cannot be edited.
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
        if _has_failed(outcome):
            raise NoAnswerError(self.name, outcome)
        ended = {"status": outcome.status} | ({} if outcome.error is None else {"error": outcome.error})
        said = AIMessage(content=outcome.answer, id=outcome.run_id, name=self.name, response_metadata=ended)
        return Command(update={**told, "messages": [said]}, goto=END)

    async def _task(self, state: Mapping[str, Any], config: RunnableConfig) -> tuple[Task, str | None]:
        """The task and its run: one that waited, or a new one, whose id is the same however often this node begins.

        Where that run has failed already the app tries the node again, which takes another run.
        """
        here = config.get("configurable", {})
        thread, waited = here.get("thread_id"), state.get("run_id")
        run_id = waited or _hashed(f"{thread} {here['checkpoint_ns']}")
        known = await self._known(run_id)
        if known is None:
            if waited is not None:
                raise ConfigError(f"run {waited!r} was deleted while it waited: begin it again with a new thread")
            task = Task(id=run_id[:12], prompt=_prompt(state), session=state.get("session") or thread)
            return task, None if self.runs is None else run_id
        task = known.task
        while known is not None and known.outcome is not None and _has_failed(known.outcome) and not known.cancel:
            run_id = _hashed(run_id)
            known = await self._known(run_id)
        return task, run_id

    async def _known(self, run_id: str) -> RunRecord | None:
        return None if self.runs is None else await (await self.runs.open()).get(run_id)

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
                    await interventions.say(runs, run_id, word, question_id=question_id)
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


def _has_failed(outcome: Outcome) -> bool:
    """Whether the run is over and there is no answer that the app could use."""
    return outcome.status not in ("ok", *WAITING) and not outcome.answer


def _hashed(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:32]


def _prompt(state: Mapping[str, Any]) -> str:
    if prompt := state.get("prompt"):
        return _text(HumanMessage(prompt))
    asked = next((message for message in reversed(state.get("messages") or ()) if _is_human(message)), None)
    if asked is None:
        raise ConfigError("a crew needs a task: give the graph `prompt`, or `messages` with one that a person wrote")
    return _text(asked)


def _is_human(message: AnyMessage) -> bool:
    return isinstance(message, HumanMessage) or getattr(message, "role", "") in ("human", "user")


def _text(message: AnyMessage) -> str:
    blocks = [message.content] if isinstance(message.content, str) else message.content
    other = {str(block.get("type")) for block in blocks if isinstance(block, dict) and block.get("type") != "text"}
    if other:
        raise ConfigError(
            f"a crew takes text only, and its task holds {', '.join(sorted(other))}: put into words what that shows"
        )
    if not (text := str(message.text)).strip():
        raise ConfigError("a crew was asked nothing: the last message that a person wrote holds no text")
    return text


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
    if isinstance(said, Mapping) and any("/" in str(key) for key in said):  # As in every question's id.
        return said
    if len(questions) > 1:
        ids = ", ".join(question.id for question in questions)
        raise ConfigError(f"the run asks {len(questions)} questions: give a mapping, from {ids} to answers")
    return {questions[0].id: said}
