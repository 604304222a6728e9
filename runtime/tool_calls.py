"""An agent's tool calls: permitted, checked, agreed to, recorded, and kept so that none is made twice."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from pydantic import JsonValue

from journeyman.agents.budget import Spent
from journeyman.agents.calls import Used
from journeyman.agents.decision import Decision, write_decisions
from journeyman.runtime.asking import NOBODY, put
from journeyman.runtime.desk import Desk
from journeyman.runtime.events import ToolCalled, ToolUsed
from journeyman.runtime.questions import Consent, Question
from journeyman.tools.call import CallResult, call_tool
from journeyman.tools.context import ToolContext
from journeyman.tools.tool import Tool
from journeyman.traces import attributes as a
from journeyman.traces.errors import OverBudgetError
from journeyman.traces.messages import ToolCall, write_result
from journeyman.traces.tracer import AttributeValue


class ToolCalls:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._once = desk.run.once.setdefault(desk.steps.place, {})

    async def use(self, wanted: Sequence[ToolCall]) -> list[Used]:
        """All of `wanted` at once, after everything that a person must say about any of them."""
        calls = [_Wanted(self._desk, call) for call in wanted]
        for one in calls:
            if not one.done:
                await _decide(self._desk, one)
        put(self._desk.run, [one.question for one in calls if one.question is not None])
        if len(calls) == 1:
            return [await self._use(calls[0])]
        try:
            async with asyncio.TaskGroup() as group:
                using = [group.create_task(self._use(one)) for one in calls]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [one.result() for one in using]

    async def _use(self, wanted: "_Wanted") -> Used:
        desk, run = self._desk, self._desk.run
        if wanted.done:
            used = Used(result=CallResult.model_validate(wanted.kept["result"]), span_id=str(wanted.kept["span_id"]))
            if wanted.kept.get("paid"):
                desk.count(run.ledger.count(Spent(tool_calls=1)))
            if begun := wanted.kept.get("begun"):
                self._once[str(begun)] = used.result
        else:
            used = await self._recorded(wanted)
        if used.result.status == "ok":
            run.evidence[used.span_id] = used.result.content
        return used

    async def _recorded(self, wanted: "_Wanted") -> Used:
        desk, call = self._desk, wanted.call
        told: dict[str, Any] = {"agent": desk.agent.name, "assignment": desk.assignment, "tool": call.name}
        desk.run.emit(ToolCalled(**told, arguments=dict(call.arguments)))
        with desk.run.tracer.span(
            f"execute_tool {call.name}", parent=desk.parent, attributes=self._attributes(wanted)
        ) as span:
            result = await self._result(wanted)
            span.set({a.TOOL_STATUS: result.status})
            if wanted.decisions:
                span.set({a.DECISIONS: write_decisions(wanted.decisions)})
            if result.status == "ok":
                span.set({a.TOOL_CALL_RESULT: write_result(result.content)})
            else:
                span.fail(result.status, result.content)
        kept = result.model_dump(mode="json")
        await desk.steps.note(wanted.number, result=kept, span_id=span.span_id, paid=wanted.paid)
        desk.run.emit(ToolUsed(**told, status=result.status))
        return Used(result=result, span_id=span.span_id)

    async def _result(self, wanted: "_Wanted") -> CallResult:
        desk, call, tool = self._desk, wanted.call, wanted.tool
        if tool is None:
            have = ", ".join(desk.tools) or "none"
            return CallResult(status="invalid", content=f"there is no tool {call.name!r}; there are: {have}")
        if wanted.denied is not None:
            return CallResult(status="denied", content=f"{tool.name} was not called: {wanted.denied}")
        if wanted.answer is not None:
            return CallResult(status="ok", content=wanted.answer)
        if wanted.once in self._once:
            return _made_before(tool, self._once[wanted.once])
        if wanted.kept.get("begun"):
            self._once[wanted.once] = None
            unsure = "was begun before an interruption and may have taken effect: it is not called again"
            return CallResult(status="unknown", content=f"{tool.name} {unsure}")
        try:
            desk.count(desk.run.ledger.reserve_tool())
        except OverBudgetError as over:
            # No failure of the agent: it may still answer with what it has.
            desk.run.over_budget = str(over)
            wanted.decisions.append(
                Decision(source="budget", name=over.limit, place="call", action="deny", reason=str(over))
            )
            return CallResult(status="denied", content=f"{tool.name} was not called: {over}")
        wanted.paid = True
        if not tool.idempotent:
            self._once[wanted.once] = None
            await desk.steps.note(wanted.number, begun=wanted.once)
        result = await call_tool(tool, dict(call.arguments), self._context(wanted.number))
        result = await self._guarded(wanted, tool, result)
        if not tool.idempotent:
            self._once[wanted.once] = result
        return result

    async def _guarded(self, wanted: "_Wanted", tool: Tool, result: CallResult) -> CallResult:
        """The result as a model may read it."""
        guards = self._desk.run.guards
        guarded = await guards.check("result", result.content, agent=self._desk.agent.name, tool=tool.name)
        wanted.decisions += guarded.decisions
        # Nobody can be asked any more once the call is made: what a person would have to see is withheld.
        if (withheld := guarded.blocked or guarded.ask) is not None:
            return CallResult(status="denied", content=f"the result of {tool.name} was withheld: {withheld}")
        return result.model_copy(update={"content": guarded.text})

    def _attributes(self, wanted: "_Wanted") -> dict[str, AttributeValue | None]:
        return {
            a.OPERATION: "execute_tool",
            **self._desk.attributes,
            a.TOOL_NAME: wanted.call.name,
            a.TOOL_TYPE: "function",
            a.TOOL_DESCRIPTION: None if wanted.tool is None else wanted.tool.description or None,
            a.TOOL_CALL_ID: self._desk.asked_by,
            a.TOOL_CALL_ARGUMENTS: json.dumps(wanted.call.arguments, ensure_ascii=False),
        }

    def _context(self, number: int) -> ToolContext:
        desk, run = self._desk, self._desk.run
        return ToolContext(
            run_id=run.id,
            task_id=run.task.id,
            session=run.task.session,
            user=run.task.user,
            agent=desk.agent.name,
            assignment=desk.assignment,
            notes=run.notes,
            key=f"{run.id}/{desk.steps.place}/{number}",
        )


class _Wanted:
    """A tool call that a model asked for, and what was decided about it."""

    def __init__(self, desk: Desk, call: ToolCall) -> None:
        self.number = desk.steps.take()
        self.kept = desk.steps.kept(self.number)
        self.call = call
        self.tool: Tool | None = desk.tools.get(call.name)
        self.decisions: list[Decision] = []
        self.denied: str | None = None
        self.question: Question | None = None
        self.answer: str | None = None
        self.paid = False

    @property
    def done(self) -> bool:
        return "result" in self.kept

    @property
    def once(self) -> str:
        """The same for the same call, however often a model asks for it."""
        return f"{self.call.name} {json.dumps(self.call.arguments, sort_keys=True)}"


async def _decide(desk: Desk, wanted: _Wanted) -> None:
    """May the call be made, and must a person be asked first? Permissions and guardrails say."""
    tool, run = wanted.tool, desk.run
    if tool is None:
        return
    arguments: JsonValue = dict(wanted.call.arguments)
    arguments, guarded = await run.guards.check_json("call", arguments, agent=desk.agent.name, tool=tool.name)
    wanted.decisions += guarded.decisions
    if guarded.blocked is None and isinstance(arguments, dict):
        wanted.call = wanted.call.model_copy(update={"arguments": arguments})
    # What the tool would really get is what the table decides about.
    permission = run.crew.permissions.decide(desk.agent.name, tool, wanted.call.arguments)
    if run.crew.permissions or permission.action != "allow":
        wanted.decisions.append(permission)
    if permission.action == "deny":
        wanted.denied = permission.reason
    elif guarded.blocked is not None:
        wanted.denied = guarded.blocked
    elif tool.asks:
        _consult(desk, wanted, "answer", _asked(tool, wanted.call))
    elif guarded.ask is not None:
        _consult(desk, wanted, "guardrail", f"{_may(wanted.call)} {guarded.ask}")
    elif permission.action == "ask":
        _consult(desk, wanted, "approve_call", f"{_may(wanted.call)} {permission.reason}")


def _consult(desk: Desk, wanted: _Wanted, kind: Any, text: str) -> None:
    """Takes the person's word where it was given, and puts the question where not."""
    word = wanted.kept.get("answer")
    if desk.run.store is None:
        wanted.denied = NOBODY
    elif word is None:
        wanted.question = Question(
            id=f"{desk.steps.place}/{wanted.number}",
            kind=kind,
            agent=desk.agent.name,
            assignment=desk.assignment,
            tool=wanted.call.name,
            arguments=dict(wanted.call.arguments),
            text=text,
        )
    elif kind == "answer":
        wanted.answer = str(word)
    else:
        consent = Consent.model_validate(word)
        wanted.decisions.append(consent.decision(kind, "call"))
        wanted.denied = None if consent.approved else consent.refusal


def _made_before(tool: Tool, result: CallResult | None) -> CallResult:
    """The answer to a call that was made before, of a tool that is called once only."""
    told = f"{tool.name} was called with these arguments before and is not called again"
    if result is not None and result.status in ("ok", "invalid"):
        return CallResult(status="denied", content=f"{told}; it said: {result.content}")
    return CallResult(status="unknown", content=f"{told}; it may have taken effect")


def _may(call: ToolCall) -> str:
    return f"May {call.name} be called with {json.dumps(call.arguments, ensure_ascii=False)}?"


def _asked(tool: Tool, call: ToolCall) -> str:
    return next((str(value) for value in call.arguments.values()), tool.description)
