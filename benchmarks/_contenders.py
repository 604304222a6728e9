"""The work of `_delegation` in this runtime, with and without its record, and in raw LangGraph. Run as a process."""

import json
import sys
import tempfile
from collections.abc import Sequence
from operator import add
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import uuid4

from _delegation import FINDER, PLANNER, Work, goals, join, lookup, prompt, serve


def ours(tracer: Any = None) -> Work:
    from journeyman.agents.agent import Agent, Crew, Limits
    from journeyman.agents.model import ModelRequest
    from journeyman.agents.worker import write_answer, write_call
    from journeyman.runtime.models.scripted import ScriptedModel
    from journeyman.runtime.runtime import Runtime
    from journeyman.tools.tool import Tool

    def reply(request: ModelRequest) -> str:
        said = request.messages[-1].content
        if request.messages[0].content == PLANNER:
            return json.dumps({"assignments": [{"worker": "finder", "goal": goal} for goal in goals(said)]})
        if said.startswith("lookup: "):
            return write_answer(said.removeprefix("lookup: "))
        return write_call("lookup", {"query": said})

    crew = Crew(
        name="moons",
        orchestrator=Agent(name="planner", instructions=PLANNER, assignments=32, limits=Limits(tokens=4096)),
        workers=(Agent(name="finder", instructions=FINDER, tools=("lookup",)),),
        tools={"lookup": Tool(lookup)},
    )
    model = ScriptedModel(reply)
    runtime = Runtime(crew, model=model, tracer=tracer, concurrency=64)

    async def work(workers: int) -> str:
        model.requests.clear()
        return (await runtime.run(prompt(workers))).answer

    return work


def ours_traced() -> Work:
    from journeyman.traces.capture.log import SpanLog
    from journeyman.traces.capture.tracer import Tracer

    return ours(Tracer(SpanLog(Path(tempfile.mkdtemp(dir=sys.argv[2])))))


def _chat_model() -> Any:
    """A langchain chat model, which is where models enter LangGraph; it answers at once."""
    from langchain_core.language_models.chat_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
    from langchain_core.outputs import ChatGeneration, ChatResult

    class InstantModel(BaseChatModel):
        @property
        def _llm_type(self) -> str:
            return "instant"

        def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
            return ChatResult(generations=[ChatGeneration(message=self._reply(messages))])

        async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
            return self._generate(messages)

        def _reply(self, messages: Sequence[BaseMessage]) -> AIMessage:
            said = str(messages[-1].content)
            if messages[0].content == PLANNER:
                return AIMessage(json.dumps({"goals": goals(said)}))
            if isinstance(messages[-1], ToolMessage):
                return AIMessage(said)
            call = {"name": "lookup", "args": {"query": said}, "id": uuid4().hex, "type": "tool_call"}
            return AIMessage("", tool_calls=[call])

    return InstantModel()


class State(TypedDict, total=False):
    prompt: str
    goals: list[str]
    findings: Annotated[list[tuple[int, str]], add]
    answer: str


class Errand(TypedDict):
    number: int
    goal: str


def _langgraph(find: Any) -> Work:
    """Plan → worker x n → answer, with `find` for the worker's node."""
    from langchain_core.messages import HumanMessage, SystemMessage
    from langgraph.graph import END, START, StateGraph
    from langgraph.types import Send
    from pydantic import BaseModel

    class Plan(BaseModel):
        goals: list[str]

    model = _chat_model()

    async def plan(state: State) -> State:
        reply = await model.ainvoke([SystemMessage(PLANNER), HumanMessage(state["prompt"])])
        return {"goals": Plan.model_validate_json(reply.content).goals}

    async def spread(state: State) -> list[Send]:
        return [Send("find", Errand(number=number, goal=goal)) for number, goal in enumerate(state["goals"])]

    async def answer(state: State) -> State:
        return {"answer": join([finding for _, finding in sorted(state["findings"])])}

    graph = StateGraph(State)
    graph.add_node("plan", plan)
    graph.add_node("find", find, input_schema=Errand)
    graph.add_node("answer", answer)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", spread, ["find"])
    graph.add_edge("find", "answer")
    graph.add_edge("answer", END)
    compiled = graph.compile()

    async def work(workers: int) -> str:
        return str((await compiled.ainvoke({"prompt": prompt(workers)}))["answer"])

    return work


def langgraph() -> Work:
    """The leanest that its own parts allow: a worker is one node with a loop in it."""
    from langchain_core.messages import HumanMessage, SystemMessage
    from langchain_core.tools import StructuredTool

    model = _chat_model()
    tools = {"lookup": StructuredTool.from_function(coroutine=lookup, name="lookup")}

    async def find(errand: Errand) -> State:
        messages: list[Any] = [SystemMessage(FINDER), HumanMessage(errand["goal"])]
        while True:
            reply = await model.ainvoke(messages)
            if not reply.tool_calls:
                return {"findings": [(errand["number"], reply.content)]}
            messages.append(reply)
            for call in reply.tool_calls:
                messages.append(await tools[call["name"]].ainvoke(call))

    return _langgraph(find)


def langgraph_agents() -> Work:
    """As its guides write it: each worker a graph of its own, model ⇄ tools."""
    from langchain_core.messages import HumanMessage, SystemMessage
    from langchain_core.tools import StructuredTool
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    model = _chat_model()

    async def call_model(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke([SystemMessage(FINDER), *state["messages"]])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", call_model)
    graph.add_node("tools", ToolNode([StructuredTool.from_function(coroutine=lookup, name="lookup")]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    worker = graph.compile()

    async def find(errand: Errand) -> State:
        state = await worker.ainvoke({"messages": [HumanMessage(errand["goal"])]})
        return {"findings": [(errand["number"], state["messages"][-1].content)]}

    return _langgraph(find)


def langgraph_bare() -> Work:
    """LangGraph for the graph only: model and tool are plain functions, nothing is validated."""

    async def model(messages: list[dict[str, Any]]) -> dict[str, Any]:
        if messages[-1]["role"] == "tool":
            return {"role": "assistant", "content": messages[-1]["content"]}
        return {"role": "assistant", "call": json.dumps({"query": messages[-1]["content"]})}

    async def find(errand: Errand) -> State:
        messages = [{"role": "system", "content": FINDER}, {"role": "user", "content": errand["goal"]}]
        while "call" in (reply := await model(messages)):
            messages += [reply, {"role": "tool", "content": await lookup(**json.loads(reply["call"]))}]
        return {"findings": [(errand["number"], reply["content"])]}

    return _langgraph(find)


CONTENDERS = {
    "ours": ours_traced,
    "ours_untraced": ours,
    "langgraph": langgraph,
    "langgraph_agents": langgraph_agents,
    "langgraph_bare": langgraph_bare,
}

if __name__ == "__main__":
    serve(CONTENDERS[sys.argv[1]]())
