"""One run: a task on its way through the crew, with its spans, its counts and the policies it started with."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, TypeVar

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.calls import Used
from journeyman.agents.model import ModelReply, ModelRequest, ModelTable
from journeyman.agents.reply import TruncatedReplyError
from journeyman.runtime.events import Event, ToolUsed
from journeyman.runtime.policies import PolicyTable
from journeyman.tools.call import call_tool
from journeyman.tools.tool import Tool
from journeyman.traces import attributes as a
from journeyman.traces.messages import Message, ToolCall, Usage, prompt_attributes, reply_attribute, write_result
from journeyman.traces.trace import Task
from journeyman.traces.tracer import AttributeValue, Span, Tracer

T = TypeVar("T")


@dataclass(kw_only=True)
class Run:
    """What the graph's nodes share while one task is on its way."""

    task: Task
    crew: Crew
    models: ModelTable
    tracer: Tracer
    policies: PolicyTable
    gate: asyncio.Semaphore
    """One limit on model calls in flight for the whole runtime: LangGraph's is per graph."""
    base_digest: str | None
    """Of the base model that the server has; None where it is not known."""
    seed: int
    temperature: float
    emit: Callable[[Event], None]
    root: Span
    """The span under which agents work: the orchestrator's, or the workflow's in a crew without one."""
    usage: Usage = field(default_factory=Usage)
    model_calls: int = 0
    tool_calls: int = 0

    @property
    def attributes(self) -> dict[str, AttributeValue | None]:
        """What every span of the run says, so that what a crash leaves can still be told apart, and deleted."""
        return {
            a.TASK_ID: self.task.id,
            a.TASK_FAMILY: self.task.family,
            a.CONVERSATION_ID: self.task.session,
            a.USER_ID: self.task.user,
        }

    def calls(self, agent: Agent, parent: Span, assignment: str | None = None) -> "RecordedCalls":
        return RecordedCalls(self, agent, parent, assignment)


class RecordedCalls:
    """`agents.calls.Calls` in earnest: every model call and tool call is a span under `parent`."""

    def __init__(self, run: Run, agent: Agent, parent: Span, assignment: str | None) -> None:
        self._run = run
        self._agent = agent
        self._parent = parent
        self._asked_by = parent.span_id
        self._attributes = {**run.attributes, a.AGENT_NAME: agent.name, a.ASSIGNMENT_ID: assignment}
        self._tools = _definitions([run.crew.tools[name] for name in agent.tools])
        self.policy = run.policies.policy(agent)

    async def ask(
        self,
        messages: tuple[Message, ...],
        schema: dict[str, Any] | None,
        read: Callable[[ModelReply], T],
        tools: Sequence[Tool] = (),
    ) -> T:
        run = self._run
        model = run.models[self.policy]
        request = ModelRequest(
            policy=self.policy,
            messages=messages,
            json_schema=schema,
            max_tokens=self._agent.limits.tokens,
            temperature=run.temperature,
            seed=run.seed,
            timeout_s=self._agent.limits.seconds,
        )
        attributes: dict[str, AttributeValue | None] = {
            a.OPERATION: "chat",
            **self._attributes,
            a.PROVIDER: model.provider,
            a.OUTPUT_TYPE: "json",
            a.REQUEST_MODEL: self.policy,
            a.REQUEST_MAX_TOKENS: request.max_tokens,
            a.REQUEST_TEMPERATURE: request.temperature,
            a.REQUEST_SEED: request.seed,
            a.ADAPTER_DIGEST: run.policies.digests.get(self.policy),
            a.BASE_DIGEST: None if model.demonstrates else run.base_digest,
            a.DEMONSTRATION: model.demonstrates or None,
            a.PROMPT_DIGEST: _digest(messages),
            a.TOOL_DEFINITIONS: self._tools,
        }
        async with run.gate:
            with run.tracer.span(
                f"chat {self.policy}", parent=self._parent, kind="client", attributes=attributes
            ) as span:
                self._asked_by = span.span_id
                span.set(prompt_attributes(messages))
                run.model_calls += 1
                # What the conventions want where no reply comes; the reply's own reason replaces it.
                span.set({a.FINISH_REASONS: ["error"]})
                reply = await model.complete(request.model_copy(update={"traceparent": span.traceparent}))
                run.usage += reply.usage
                _record_reply(span, reply)
                if reply.finish_reason == "length":
                    raise TruncatedReplyError(f"a reply was cut off at {request.max_tokens} tokens")
                return read(reply)

    async def use(self, wanted: Sequence[ToolCall]) -> list[Used]:
        return list(await asyncio.gather(*(self._use(call.name, call.arguments) for call in wanted)))

    async def _use(self, tool: str, arguments: dict[str, Any]) -> Used:
        run = self._run
        attributes: dict[str, AttributeValue | None] = {
            a.OPERATION: "execute_tool",
            **self._attributes,
            a.TOOL_NAME: tool,
            a.TOOL_TYPE: "function",
            a.TOOL_DESCRIPTION: run.crew.tools[tool].description or None,
            a.TOOL_CALL_ID: self._asked_by,
            a.TOOL_CALL_ARGUMENTS: json.dumps(arguments, ensure_ascii=False),
        }
        with run.tracer.span(f"execute_tool {tool}", parent=self._parent, attributes=attributes) as span:
            run.tool_calls += 1
            result = await call_tool(run.crew.tools[tool], arguments)
            span.set({a.TOOL_STATUS: result.status})
            if result.status == "ok":
                span.set({a.TOOL_CALL_RESULT: write_result(result.content)})
            else:
                span.fail(result.status, result.content)
        run.emit(ToolUsed(agent=self._agent.name, tool=tool, status=result.status))
        return Used(result=result, span_id=span.span_id)


def _record_reply(span: Span, reply: ModelReply) -> None:
    span.set(
        {
            a.RESPONSE_ID: reply.id,
            a.RESPONSE_MODEL: reply.model,
            a.FINISH_REASONS: [reply.finish_reason],
            a.INPUT_TOKENS: reply.usage.input_tokens,
            a.OUTPUT_TOKENS: reply.usage.output_tokens,
            a.CACHED_TOKENS: reply.usage.cached_tokens,
        }
    )
    said = Message(role="assistant", content=reply.content)
    span.set({a.OUTPUT_MESSAGES: reply_attribute(said, reply.finish_reason)})
    for name, values in (
        (a.PROMPT_TOKEN_IDS, reply.prompt_token_ids),
        (a.TOKEN_IDS, reply.token_ids),
        (a.LOGPROBS, reply.logprobs),
    ):
        if values is not None:
            span.set_json(name, values)


def _definitions(tools: Sequence[Tool]) -> str | None:
    """What there is for an agent to call, as the conventions write it; None for an agent without tools."""
    if not tools:
        return None
    written = [
        {"type": "function", "name": tool.name, "description": tool.description, "parameters": tool.parameters}
        for tool in tools
    ]
    return json.dumps(written, ensure_ascii=False)


def _digest(messages: Sequence[Message]) -> str:
    said = [message.model_dump(mode="json", exclude_defaults=True) for message in messages]
    return sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
