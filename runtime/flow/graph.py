"""The LangGraph graph: plan → worker x n → gather → worker x n → gather … to the answer.

Each step of LangGraph's costs a checkpoint, so that what only looks at what is there belongs to the step before it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphBubbleUp
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime as Context
from langgraph.types import Command, Send, interrupt

from journeyman.agents.agent import Crew
from journeyman.runtime.flow import nodes
from journeyman.runtime.flow.state import State, Work
from journeyman.runtime.run.endings import AskedError, CancelledRunError
from journeyman.runtime.run.run import Run


def compile_graph(
    checkpointer: BaseCheckpointSaver[Any] | None = None,
) -> CompiledStateGraph[State, Run, State, State]:
    """The graph of every crew; the crew itself comes in the run's context."""
    graph = StateGraph(State, context_schema=Run)
    graph.add_node("plan", _plan, destinations=("worker", "gather", END))
    graph.add_node("worker", _work, input_schema=Work)
    graph.add_node("gather", _gather, destinations=("worker", "gather", END))
    graph.add_edge(START, "plan")
    graph.add_edge("worker", "gather")
    return graph.compile(checkpointer=checkpointer)


def most_steps(crew: Crew) -> int:
    """More of LangGraph's steps than any run of the crew takes, though each of its assignments wait for another."""
    orchestrator = crew.orchestrator
    assignments = 1 if orchestrator is None else orchestrator.assignments * (1 + orchestrator.replans)
    return 8 + 4 * assignments


class _CancelledGraphError(CancelledRunError, GraphBubbleUp):
    """The same in a graph, which then lets the work beside it end."""


async def _plan(state: State, runtime: Context[Run]) -> Command[Any]:
    with _halting():
        return _command(await nodes.plan(runtime.context))


async def _work(state: Work, runtime: Context[Run]) -> State:
    with _halting():
        return await nodes.work(runtime.context, state)


async def _gather(state: State, runtime: Context[Run]) -> Command[Any]:
    with _halting():
        return _command(await nodes.gather(runtime.context, state))


def _command(decided: nodes.Decided) -> Command[Any]:
    if decided.ended:
        return Command(update=decided.update, goto=END)
    goto: Any = [Send("worker", one) for one in decided.work] or "gather"
    return Command(update=decided.update, goto=goto)


@contextmanager
def _halting() -> Iterator[None]:
    """Says to LangGraph why a node stops without having failed."""
    try:
        yield
    except AskedError as asked:
        # As JSON text: a checkpoint takes no whole number beyond 64 bits, which an argument may be.
        interrupt([question.model_dump_json() for question in asked.questions])
    except CancelledRunError:
        raise _CancelledGraphError from None
