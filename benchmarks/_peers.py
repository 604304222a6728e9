# mypy: ignore-errors
# (The peers are not among our dependencies: nothing here can be checked against them.)
"""The work of `_delegation` in other runtimes, each by its own extension point for models. Run as a process.

The program plans, starts the workers at once and joins, as each peer's own guide does it in code: that is the least
work for them. Their telemetry is off.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

from _delegation import FINDER, PLANNER, Work, goals, join, lookup, prompt, serve
from pydantic import BaseModel


class Plan(BaseModel):
    goals: list[str]


def plan_text(prompt: str) -> str:
    return json.dumps({"goals": goals(prompt)})


def openai_agents() -> Work:
    from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

    from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage, function_tool

    class InstantModel(Model):
        async def get_response(self, system_instructions: str | None, input: Any, *_: Any, **__: Any) -> Any:
            return ModelResponse(output=[self._reply(system_instructions, input)], usage=Usage(), response_id=None)

        def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
            raise NotImplementedError

        def _reply(self, instructions: str | None, items: Any) -> Any:
            last = {"content": items} if isinstance(items, str) else items[-1]
            if instructions == PLANNER:
                return self._said(plan_text(last["content"]))
            if last.get("type") == "function_call_output":
                return self._said(last["output"])
            query = json.dumps({"query": last["content"]})
            return ResponseFunctionToolCall(
                call_id=uuid4().hex, name="lookup", arguments=query, type="function_call", status="completed"
            )

        def _said(self, text: str) -> Any:
            content = [ResponseOutputText(text=text, type="output_text", annotations=[])]
            return ResponseOutputMessage(
                id=uuid4().hex, content=content, role="assistant", status="completed", type="message"
            )

    model, config = InstantModel(), RunConfig(tracing_disabled=True)
    planner = Agent(name="planner", instructions=PLANNER, model=model, output_type=Plan)
    finder = Agent(name="finder", instructions=FINDER, model=model, tools=[function_tool(lookup)])

    async def find(goal: str) -> str:
        return str((await Runner.run(finder, goal, run_config=config)).final_output)

    async def work(workers: int) -> str:
        plan = (await Runner.run(planner, prompt(workers), run_config=config)).final_output
        return join(await asyncio.gather(*map(find, plan.goals)))

    return work


def pydantic_ai() -> Work:
    from pydantic_ai import Agent, PromptedOutput
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
    from pydantic_ai.models.function import FunctionModel

    async def plan_model(messages: Any, info: Any) -> Any:
        return ModelResponse(parts=[TextPart(plan_text(messages[-1].parts[-1].content))])

    async def find_model(messages: Any, info: Any) -> Any:
        last = messages[-1].parts[-1]
        if isinstance(last, ToolReturnPart):
            return ModelResponse(parts=[TextPart(last.content)])
        return ModelResponse(parts=[ToolCallPart("lookup", {"query": last.content})])

    planner = Agent(FunctionModel(plan_model), instructions=PLANNER, output_type=PromptedOutput(Plan))
    finder = Agent(FunctionModel(find_model), instructions=FINDER, tools=[lookup])

    async def find(goal: str) -> str:
        return str((await finder.run(goal)).output)

    async def work(workers: int) -> str:
        plan = (await planner.run(prompt(workers))).output
        return join(await asyncio.gather(*map(find, plan.goals)))

    return work


def strands() -> Work:
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
            (content,) = messages[-1]["content"]
            yield {"messageStart": {"role": "assistant"}}
            if system_prompt == PLANNER or "toolResult" in content:
                said = plan_text(content["text"]) if "text" in content else content["toolResult"]["content"][0]["text"]
                yield {"contentBlockStart": {"start": {}}}
                yield {"contentBlockDelta": {"delta": {"text": said}}}
                yield {"contentBlockStop": {}}
                yield {"messageStop": {"stopReason": "end_turn"}}
            else:
                use = {"name": "lookup", "toolUseId": uuid4().hex}
                yield {"contentBlockStart": {"start": {"toolUse": use}}}
                yield {"contentBlockDelta": {"delta": {"toolUse": {"input": json.dumps({"query": content["text"]})}}}}
                yield {"contentBlockStop": {}}
                yield {"messageStop": {"stopReason": "tool_use"}}

    model, finding = InstantModel(), tool(lookup)

    def agent(instructions: str, tools: list[Any]) -> Any:
        # It keeps its conversation and serves one call at a time: a new one for each assignment.
        return Agent(model=model, system_prompt=instructions, tools=tools, callback_handler=None)

    async def ask(instructions: str, tools: list[Any], said: str) -> str:
        result = await agent(instructions, tools).invoke_async(said)
        return str(result.message["content"][0]["text"])

    async def work(workers: int) -> str:
        plan = Plan.model_validate_json(await ask(PLANNER, [], prompt(workers)))
        return join(await asyncio.gather(*(ask(FINDER, [finding], goal) for goal in plan.goals)))

    return work


def google_adk() -> Work:
    from google.adk.agents import LlmAgent
    from google.adk.models import BaseLlm, LlmResponse
    from google.adk.runners import InMemoryRunner
    from google.genai import types

    class InstantModel(BaseLlm):
        async def generate_content_async(self, llm_request: Any, stream: bool = False) -> AsyncIterator[Any]:
            part = llm_request.contents[-1].parts[-1]
            if PLANNER in str(llm_request.config.system_instruction):
                reply = types.Part(text=plan_text(part.text))
            elif part.function_response is not None:
                reply = types.Part(text=part.function_response.response["result"])
            else:
                reply = types.Part(function_call=types.FunctionCall(name="lookup", args={"query": part.text}))
            yield LlmResponse(content=types.Content(role="model", parts=[reply]))

    model = InstantModel(model="instant")
    planner = InMemoryRunner(LlmAgent(name="planner", model=model, instruction=PLANNER), app_name="moons")
    finder = InMemoryRunner(LlmAgent(name="finder", model=model, instruction=FINDER, tools=[lookup]), app_name="moons")

    async def ask(runner: Any, said: str) -> str:
        session = await runner.session_service.create_session(app_name="moons", user_id="user")
        message = types.Content(role="user", parts=[types.Part(text=said)])
        text = ""
        async for event in runner.run_async(user_id="user", session_id=session.id, new_message=message):
            if event.is_final_response():
                text = event.content.parts[0].text
        return text

    async def work(workers: int) -> str:
        plan = Plan.model_validate_json(await ask(planner, prompt(workers)))
        return join(await asyncio.gather(*(ask(finder, goal) for goal in plan.goals)))

    return work


def agent_framework() -> Work:
    from agent_framework import (
        Agent,
        BaseChatClient,
        ChatMiddlewareLayer,
        ChatResponse,
        Content,
        FunctionInvocationLayer,
        Message,
        tool,
    )

    class InstantClient(FunctionInvocationLayer, ChatMiddlewareLayer, BaseChatClient):
        def _inner_get_response(self, *, messages: Any, stream: bool, options: Any, **_: Any) -> Any:
            return self._get(messages, options)

        async def _get(self, messages: Any, options: Any) -> Any:
            last = messages[-1]
            if PLANNER in str(options.get("instructions")) or PLANNER in messages[0].text:
                content = Content.from_text(plan_text(last.text))
            elif last.role == "tool":
                content = Content.from_text(str(last.contents[0].result))
            else:
                query = json.dumps({"query": last.text})
                content = Content.from_function_call(call_id=uuid4().hex, name="lookup", arguments=query)
            return ChatResponse(messages=[Message(role="assistant", contents=[content])])

    client = InstantClient()
    planner = Agent(client, name="planner", instructions=PLANNER)
    finder = Agent(client, name="finder", instructions=FINDER, tools=[tool(lookup, approval_mode="never_require")])

    async def find(goal: str) -> str:
        return str((await finder.run(goal)).text)

    async def work(workers: int) -> str:
        plan = Plan.model_validate_json((await planner.run(prompt(workers))).text)
        return join(await asyncio.gather(*map(find, plan.goals)))

    return work


PEERS = {
    "openai-agents": openai_agents,
    "pydantic-ai-slim": pydantic_ai,
    "strands-agents": strands,
    "google-adk": google_adk,
    "agent-framework-core": agent_framework,
}
"""By the name of the distribution."""

if __name__ == "__main__":
    serve(PEERS[sys.argv[1]]())
