"""An agent's model calls: routed, paid for, recorded, and kept so that none is made twice."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Generic, TypeVar

from pydantic import JsonValue

from journeyman.agents.agent import Agent
from journeyman.agents.budget import Spent
from journeyman.agents.decision import Decision
from journeyman.agents.model import Model, ModelReply, ModelRequest, StreamingModel, ToolChoice
from journeyman.agents.reply import TruncatedReplyError
from journeyman.agents.trim import TokenCount
from journeyman.runtime.run.agent_run import AgentRun
from journeyman.runtime.run.endings import OutOfTimeError
from journeyman.runtime.run.events import ReplyBroken, Token
from journeyman.runtime.run.ledger import Reservation
from journeyman.tools.tool import Tool
from journeyman.traces import attributes as a
from journeyman.traces.capture.sent import Sent
from journeyman.traces.capture.tracer import AttributeValue, Span
from journeyman.traces.errors import ModelError, OverBudgetError, StoreError
from journeyman.traces.messages import Message, Usage, reply_attribute

T = TypeVar("T")

UNSENT = {"seed": a.REQUEST_SEED, "temperature": a.REQUEST_TEMPERATURE}
"""What the span of a call holds of what a server may not be sent."""


class ModelCalls:
    def __init__(self, agent_run: AgentRun, goal: str, *, final: bool = False) -> None:
        """`goal` is what a route is chosen by; `final` work may use what the budget keeps for the end."""
        self._agent_run = agent_run
        self._final = final
        self._chain = agent_run.run.chain(agent_run.agent, goal)
        self._ends = monotonic() + agent_run.run.seconds(agent_run.agent)
        self._sent = Sent()

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
        agent_run = self._agent_run
        number = agent_run.steps.take()
        if kept := agent_run.steps.kept(number):
            if "reply" not in kept:
                changed = (
                    f"what {agent_run.agent.name} did in run {agent_run.run.id} does not fit the crew as it is now"
                )
                raise StoreError(f"{changed}: resume it with the crew that it began with, or cancel it")
            reply = ModelReply.model_validate(kept["reply"])
            agent_run.asked_by = str(kept["span_id"])
            agent_run.count(
                agent_run.run.ledger.count(Spent(usage=reply.usage, model_calls=1, cost=_number(kept["cost"])))
            )
            return _read(reply, read, agent_run.agent)
        shown = tuple(tool.definition for tool in tools)
        return await self._first_answer(
            _Asked(number, messages, schema, shown, tool_choice, read, self._final or final)
        )

    async def _first_answer(self, asked: "_Asked[T]") -> T:
        """Of the policies of the chain: one that cannot answer hands over to the next."""
        *others, (last, last_reason) = self._chain
        failed = ""
        for position, (policy, reason) in enumerate(others):
            try:
                return await self._answer(asked, policy, failed or reason, behind=len(others) - position)
            except ModelError as error:
                failed = f"{policy}: {error.kind}"
        return await self._answer(asked, last, failed or last_reason)

    async def _answer(self, asked: "_Asked[T]", policy: str, reason: str, behind: int = 0) -> T:
        """`behind` policies may still stand in for this one."""
        request = self._request(asked, policy)
        # What may have to wait for its own run's budget must not take a turn that other runs wait for.
        reservation = await self._reserved(asked, request.policy)
        try:
            async with self._agent_run.run.setting.limiter:
                return await self._made(asked, request, reason, behind, reservation)
        finally:
            reservation.release()

    async def _made(
        self, asked: "_Asked[T]", request: ModelRequest, reason: str, behind: int, reservation: Reservation
    ) -> T:
        run = self._agent_run.run
        reply: ModelReply | None = None
        try:
            with run.tracer.span(f"chat {request.policy}", parent=self._agent_run.parent, kind="client") as span:
                request = request.model_copy(update={"traceparent": span.traceparent})
                if run.tracer.records:
                    span.set(self._attributes(request, reason))
                reply = _counted(await self._reply_in_time(request, behind, span.span_id), asked)
                self._agent_run.asked_by = span.span_id
                if run.tracer.records:
                    _record_reply(span, reply, self._sent)
                return _read(reply, asked.read, self._agent_run.agent)
        finally:
            spent = reservation.settle(Usage() if reply is None else reply.usage)
            self._agent_run.count(spent)
            if reply is not None:
                await self._keep(asked.number, reply, spent)

    def _request(self, asked: "_Asked[T]", policy: str) -> ModelRequest:
        run, agent = self._agent_run.run, self._agent_run.agent
        request = ModelRequest(
            policy=policy,
            messages=asked.messages,
            json_schema=asked.schema,
            tools=asked.tools,
            tool_choice=asked.tool_choice,
            parallel_calls=agent.parallel_calls > 1,
            max_tokens=agent.limits.tokens,
            temperature=run.record.temperature,
            seed=run.record.seed,
            timeout_s=agent.limits.seconds,
            task_id=run.task.id,
            agent=agent.name,
            assignment=self._agent_run.work,
        )
        return request if run.setting.revise is None else run.setting.revise(request)

    async def _reserved(self, asked: "_Asked[T]", policy: str) -> Reservation:
        """What the call may take, set aside; the prompt's tokens are estimated until its real number is known."""
        run = self._agent_run.run
        prompt_tokens = TokenCount(asked.tools)(asked.messages)
        try:
            return await run.ledger.reserve_call(
                policy, prompt_tokens, self._agent_run.agent.limits.tokens, final=asked.final
            )
        except OverBudgetError as over:
            run.over_budget = str(over)
            run.decide([Decision(source="budget", name=over.limit, point="agent", action="deny", reason=str(over))])
            raise

    async def _keep(self, number: int, reply: ModelReply, spent: Spent) -> None:
        """Token ids and logprobs are the record's; what the agent goes on with is enough here."""
        if self._agent_run.run.store is None:
            return
        kept = reply.model_dump(mode="json", exclude={"prompt_token_ids", "token_ids", "logprobs"})
        await self._agent_run.steps.note(number, reply=kept, span_id=self._agent_run.asked_by, cost=spent.cost)

    async def _reply_in_time(self, request: ModelRequest, behind: int, call: str) -> ModelReply:
        """A policy that hangs, retries included, leaves to those behind it their share of the agent's time."""
        share = max(0.0, self._ends - monotonic()) / (behind + 1) if behind else None
        try:
            async with asyncio.timeout(share) as limit:
                return await self._reply(request, call)
        except OutOfTimeError:
            raise
        except TimeoutError as own:
            late = f"{request.policy} did not answer in time" + (f": {own}" if str(own) else "")
            if limit.expired():
                late = f"{request.policy} did not answer within {share:.3g} s, its share of the time"
            raise ModelError(late, kind="timeout") from None

    async def _reply(self, request: ModelRequest, call: str) -> ModelReply:
        request = request.model_copy(update={"policy": self._weights(request)})
        model = self._agent_run.run.setting.models[request.policy]
        if not self._agent_run.run.shows_tokens:
            return await model.complete(request)
        shown = _Shown(self._agent_run, call)
        if not isinstance(model, StreamingModel):
            reply = await model.complete(request)
            shown.show(reply.content)
            return reply
        try:
            return await model.stream_reply(request, shown.show, shown.take_back)
        except BaseException:  # Also where the agent's time is over in the middle of it.
            shown.take_back()
            raise

    def _weights(self, request: ModelRequest) -> str:
        """The policy that the server is asked for."""
        return self._agent_run.run.record.policies.weights(request.policy)

    def _attributes(self, request: ModelRequest, reason: str) -> dict[str, AttributeValue | None]:
        run, weights = self._agent_run.run, self._weights(request)
        # A policy with a row of its own is another model's, and what a person wrote is no model's.
        elsewhere = weights in run.setting.models or run.setting.models[weights].demonstrates
        return {
            **self._agent_run.attributes,
            **_request_attributes(request, run.setting.models[weights]),
            **self._sent.messages(request.messages),
            a.PROMPT_DIGEST: self._sent.digest,
            a.ADAPTER_DIGEST: run.record.policies.digest(request.policy),
            a.WEIGHTS: None if weights == request.policy else weights,
            a.BASE_DIGEST: None if elsewhere else run.setting.base_digest,
            a.TOOL_DEFINITIONS: run.offers(self._agent_run.agent),
            a.TERMS: run.setting.models.terms.get(request.policy),
            a.POLICY_REASON: reason or None,
            a.BUDGET: json.dumps(left) if (left := run.ledger.left) else None,
        }


class _Shown:
    """A reply as it is told piece by piece, until it is whole or breaks off."""

    def __init__(self, agent_run: AgentRun, call: str) -> None:
        self._emit = agent_run.run.emit
        self._told: dict[str, Any] = {"agent": agent_run.agent.name, "assignment": agent_run.assignment, "call": call}
        self._begun = False

    def show(self, text: str) -> None:
        self._begun = True
        self._emit(Token(**self._told, text=text))

    def take_back(self) -> None:
        if self._begun:
            self._begun = False
            self._emit(ReplyBroken(**self._told))


@dataclass(frozen=True)
class _Asked(Generic[T]):
    """A call that was not answered before."""

    number: int
    messages: tuple[Message, ...]
    schema: dict[str, Any] | None
    tools: tuple[dict[str, Any], ...]
    tool_choice: ToolChoice
    read: Callable[[ModelReply], T]
    final: bool


def _counted(reply: ModelReply, asked: _Asked[Any]) -> ModelReply:
    """With an estimate where the server counted nothing: no budget is blind to a call."""
    if reply.usage.tokens:
        return reply
    said = Message(role="assistant", content=reply.content, tool_calls=reply.tool_calls)
    output_tokens = len(reply.token_ids or ()) or TokenCount()((said,))
    usage = Usage(input_tokens=TokenCount(asked.tools)(asked.messages), output_tokens=output_tokens)
    return reply.model_copy(update={"usage": usage})


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
        # What the conventions want where no reply comes; the reply's own reason replaces it.
        a.FINISH_REASONS: ["error"],
    }


def _record_reply(span: Span, reply: ModelReply, sent: Sent) -> None:
    if reply.unsent:
        span.remove(UNSENT[name] for name in reply.unsent)
        span.set_json(a.UNSENT, reply.unsent)
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
    if reply.prompt_token_ids is not None:
        span.set({a.PROMPT_TOKEN_IDS: sent.token_ids(reply.prompt_token_ids)})
    for name, values in ((a.TOKEN_IDS, reply.token_ids), (a.LOGPROBS, reply.logprobs)):
        if values is not None:
            span.set_json(name, values)


def _number(value: JsonValue) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
