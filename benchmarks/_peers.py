# mypy: ignore-errors
# (The peers are not among our dependencies: nothing here can be checked against them.)
"""The work of `_delegation` in other runtimes, each by its own extension point for models. Run as a process.

In two ways: an orchestrator that calls worker agents as its tools, all at once, which is how they offer delegation; and
`in code`, where the program asks for a plan, runs an agent for each goal and joins, so that the runtime runs single
agents only. Their telemetry is off, or writes to a file (`_peer_records.py`).
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

from _delegation import FINDER, PLANNER, Work, goals, join, lookup, prompt, serve
from _peer_records import record_to, switch_off
from pydantic import BaseModel

DELEGATOR = "Give every place to find, then join what it says."

Ask = Callable[[str], Awaitable[str]]
"""An agent: what it is told, and what it says."""


class Plan(BaseModel):
    goals: list[str]


def plan_text(prompt: str) -> str:
    return json.dumps({"goals": goals(prompt)})


def either(delegates: bool, delegator: Ask, planner: Ask, finder: Ask) -> Work:
    async def work(workers: int) -> str:
        if delegates:
            return await delegator(prompt(workers))
        plan = Plan.model_validate_json(await planner(prompt(workers)))
        return join(await asyncio.gather(*map(finder, plan.goals)))

    return work


def openai_agents(delegates: bool) -> Work:
    from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

    from agents import Agent, Model, ModelResponse, Runner, Usage, function_tool, generation_span

    class InstantModel(Model):
        async def get_response(self, system_instructions: str | None, input: Any, *_: Any, **__: Any) -> Any:
            with generation_span(input=_listed(input), model="instant") as span:
                output = self._reply(system_instructions, _listed(input))
                span.span_data.output = [item.model_dump() for item in output] if span.span_id != "no-op" else None
            return ModelResponse(output=output, usage=Usage(), response_id=None)

        def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
            raise NotImplementedError

        def _reply(self, instructions: str | None, items: Any) -> list[Any]:
            asked = items[0]["content"]
            if instructions == PLANNER:
                return [_said(plan_text(asked))]
            if results := [item["output"] for item in items if item.get("type") == "function_call_output"]:
                return [_said(join(results))]
            if instructions == DELEGATOR:
                return [_call("find", {"input": goal}) for goal in goals(asked)]
            return [_call("lookup", {"query": asked})]

    def _listed(items: Any) -> list[Any]:
        return [{"role": "user", "content": items}] if isinstance(items, str) else list(items)

    def _call(name: str, arguments: dict[str, str]) -> Any:
        return ResponseFunctionToolCall(
            call_id=uuid4().hex, name=name, arguments=json.dumps(arguments), type="function_call", status="completed"
        )

    def _said(text: str) -> Any:
        content = [ResponseOutputText(text=text, type="output_text", annotations=[])]
        return ResponseOutputMessage(
            id=uuid4().hex, content=content, role="assistant", status="completed", type="message"
        )

    model = InstantModel()
    finder = Agent(name="finder", instructions=FINDER, model=model, tools=[function_tool(lookup)])
    find = finder.as_tool("find", "Looks a place up.")
    planner = Agent(name="planner", instructions=PLANNER, model=model)
    delegator = Agent(name="delegator", instructions=DELEGATOR, model=model, tools=[find])

    def asking(agent: Any) -> Ask:
        async def ask(said: str) -> str:
            return str((await Runner.run(agent, said)).final_output)

        return ask

    return either(delegates, asking(delegator), asking(planner), asking(finder))


def pydantic_ai(delegates: bool) -> Work:
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
    from pydantic_ai.models.function import FunctionModel

    def model(opening: Callable[[str], list[Any]]) -> Any:
        async def reply(messages: Any, info: Any) -> Any:
            parts = messages[-1].parts
            if results := [part.content for part in parts if isinstance(part, ToolReturnPart)]:
                return ModelResponse(parts=[TextPart(join(results))])
            return ModelResponse(parts=opening(parts[-1].content))

        return FunctionModel(reply)

    planner = Agent(model(lambda said: [TextPart(plan_text(said))]), instructions=PLANNER)
    finder = Agent(model(lambda said: [ToolCallPart("lookup", {"query": said})]), instructions=FINDER, tools=[lookup])

    def asking(agent: Any) -> Ask:
        async def ask(said: str) -> str:
            return str((await agent.run(said)).output)

        return ask

    async def find(place: str) -> str:
        """Looks a place up."""
        return await asking(finder)(place)

    delegator = Agent(
        model(lambda said: [ToolCallPart("find", {"place": goal}) for goal in goals(said)]),
        instructions=DELEGATOR,
        tools=[find],
    )
    return either(delegates, asking(delegator), asking(planner), asking(finder))


def strands(delegates: bool) -> Work:
    from strands import Agent, tool
    from strands.models import Model

    class InstantModel(Model):
        def get_config(self) -> Any:
            return {}

        def update_config(self, **_: Any) -> None:
            pass

        def structured_output(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError

        async def stream(
            self, messages: Any, tool_specs: Any = None, system_prompt: str | None = None, **_: Any
        ) -> AsyncIterator[Any]:
            said, calls = _reply(messages[-1]["content"], system_prompt)
            yield {"messageStart": {"role": "assistant"}}
            if said:
                yield {"contentBlockStart": {"start": {}}}
                yield {"contentBlockDelta": {"delta": {"text": said}}}
                yield {"contentBlockStop": {}}
            for name, arguments in calls:
                yield {"contentBlockStart": {"start": {"toolUse": {"name": name, "toolUseId": uuid4().hex}}}}
                yield {"contentBlockDelta": {"delta": {"toolUse": {"input": json.dumps(arguments)}}}}
                yield {"contentBlockStop": {}}
            yield {"messageStop": {"stopReason": "tool_use" if calls else "end_turn"}}

    def _reply(content: Any, instructions: str | None) -> tuple[str, list[tuple[str, dict[str, str]]]]:
        if results := [part["toolResult"]["content"][0]["text"] for part in content if "toolResult" in part]:
            return join(results), []
        said = content[0]["text"]
        if instructions == PLANNER:
            return plan_text(said), []
        if instructions == DELEGATOR:
            return "", [("find", {"place": goal}) for goal in goals(said)]
        return "", [("lookup", {"query": said})]

    model, finding = InstantModel(), tool(lookup)

    def asking(instructions: str, tools: list[Any]) -> Ask:
        async def ask(said: str) -> str:
            # An agent keeps its conversation and serves one call at a time: a new one for each piece of work.
            agent = Agent(model=model, system_prompt=instructions, tools=tools, callback_handler=None)
            return str((await agent.invoke_async(said)).message["content"][0]["text"])

        return ask

    finder = asking(FINDER, [finding])

    @tool
    async def find(place: str) -> str:
        """Looks a place up."""
        return await finder(place)

    return either(delegates, asking(DELEGATOR, [find]), asking(PLANNER, []), finder)


def google_adk(delegates: bool) -> Work:
    from google.adk.agents import LlmAgent
    from google.adk.models import BaseLlm, LlmResponse
    from google.adk.runners import InMemoryRunner
    from google.adk.tools.agent_tool import AgentTool
    from google.genai import types

    class InstantModel(BaseLlm):
        async def generate_content_async(self, llm_request: Any, stream: bool = False) -> AsyncIterator[Any]:
            parts = llm_request.contents[-1].parts
            parts = _reply(parts, str(llm_request.config.system_instruction))
            yield LlmResponse(content=types.Content(role="model", parts=parts))

    def _reply(parts: Any, instructions: str) -> list[Any]:
        if results := [part.function_response.response["result"] for part in parts if part.function_response]:
            return [types.Part(text=join(results))]
        said = parts[-1].text
        if PLANNER in instructions:
            return [types.Part(text=plan_text(said))]
        if DELEGATOR in instructions:
            return [_call("finder", {"request": goal}) for goal in goals(said)]
        return [_call("lookup", {"query": said})]

    def _call(name: str, arguments: dict[str, str]) -> Any:
        return types.Part(function_call=types.FunctionCall(name=name, args=arguments))

    model = InstantModel(model="instant")
    finder = LlmAgent(name="finder", model=model, instruction=FINDER, tools=[lookup])
    planner = LlmAgent(name="planner", model=model, instruction=PLANNER)
    delegator = LlmAgent(name="delegator", model=model, instruction=DELEGATOR, tools=[AgentTool(finder)])

    def asking(agent: Any) -> Ask:
        runner = InMemoryRunner(agent, app_name="moons")

        async def ask(said: str) -> str:
            session = await runner.session_service.create_session(app_name="moons", user_id="user")
            message = types.Content(role="user", parts=[types.Part(text=said)])
            text = ""
            async for event in runner.run_async(user_id="user", session_id=session.id, new_message=message):
                if event.is_final_response():
                    text = event.content.parts[0].text
            await runner.session_service.delete_session(app_name="moons", user_id="user", session_id=session.id)
            return text

        return ask

    return either(delegates, asking(delegator), asking(planner), asking(finder))


def agent_framework(delegates: bool) -> Work:
    from agent_framework import (
        Agent,
        BaseChatClient,
        ChatMiddlewareLayer,
        ChatResponse,
        ChatResponseUpdate,
        Content,
        FunctionInvocationLayer,
        Message,
        ResponseStream,
        tool,
    )
    from agent_framework.observability import ChatTelemetryLayer

    class InstantClient(FunctionInvocationLayer, ChatMiddlewareLayer, ChatTelemetryLayer, BaseChatClient):
        def _inner_get_response(self, *, messages: Any, stream: bool, options: Any, **_: Any) -> Any:
            contents = _reply(messages, str(options.get("instructions")))
            return (
                ResponseStream(_pieces(contents), finalizer=ChatResponse.from_updates) if stream else _whole(contents)
            )

    async def _pieces(contents: list[Any]) -> AsyncIterator[Any]:
        yield ChatResponseUpdate(contents=contents, role="assistant", finish_reason="stop")

    async def _whole(contents: list[Any]) -> Any:
        return ChatResponse(messages=[Message(role="assistant", contents=contents)])

    def _reply(messages: Any, instructions: str) -> list[Any]:
        if results := [str(part.result) for one in messages if one.role == "tool" for part in one.contents]:
            return [Content.from_text(join(results))]
        said = messages[-1].text
        if PLANNER in instructions:
            return [Content.from_text(plan_text(said))]
        if DELEGATOR in instructions:
            return [_call("find", {"task": goal}) for goal in goals(said)]
        return [_call("lookup", {"query": said})]

    def _call(name: str, arguments: dict[str, str]) -> Any:
        return Content.from_function_call(call_id=uuid4().hex, name=name, arguments=json.dumps(arguments))

    client = InstantClient()
    finder = Agent(client, name="finder", instructions=FINDER, tools=[tool(lookup, approval_mode="never_require")])
    planner = Agent(client, name="planner", instructions=PLANNER)
    delegator = Agent(client, name="delegator", instructions=DELEGATOR, tools=[finder.as_tool(name="find")])

    def asking(agent: Any) -> Ask:
        async def ask(said: str) -> str:
            return str((await agent.run(said)).text)

        return ask

    return either(delegates, asking(delegator), asking(planner), asking(finder))


PEERS = {
    "openai-agents": openai_agents,
    "pydantic-ai-slim": pydantic_ai,
    "strands-agents": strands,
    "google-adk": google_adk,
    "agent-framework-core": agent_framework,
}
"""By the name of the distribution."""


def main(peer: str, way: str, record: str | None = None) -> None:
    with ExitStack() as stack:
        if record is None:
            switch_off(peer)
        else:
            record_to(peer, stack.enter_context(Path(record).open("w")))
        serve(PEERS[peer](delegates=way == "delegates"))


if __name__ == "__main__":
    main(*sys.argv[1:])
