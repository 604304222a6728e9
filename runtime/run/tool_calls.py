"""An agent's tool calls: permitted, checked, agreed to, recorded, and kept so that none is made twice."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from journeyman.agents.budget import Spent
from journeyman.agents.calls import Used
from journeyman.agents.decision import Decision, write_decisions
from journeyman.runtime.loops import side_by_side
from journeyman.runtime.run.agent_run import AgentRun
from journeyman.runtime.run.approval import NOBODY, put
from journeyman.runtime.run.events import ToolCalled, ToolUsed
from journeyman.runtime.run.permission import Wanted, decide, withheld
from journeyman.runtime.run.run import Once
from journeyman.tools.call import CallResult, call_tool
from journeyman.tools.context import ToolContext
from journeyman.tools.tool import Tool
from journeyman.traces import attributes as a
from journeyman.traces.capture.tracer import AttributeValue
from journeyman.traces.errors import OverBudgetError
from journeyman.traces.messages import ToolCall, as_json, write_result


class ToolCalls:
    def __init__(self, agent_run: AgentRun) -> None:
        self._agent_run = agent_run
        self._once = agent_run.run.once.setdefault(agent_run.steps.step_key, Once(agent_run.steps.step_key))

    async def use(self, wanted: Sequence[ToolCall]) -> list[Used]:
        """All of `wanted` at once, after everything that a person must say about any of them."""
        calls = [Wanted(self._agent_run, call) for call in wanted]
        firsts: dict[str, Wanted] = {}
        for one in calls:
            if one.needs_one_word:
                one.first = firsts.setdefault(one.once, one)
            if not one.done:
                await decide(self._agent_run, one, self._once.results)
        self._put(calls)
        used = await side_by_side(self._use(one) for one in calls)
        # Once all are made: a guardrail may want a person to see a result before a model reads it.
        self._put(calls)
        return used

    def _put(self, calls: Sequence[Wanted]) -> None:
        put(self._agent_run.run, [one.question for one in calls if one.question is not None and one.first is one])

    async def _use(self, wanted: Wanted) -> Used:
        agent_run, run = self._agent_run, self._agent_run.run
        if wanted.done:
            used = Used(result=CallResult.model_validate(wanted.kept["result"]), span_id=str(wanted.kept["span_id"]))
            if wanted.kept.get("paid"):
                agent_run.count(run.ledger.count(Spent(tool_calls=1)))
            if over := wanted.kept.get("over_budget"):
                run.over_budget = str(over)
            if begun := wanted.kept.get("begun"):
                self._once.results[str(begun)] = used.result
        else:
            used = await self._recorded(wanted)
        if used.result.status == "ok":
            run.evidence[used.span_id] = used.result.content
        return used

    async def _recorded(self, wanted: Wanted) -> Used:
        agent_run, call = self._agent_run, wanted.call
        told: dict[str, Any] = {"agent": agent_run.agent.name, "assignment": agent_run.assignment, "tool": call.name}
        agent_run.run.emit(ToolCalled(**told, arguments=dict(call.arguments)))
        attributes = self._attributes(wanted) if agent_run.run.tracer.records else {}
        with agent_run.run.tracer.span(
            f"execute_tool {call.name}", parent=agent_run.parent, attributes=attributes
        ) as span:
            result = await self._result(wanted)
            if wanted.decisions:
                span.set({a.DECISIONS: write_decisions(wanted.decisions)})
            if wanted.question is not None:
                span.fail("needs_input", wanted.question.text)
            elif result.status == "ok":
                span.set({a.TOOL_STATUS: "ok", a.TOOL_CALL_RESULT: write_result(result.content)})
            else:
                span.set({a.TOOL_STATUS: result.status})
                span.fail(result.status, result.content)
        used = Used(result=result, span_id=span.span_id)
        if agent_run.run.store is not None:
            await self._keep(wanted, used)
        if wanted.question is None:
            agent_run.run.emit(ToolUsed(**told, status=result.status))
        return used

    async def _keep(self, wanted: Wanted, used: Used) -> None:
        steps, kept = self._agent_run.steps, used.result.model_dump(mode="json")
        if wanted.question is not None:
            await steps.note(wanted.number, held={"result": kept, "question": wanted.question.model_dump(mode="json")})
        else:
            over = {} if wanted.over_budget is None else {"over_budget": wanted.over_budget}
            await steps.note(wanted.number, result=kept, span_id=used.span_id, paid=wanted.paid, **over)

    async def _result(self, wanted: Wanted) -> CallResult:
        agent_run, call, tool = self._agent_run, wanted.call, wanted.tool
        if tool is None:
            have = ", ".join(agent_run.tools) or "none"
            return CallResult(status="invalid", content=f"there is no tool {call.name!r}; there are: {have}")
        if wanted.released is not None:
            return self._made(wanted, wanted.released)
        if wanted.denied is not None:
            return CallResult(status="denied", content=f"{tool.name} was not called: {wanted.denied}")
        if wanted.answer is not None:
            return CallResult(status="ok", content=wanted.answer)
        if not tool.idempotent and wanted.once in self._once.results:
            return _made_before(tool, self._once.results[wanted.once])
        if wanted.kept.get("begun"):
            unsure = "was begun before an interruption and may have taken effect: it is not called again"
            return self._made(wanted, CallResult(status="unknown", content=f"{tool.name} {unsure}"))
        try:
            if tool.counts:
                agent_run.count(agent_run.run.ledger.reserve_tool())
        except OverBudgetError as over:
            # No failure of the agent: it may still answer with what it has.
            agent_run.run.over_budget = wanted.over_budget = str(over)
            wanted.decisions.append(
                Decision(source="budget", name=over.limit, point="call", action="deny", reason=str(over))
            )
            return CallResult(status="denied", content=f"{tool.name} was not called: {over}")
        wanted.paid = tool.counts
        if not tool.idempotent:
            self._once.results[wanted.once] = None
            # In this order, as who takes a run up counts first and reads then: one of the two sees the other.
            await agent_run.steps.note(wanted.number, begun=wanted.once)
            await agent_run.run.check_own()
        result = await call_tool(tool, dict(call.arguments), self._context(wanted, tool))
        result = await self._guarded(wanted, tool, result)
        # What a person has not agreed to must not be told to whoever asks for the same call meanwhile.
        if not tool.idempotent and wanted.question is None:
            self._once.results[wanted.once] = result
        return result

    def _made(self, wanted: Wanted, result: CallResult) -> CallResult:
        """The result of a call that was made before an interruption, which has to be paid for here too."""
        self._agent_run.count(self._agent_run.run.ledger.count(Spent(tool_calls=1)))
        wanted.paid = True
        if wanted.kept.get("begun"):
            self._once.results[wanted.once] = result
        return result

    async def _guarded(self, wanted: Wanted, tool: Tool, result: CallResult) -> CallResult:
        """The result as a model may read it; where a person must see it first, the question is in `wanted`."""
        agent_run = self._agent_run
        if not agent_run.run.guards.watch("result"):
            return result
        guarded = await agent_run.run.guards.check("result", result.content, agent=agent_run.agent.name, tool=tool.name)
        wanted.decisions += guarded.decisions
        if guarded.blocked is not None:
            return withheld(tool, guarded.blocked)
        result = result.model_copy(update={"content": guarded.text})
        if guarded.ask is None:
            return result
        if agent_run.run.store is None:
            return withheld(tool, f"{guarded.ask}; {NOBODY}")
        asked = f"May {agent_run.agent.name} read what {tool.name} gave? {guarded.ask}"
        wanted.ask(f"{agent_run.steps.step_key}.result", "guardrail", asked, content=guarded.text)
        return result

    def _attributes(self, wanted: Wanted) -> dict[str, AttributeValue | None]:
        return {
            a.OPERATION: "execute_tool",
            **self._agent_run.attributes,
            a.TOOL_NAME: wanted.call.name,
            a.TOOL_TYPE: "function",
            a.TOOL_DESCRIPTION: None if wanted.tool is None else wanted.tool.description or None,
            a.TOOL_CALL_ID: self._agent_run.asked_by,
            a.TOOL_CALL_ARGUMENTS: as_json(wanted.call.arguments),
        }

    def _context(self, wanted: Wanted, tool: Tool) -> ToolContext:
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

    def _key(self, wanted: Wanted) -> str:
        """The same for whoever asks again for a call that may be made once only."""
        return f"{self._agent_run.run.id}/{self._once.step_key}/{sha256(wanted.once.encode()).hexdigest()[:16]}"


def _made_before(tool: Tool, result: CallResult | None) -> CallResult:
    """The answer to a call that was made before, of a tool that is called once only."""
    told = f"{tool.name} was called with these arguments before and is not called again"
    if result is not None and result.status in ("ok", "invalid"):
        return CallResult(status="denied", content=f"{told}; it said: {result.content}")
    return CallResult(status="unknown", content=f"{told}; it may have taken effect")
