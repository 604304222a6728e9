"""One run: a task on its way through the crew, with its spans, its counts and the policies it started with."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.model import ModelReply, ModelRequest, ModelTable
from journeyman.agents.reply import TruncatedReplyError
from journeyman.runtime.events import Event, ToolUsed
from journeyman.runtime.policies import PolicyTable
from journeyman.tools.call import CallResult, call_tool
from journeyman.traces import attributes as a
from journeyman.traces.messages import Message, Usage
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
    seed: int
    temperature: float
    emit: Callable[[Event], None]
    root: Span
    """The span under which agents work: the orchestrator's, or the workflow's in a crew without one."""
    usage: Usage = field(default_factory=Usage)
    model_calls: int = 0
    tool_calls: int = 0

    def calls(self, agent: Agent, parent: Span) -> "RecordedCalls":
        return RecordedCalls(self, agent, parent)


class RecordedCalls:
    """`agents.calls.Calls` in earnest: every model call and tool call is a span under `parent`."""

    def __init__(self, run: Run, agent: Agent, parent: Span) -> None:
        self._run = run
        self._agent = agent
        self._parent = parent
        self._asked_by = parent.span_id
        self.policy = run.policies.policy(agent)

    async def ask(self, messages: tuple[Message, ...], schema: dict[str, Any], read: Callable[[str], T]) -> T:
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
            a.PROVIDER: model.provider,
            a.AGENT_NAME: self._agent.name,
            a.TASK_ID: run.task.id,
            a.REQUEST_MODEL: self.policy,
            a.REQUEST_MAX_TOKENS: request.max_tokens,
            a.REQUEST_TEMPERATURE: request.temperature,
            a.REQUEST_SEED: request.seed,
            a.ADAPTER_DIGEST: run.policies.digests.get(self.policy),
            a.DEMONSTRATION: model.demonstrates or None,
        }
        async with run.gate:
            with run.tracer.span(
                f"chat {self.policy}", parent=self._parent, kind="client", attributes=attributes
            ) as span:
                self._asked_by = span.span_id
                span.set_json(a.INPUT_MESSAGES, [_dump(message) for message in messages])
                run.model_calls += 1
                reply = await model.complete(request.model_copy(update={"traceparent": span.traceparent}))
                run.usage += reply.usage
                _record_reply(span, reply)
                if reply.finish_reason == "length":
                    raise TruncatedReplyError(f"a reply was cut off at {request.max_tokens} tokens")
                return read(reply.content)

    async def use(self, tool: str, arguments: dict[str, Any]) -> tuple[CallResult, str]:
        run = self._run
        attributes = {
            a.OPERATION: "execute_tool",
            a.AGENT_NAME: self._agent.name,
            a.TASK_ID: run.task.id,
            a.TOOL_NAME: tool,
            a.TOOL_TYPE: "function",
            a.TOOL_CALL_ID: self._asked_by,
            a.TOOL_CALL_ARGUMENTS: json.dumps(arguments, ensure_ascii=False),
        }
        with run.tracer.span(f"execute_tool {tool}", parent=self._parent, attributes=attributes) as span:
            run.tool_calls += 1
            result = await call_tool(run.crew.tools[tool], arguments)
            span.set({a.TOOL_STATUS: result.status, a.TOOL_CALL_RESULT: result.content})
            if result.status != "ok":
                span.fail(result.status, result.content)
        run.emit(ToolUsed(agent=self._agent.name, tool=tool, status=result.status))
        return result, span.span_id


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
    span.set_json(a.OUTPUT_MESSAGES, [_dump(Message(role="assistant", content=reply.content))])
    for name, values in (
        (a.PROMPT_TOKEN_IDS, reply.prompt_token_ids),
        (a.TOKEN_IDS, reply.token_ids),
        (a.LOGPROBS, reply.logprobs),
    ):
        if values is not None:
            span.set_json(name, values)


def _dump(message: Message) -> dict[str, Any]:
    return message.model_dump(mode="json", exclude_defaults=True)
