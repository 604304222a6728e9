"""The crew as a LangGraph graph."""

import pytest
from langchain_core.messages import HumanMessage

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.worker import write_answer
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.scripted import ScriptedModel
from journeyman.runtime.subgraph import CrewState
from journeyman.traces.errors import ConfigError

CREW = Crew(name="desk", orchestrator=None, workers=(Agent(name="clerk", instructions="Answer."),))


def runtime() -> Runtime:
    return Runtime(CREW, model=ScriptedModel(lambda request: write_answer(f"re: {request.messages[-1].content}")))


async def test_a_crew_runs_as_a_graph_from_a_prompt_or_from_messages() -> None:
    graph = runtime().as_graph()
    assert (await graph.ainvoke({"prompt": "hello"}))["answer"] == "re: hello"
    state = await graph.ainvoke({"messages": [HumanMessage("hello")]})
    assert state["messages"][-1].content == "re: hello" and state["outcome"]["status"] == "ok"


async def test_a_crew_is_a_node_of_another_graph() -> None:
    from langgraph.graph import END, START, StateGraph

    outer = StateGraph(CrewState)
    outer.add_node("desk", runtime().as_graph())
    outer.add_edge(START, "desk")
    outer.add_edge("desk", END)
    assert (await outer.compile().ainvoke({"prompt": "hello"}))["answer"] == "re: hello"


async def test_the_events_of_a_run_are_the_graphs_custom_stream() -> None:
    stream = runtime().as_graph().astream({"prompt": "hello"}, stream_mode="custom")
    kinds = [getattr(event, "kind", None) async for event in stream]
    assert kinds[0] == "plan" and kinds[-1] == "ended"


async def test_without_a_question_there_is_an_error_that_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="prompt"):
        await runtime().as_graph().ainvoke({"messages": []})
