"""An agent's tool calls: permitted, checked, agreed to, recorded, and kept so that none is made twice."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from journeyman.agents.budget import Spent
from journeyman.agents.calls import Used
from journeyman.agents.decision import Decision, write_decisions
from journeyman.runtime.loops import side_by_side
from journeyman.runtime.run.agent_run import AgentRun
from journeyman.runtime.run.approval import NOBODY, put
from journeyman.runtime.run.events import ToolCalled, ToolUsed
from journeyman.runtime.run.permission import (
    Allow,
    Answer,
    Ask,
    Deny,
    Release,
    Ruling,
    WantedCall,
    not_called,
    rule,
    withheld,
)
from journeyman.runtime.run.run import Once
from journeyman.runtime.store.questions import Question
from journeyman.tools.call import CallResult, call_tool
from journeyman.tools.context import ToolContext
from journeyman.tools.tool import Tool
from journeyman.traces import attributes as a
from journeyman.traces.capture.tracer import AttributeValue
from journeyman.traces.errors import OverBudgetError
from journeyman.traces.messages import ToolCall, as_json, write_result


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What came of a call."""

    result: CallResult
    decisions: tuple[Decision, ...]
    paid: bool = False
    over_budget: str | None = None
    """Which limit stood in the way."""
    question: Question | None = None
    """A person must see the result before a model reads it."""


class ToolCalls:
    def __init__(self, agent_run: AgentRun) -> None:
        self._agent_run = agent_run
        self._once = agent_run.run.once.setdefault(agent_run.steps.step_key, Once(agent_run.steps.step_key))

    async def use(self, wanted: Sequence[ToolCall]) -> list[Used]:
        """All of `wanted` at once, after everything that a person must say about any of them."""
        calls = [self._numbered(call) for call in wanted]
        rulings = await self._rulings(calls)
        results = await side_by_side(map(self._use, calls, rulings))
        # Once all are made: a guardrail may want a person to see a result before a model reads it.
        put(self._agent_run.run, [question for _, question in results if question is not None])
        return [used for used, _ in results]

    def _numbered(self, call: ToolCall) -> WantedCall:
        number = self._agent_run.steps.take()
        kept = self._agent_run.steps.kept(number)
        return WantedCall(number=number, kept=kept, call=call, tool=self._agent_run.tools.get(call.name))

    async def _rulings(self, calls: Sequence[WantedCall]) -> list[Ruling | None]:
        """None for a call that was done before; raises `AskedError` where a person must be asked about one."""
        firsts: dict[str, WantedCall] = {}
        rulings: list[Ruling | None] = []
        questions: list[Question] = []
        for wanted in calls:
            first = firsts.setdefault(wanted.once, wanted) if wanted.needs_one_word else wanted
            ruling = None if wanted.done else await rule(self._agent_run, wanted, first, self._once.results)
            if isinstance(ruling, Ask) and first is wanted:
                questions.append(ruling.question)
            rulings.append(ruling)
        put(self._agent_run.run, questions)
        return rulings

    async def _use(self, wanted: WantedCall, ruling: Ruling | None) -> tuple[Used, Question | None]:
        used, question = (self._kept(wanted), None) if ruling is None else await self._recorded(ruling)
        if used.result.status == "ok":
            self._agent_run.run.evidence[used.span_id] = used.result.content
        return used, question

    def _kept(self, wanted: WantedCall) -> Used:
        """The result from before an interruption, counted as it was then."""
        agent_run, kept = self._agent_run, wanted.kept
        used = Used(result=CallResult.model_validate(kept["result"]), span_id=str(kept["span_id"]))
        if kept.get("paid"):
            agent_run.count(agent_run.run.ledger.count(Spent(tool_calls=1)))
        if over := kept.get("over_budget"):
            agent_run.run.over_budget = str(over)
        if begun := kept.get("begun"):
            self._once.results[str(begun)] = used.result
        return used

    async def _recorded(self, ruling: Ruling) -> tuple[Used, Question | None]:
        agent_run, wanted = self._agent_run, ruling.wanted
        run, call = agent_run.run, wanted.call
        told: dict[str, Any] = {"agent": agent_run.agent.name, "assignment": agent_run.assignment, "tool": call.name}
        run.emit(ToolCalled(**told, arguments=dict(call.arguments)))
        attributes = self._attributes(wanted) if run.tracer.records else {}
        with run.tracer.span(f"execute_tool {call.name}", parent=agent_run.parent, attributes=attributes) as span:
            made = await self._carried_out(ruling)
            result = made.result
            if made.decisions:
                span.set({a.DECISIONS: write_decisions(made.decisions)})
            if made.question is not None:
                span.fail("needs_input", made.question.text)
            elif result.status == "ok":
                span.set({a.TOOL_STATUS: "ok", a.TOOL_CALL_RESULT: write_result(result.content)})
            else:
                span.set({a.TOOL_STATUS: result.status})
                span.fail(result.status, result.content)
        used = Used(result=result, span_id=span.span_id)
        if run.store is not None:
            await self._keep(wanted, made, span.span_id)
        if made.question is None:
            run.emit(ToolUsed(**told, status=result.status, result=result.content))
        return used, made.question

    async def _keep(self, wanted: WantedCall, made: _Made, span_id: str) -> None:
        steps, result = self._agent_run.steps, made.result.model_dump(mode="json")
        if made.question is not None:
            await steps.note(wanted.number, held={"result": result, "question": made.question.model_dump(mode="json")})
        else:
            over = {} if made.over_budget is None else {"over_budget": made.over_budget}
            await steps.note(wanted.number, result=result, span_id=span_id, paid=made.paid, **over)

    async def _carried_out(self, ruling: Ruling) -> _Made:
        match ruling:
            case Allow():
                return await self._allowed(ruling)
            case Deny(result=result):
                return _Made(result=result, decisions=ruling.decisions)
            case Answer(text=text):
                return _Made(result=CallResult(status="ok", content=text), decisions=ruling.decisions)
            case Release(result=result):
                return self._made_before(ruling, result)
            case Ask():
                raise AssertionError("the run stops at a question before any call of the turn is made")

    async def _allowed(self, ruling: Allow) -> _Made:
        agent_run, wanted, decisions = self._agent_run, ruling.wanted, ruling.decisions
        run, tool = agent_run.run, wanted.tool
        assert tool is not None, "a call of no tool is denied"
        if not tool.idempotent and wanted.once in self._once.results:
            return _Made(result=_told_again(tool, self._once.results[wanted.once]), decisions=decisions)
        if wanted.kept.get("begun"):
            unsure = "was begun before an interruption and may have taken effect: it is not called again"
            return self._made_before(ruling, CallResult(status="unknown", content=f"{tool.name} {unsure}"))
        try:
            if tool.counts:
                agent_run.count(run.ledger.reserve_tool())
        except OverBudgetError as over:
            # No failure of the agent: it may still answer with what it has.
            run.over_budget = str(over)
            denied = Decision(source="budget", name=over.limit, point="call", action="deny", reason=str(over))
            return _Made(result=not_called(tool, str(over)), decisions=(*decisions, denied), over_budget=str(over))
        if not tool.idempotent:
            self._once.results[wanted.once] = None
            # In this order, as who takes a run up counts first and reads then: one of the two sees the other.
            await agent_run.steps.note(wanted.number, begun=wanted.once)
            await run.check_own()
        # A copy: what a tool does to its arguments must not change what the model is shown of its call.
        result = await call_tool(tool, deepcopy(wanted.call.arguments), self._context(wanted, tool))
        made = await self._guarded(wanted, tool, result, decisions)
        # What a person has not agreed to must not be told to whoever asks for the same call meanwhile.
        if not tool.idempotent and made.question is None:
            self._once.results[wanted.once] = made.result
        return made

    def _made_before(self, ruling: Release | Allow, result: CallResult) -> _Made:
        """The result of a call that was made before an interruption, which has to be paid for here too."""
        self._agent_run.count(self._agent_run.run.ledger.count(Spent(tool_calls=1)))
        if ruling.wanted.kept.get("begun"):
            self._once.results[ruling.wanted.once] = result
        return _Made(result=result, decisions=ruling.decisions, paid=True)

    async def _guarded(
        self, wanted: WantedCall, tool: Tool, result: CallResult, decisions: tuple[Decision, ...]
    ) -> _Made:
        """The result as a model may read it, or with the question of a person who must see it first."""
        agent_run, paid = self._agent_run, tool.counts
        run, agent = agent_run.run, agent_run.agent.name
        if not run.guards.watch("result"):
            return _Made(result=result, decisions=decisions, paid=paid)
        guarded = await run.guards.check("result", result.content, agent=agent, tool=tool.name)
        decisions = (*decisions, *guarded.decisions)
        if guarded.blocked is not None:
            return _Made(result=withheld(tool, guarded.blocked), decisions=decisions, paid=paid)
        result = result.model_copy(update={"content": guarded.text})
        question: Question | None = None
        if guarded.ask is not None and run.store is None:
            result = withheld(tool, f"{guarded.ask}; {NOBODY}")
        elif guarded.ask is not None:
            text = f"May {agent} read what {tool.name} gave? {guarded.ask}"
            question = wanted.question(agent_run, "guardrail", text, decisions, content=guarded.text)
        return _Made(result=result, decisions=decisions, paid=paid, question=question)

    def _attributes(self, wanted: WantedCall) -> dict[str, AttributeValue | None]:
        return {
            a.OPERATION: "execute_tool",
            **self._agent_run.attributes,
            a.TOOL_NAME: wanted.call.name,
            a.TOOL_TYPE: "function",
            a.TOOL_DESCRIPTION: None if wanted.tool is None else wanted.tool.description or None,
            a.TOOL_CALL_ID: self._agent_run.asked_by,
            a.TOOL_CALL_ARGUMENTS: as_json(wanted.call.arguments),
        }

    def _context(self, wanted: WantedCall, tool: Tool) -> ToolContext:
        agent_run, run = self._agent_run, self._agent_run.run
        return ToolContext(
            run_id=run.id,
            task_id=run.task.id,
            session=run.task.session,
            user=run.task.user,
            agent=agent_run.agent.name,
            assignment=agent_run.assignment,
            notes=run.notes,
            key=f"{run.id}/{agent_run.steps.step_key}/{wanted.number}" if tool.idempotent else self._key(wanted),
        )

    def _key(self, wanted: WantedCall) -> str:
        """The same for whoever asks again for a call that may be made once only."""
        return f"{self._agent_run.run.id}/{self._once.step_key}/{sha256(wanted.once.encode()).hexdigest()[:16]}"


def _told_again(tool: Tool, result: CallResult | None) -> CallResult:
    """The answer to a call that was made before, of a tool that is called once only."""
    told = f"{tool.name} was called with these arguments before and is not called again"
    if result is not None and result.status in ("ok", "invalid"):
        return CallResult(status="denied", content=f"{told}; it said: {result.content}")
    return CallResult(status="unknown", content=f"{told}; it may have taken effect")
