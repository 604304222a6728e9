"""A crew as a LangGraph graph: for an app that has a graph of its own and wants the crew as one of its nodes."""

from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph

from journeyman.runtime.events import Ended, Event
from journeyman.traces.errors import ConfigError


class CrewState(TypedDict, total=False):
    """What goes in: `prompt`, or `messages` whose last one is the user's. The rest comes out."""

    messages: Annotated[list[AnyMessage], add_messages]
    prompt: str
    session: str
    answer: str
    outcome: dict[str, Any]
    """An `Outcome` as JSON values."""


def crew_graph(
    name: str, stream: Callable[[str, str | None], AsyncGenerator[Event, None]]
) -> CompiledStateGraph[CrewState, None, CrewState, CrewState]:
    """One node, `name`, which runs the crew; `stream_mode="custom"` shows the run's events as they happen."""

    async def work(state: CrewState, config: RunnableConfig) -> CrewState:
        session = state.get("session") or config.get("configurable", {}).get("thread_id")
        write = get_stream_writer()
        async for event in stream(_prompt(state), session):
            write(event)
            if isinstance(event, Ended):
                outcome = event.outcome
                return {
                    "messages": [AIMessage(content=outcome.answer, id=outcome.run_id, name=name)],
                    "answer": outcome.answer,
                    "outcome": outcome.model_dump(mode="json"),
                }
        raise AssertionError("a run ends with `Ended`")

    graph = StateGraph(CrewState)
    graph.add_node(name, work)
    graph.add_edge(START, name)
    graph.add_edge(name, END)
    return graph.compile()


def _prompt(state: CrewState) -> str:
    if prompt := state.get("prompt"):
        return prompt
    messages = state.get("messages") or []
    if not messages or not isinstance(messages[-1], HumanMessage):
        raise ConfigError("a crew needs `prompt`, or `messages` whose last one is the user's")
    return str(messages[-1].text)
