"""An agent's model calls: routed, paid for, recorded, and kept so that none is made twice."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Generic, TypeVar

from pydantic import JsonValue

from journeyman.agents.agent import Agent
from journeyman.agents.budget import Spent
from journeyman.agents.context import TokenCount
from journeyman.agents.decision import Decision
from journeyman.agents.model import Model, ModelReply, ModelRequest, StreamingModel, ToolChoice
from journeyman.agents.reply import TruncatedReplyError
from journeyman.runtime.desk import Desk
from journeyman.runtime.events import Token
from journeyman.runtime.ledger import Reservation
from journeyman.tools.tool import Tool
from journeyman.traces import attributes as a
from journeyman.traces.errors import ModelError, OverBudgetError
from journeyman.traces.messages import Message, Usage, prompt_attributes, reply_attribute
from journeyman.traces.tracer import AttributeValue, Span

T = TypeVar("T")


class ModelCalls:
    def __init__(self, desk: Desk, goal: str, *, final: bool = False) -> None:
        """`goal` is what a route is chosen by; `final` work may use what the budget keeps for the end."""
        self._desk = desk
        self._final = final
        self._chain = desk.run.chain(desk.agent, goal)
        self._offered = _definitions(list(desk.tools.values()))

    @property
    def policy(self) -> str:
        return self._chain[0][0]

    async def ask(
        self,
        messages: tuple[Message, ...],
        schema: dict[str, Any] | None,
        read: Callable[[ModelReply], T],
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice = "auto",
        final: bool = False,
    ) -> T:
        desk = self._desk
        number = desk.steps.take()
        if kept := desk.steps.kept(number):
            reply = ModelReply.model_validate(kept["reply"])
            desk.asked_by = str(kept["span_id"])
            desk.count(desk.run.ledger.count(Spent(usage=reply.usage, model_calls=1, cost=_number(kept["cost"]))))
            return _read(reply, read, desk.agent)
        request = ModelRequest(
            policy=self.policy,
            messages=messages,
            json_schema=schema,
            tools=tuple(_definition(tool) for tool in tools),
            tool_choice=tool_choice,
            parallel_calls=desk.agent.parallel_calls > 1,
            max_tokens=desk.agent.limits.tokens,
            temperature=desk.run.temperature,
            seed=desk.run.seed,
            timeout_s=desk.agent.limits.seconds,
        )
        return await self._first_answer(_Asked(number, request, read, self._final or final))

    async def _first_answer(self, asked: "_Asked[T]") -> T:
        """Of the policies of the chain: one that cannot answer hands over to the next."""
        *others, (last, last_reason) = self._chain
        failed = ""
        for policy, reason in others:
            try:
                return await self._answer(asked.of(policy), failed or reason)
            except ModelError as error:
                failed = f"{policy}: {error.kind}"
        return await self._answer(asked.of(last), failed or last_reason)

    async def _answer(self, asked: "_Asked[T]", reason: str) -> T:
        run, request = self._desk.run, asked.request
        async with run.gate:
            reservation = await self._reserved(asked)
            usage = Usage()
            reply: ModelReply | None = None
            try:
                with self._span(request, reason) as span:
                    reply = await self._reply(request.model_copy(update={"traceparent": span.traceparent}))
                    usage = reply.usage
                    self._desk.asked_by = span.span_id
                    if run.tracer.records:
                        _record_reply(span, reply)
                    return _read(reply, asked.read, self._desk.agent)
            finally:
                spent = reservation.settle(usage)
                self._desk.count(spent)
                if reply is not None:
                    await self._keep(asked.number, reply, spent)

    async def _reserved(self, asked: "_Asked[T]") -> Reservation:
        run, request = self._desk.run, asked.request
        try:
            return await run.ledger.reserve_call(
                request.policy, _length(request), request.max_tokens, final=asked.final
            )
        except OverBudgetError as over:
            run.over_budget = str(over)
            run.decide([Decision(source="budget", name=over.limit, place="agent", action="deny", reason=str(over))])
            raise

    async def _keep(self, number: int, reply: ModelReply, spent: Spent) -> None:
        """Token ids and logprobs are the record's; what the agent goes on with is enough here."""
        kept = reply.model_dump(mode="json", exclude={"prompt_token_ids", "token_ids", "logprobs"})
        await self._desk.steps.note(number, reply=kept, span_id=self._desk.asked_by, cost=spent.cost)

    async def _reply(self, request: ModelRequest) -> ModelReply:
        model = self._desk.run.models[request.policy]
        if not self._desk.run.shows_tokens:
            return await model.complete(request)
        if isinstance(model, StreamingModel):
            return await model.stream_reply(request, self._show)
        reply = await model.complete(request)
        self._show(reply.content)
        return reply

    def _show(self, text: str) -> None:
        self._desk.run.emit(Token(agent=self._desk.agent.name, assignment=self._desk.assignment, text=text))

    def _span(self, request: ModelRequest, reason: str) -> Any:
        run = self._desk.run
        attributes = self._attributes(request, reason) if run.tracer.records else {}
        return run.tracer.span(f"chat {request.policy}", parent=self._desk.parent, kind="client", attributes=attributes)

    def _attributes(self, request: ModelRequest, reason: str) -> dict[str, AttributeValue | None]:
        run = self._desk.run
        # A policy with a row of its own is another model's, and what a person wrote is no model's.
        elsewhere = request.policy in run.models or run.models[request.policy].demonstrates
        return {
            **self._desk.attributes,
            **_request_attributes(request, run.models[request.policy]),
            a.ADAPTER_DIGEST: run.policies.digests.get(request.policy),
            a.BASE_DIGEST: None if elsewhere else run.base_digest,
            a.TOOL_DEFINITIONS: self._offered,
            a.POLICY_REASON: reason or None,
            a.BUDGET: json.dumps(run.ledger.left) if run.ledger.left else None,
            **prompt_attributes(request.messages),
        }


@dataclass(frozen=True)
class _Asked(Generic[T]):
    """A call that was not answered before."""

    number: int
    request: ModelRequest
    read: Callable[[ModelReply], T]
    final: bool

    def of(self, policy: str) -> "_Asked[T]":
        return replace(self, request=self.request.model_copy(update={"policy": policy}))


def _read(reply: ModelReply, read: Callable[[ModelReply], T], agent: Agent) -> T:
    if reply.finish_reason == "length":
        raise TruncatedReplyError(f"a reply was cut off at {agent.limits.tokens} tokens")
    return read(reply)


def _request_attributes(request: ModelRequest, model: Model) -> dict[str, AttributeValue | None]:
    return {
        a.OPERATION: "chat",
        a.PROVIDER: model.provider,
        a.OUTPUT_TYPE: "text" if request.json_schema is None else "json",
        a.REQUEST_MODEL: request.policy,
        a.REQUEST_MAX_TOKENS: request.max_tokens,
        a.REQUEST_TEMPERATURE: request.temperature,
        a.REQUEST_SEED: request.seed,
        a.DEMONSTRATION: model.demonstrates or None,
        a.PROMPT_DIGEST: _digest(request.messages),
        # What the conventions want where no reply comes; the reply's own reason replaces it.
        a.FINISH_REASONS: ["error"],
    }


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
    said = Message(role="assistant", content=reply.content, tool_calls=reply.tool_calls)
    span.set({a.OUTPUT_MESSAGES: reply_attribute(said, reply.finish_reason)})
    for name, values in (
        (a.PROMPT_TOKEN_IDS, reply.prompt_token_ids),
        (a.TOKEN_IDS, reply.token_ids),
        (a.LOGPROBS, reply.logprobs),
    ):
        if values is not None:
            span.set_json(name, values)


def _definition(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters}


def _definitions(tools: Sequence[Tool]) -> str | None:
    """What there is for an agent to call, as the conventions write it; None for an agent without tools."""
    if not tools:
        return None
    return json.dumps([{"type": "function", **_definition(tool)} for tool in tools], ensure_ascii=False)


def _digest(messages: Sequence[Message]) -> str:
    said = [message.model_dump(mode="json", exclude_defaults=True) for message in messages]
    return sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _length(request: ModelRequest) -> int:
    """Tokens of a prompt, estimated: what a call reserves before its real number is known."""
    return TokenCount(request.tools)(request.messages)


def _number(value: JsonValue) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
