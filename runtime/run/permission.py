"""Permission: whether a tool call may be made, and what a person must say about it or about what it gave."""

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from journeyman.agents.decision import Decision
from journeyman.runtime.run.agent_run import AgentRun
from journeyman.runtime.run.approval import NOBODY
from journeyman.runtime.store.questions import Consent, Question, QuestionKind
from journeyman.tools.call import CallResult
from journeyman.tools.tool import Tool
from journeyman.traces.messages import ToolCall


@dataclass(frozen=True, kw_only=True)
class WantedCall:
    """A tool call that a model asked for, and what is known of it from before an interruption."""

    number: int
    """Of the step: the same whenever the work is done again."""
    kept: Mapping[str, Any]
    call: ToolCall
    tool: Tool | None

    @property
    def done(self) -> bool:
        return "result" in self.kept

    @property
    def needs_one_word(self) -> bool:
        """However often it is asked for in a turn: it is made once only, or is itself a question."""
        return self.tool is not None and (self.tool.asks or not self.tool.idempotent)

    @property
    def once(self) -> str:
        """The same for the same call, however often a model asks for it, and whether it writes the defaults down."""
        defaults = {} if self.tool is None else self.tool.defaults
        return f"{self.call.name} {json.dumps({**defaults, **self.call.arguments}, sort_keys=True)}"

    def with_arguments(self, arguments: Mapping[str, Any]) -> "WantedCall":
        return replace(self, call=self.call.model_copy(update={"arguments": arguments}))

    def question(
        self,
        agent_run: AgentRun,
        kind: QuestionKind,
        text: str,
        decisions: tuple[Decision, ...],
        *,
        content: str | None = None,
    ) -> Question:
        """What a person is asked about the call, or, where there is `content`, about what it gave."""
        key = agent_run.steps.step_key
        return Question(
            id=f"{key if content is None else f'{key}.result'}/{self.number}",
            kind=kind,
            agent=agent_run.agent.name,
            assignment=agent_run.assignment,
            tool=self.call.name,
            arguments=dict(self.call.arguments),
            text=text,
            content=content,
            decisions=decisions,
        )


@dataclass(frozen=True, kw_only=True)
class Allow:
    """The call may be made."""

    wanted: WantedCall
    """With the arguments that guardrails left, or that a person was shown."""
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Deny:
    wanted: WantedCall
    result: CallResult
    """What the model is told instead."""
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A person must be asked first; also about the result of a call that was made."""

    wanted: WantedCall
    question: Question
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A person's text is the result."""

    wanted: WantedCall
    text: str
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Release:
    """The result of a call that was made before a person was asked about it, as they let it go on."""

    wanted: WantedCall
    result: CallResult
    decisions: tuple[Decision, ...] = ()


Ruling: TypeAlias = Allow | Deny | Ask | Answer | Release


async def rule(agent_run: AgentRun, wanted: WantedCall, first: WantedCall, made: Container[str]) -> Ruling:
    """May the call be made, and must a person be asked first?

    `first` is the first of the same calls in a turn, where one word is enough for all. Those `made` are not made again.
    """
    tool = wanted.tool
    if tool is None:
        have = ", ".join(agent_run.tools) or "none"
        unknown = CallResult(status="invalid", content=f"there is no tool {wanted.call.name!r}; there are: {have}")
        return Deny(wanted=wanted, result=unknown)
    if (held := wanted.kept.get("held")) is not None:
        return await _released(agent_run, wanted, tool, held)
    if (asked := first.kept.get("question")) is not None:
        return _heeded(agent_run, wanted, tool, Question.model_validate(asked), first.kept["answer"])
    return await _judged(agent_run, wanted, tool, made)


def withheld(tool: Tool, reason: str) -> CallResult:
    return CallResult(status="denied", content=f"the result of {tool.name} was withheld: {reason}")


def not_called(tool: Tool, reason: str) -> CallResult:
    return CallResult(status="denied", content=f"{tool.name} was not called: {reason}")


async def _released(agent_run: AgentRun, wanted: WantedCall, tool: Tool, held: Any) -> Release | Ask:
    """The result that a person was to see first, as they say; the question again where they have not said anything."""
    question = Question.model_validate(held["question"])
    word = (await agent_run.run.steps(question.step_key)).kept(question.number).get("answer")
    if word is None:
        return Ask(wanted=wanted, question=question)
    consent = Consent.model_validate(word)
    result = CallResult.model_validate(held["result"]) if consent.approved else withheld(tool, consent.refusal)
    return Release(wanted=wanted, result=result, decisions=(consent.decision("guardrail", "result"),))


def _heeded(agent_run: AgentRun, wanted: WantedCall, tool: Tool, question: Question, word: Any) -> Ruling:
    """What a person said, about the very call that they were shown: guardrails do not check it again."""
    wanted = wanted.with_arguments(question.arguments or {})
    permission = agent_run.run.crew.permissions.decide(agent_run.agent.name, tool, wanted.call.arguments)
    if permission.action == "deny":
        denied = not_called(tool, permission.reason)
        return Deny(wanted=wanted, result=denied, decisions=(*question.decisions, permission))
    if question.kind == "answer":
        return Answer(wanted=wanted, text=str(word), decisions=question.decisions)
    consent = Consent.model_validate(word)
    decisions = (*question.decisions, consent.decision(question.kind, "call"))
    if consent.approved:
        return Allow(wanted=wanted, decisions=decisions)
    return Deny(wanted=wanted, result=not_called(tool, consent.refusal), decisions=decisions)


async def _judged(agent_run: AgentRun, wanted: WantedCall, tool: Tool, made: Container[str]) -> Ruling:
    """What permissions and guardrails say of a call that nobody was asked about yet."""
    run, agent = agent_run.run, agent_run.agent.name
    arguments, guarded = await run.guards.check_json("call", dict(wanted.call.arguments), agent=agent, tool=tool.name)
    if guarded.blocked is None:
        wanted = wanted.with_arguments(arguments)
    # What the tool would really get is what the table decides about.
    permission = run.crew.permissions.decide(agent, tool, wanted.call.arguments)
    decisions = tuple(guarded.decisions)
    if run.crew.permissions or permission.action != "allow":
        decisions = (*decisions, permission)
    wants = [*([guarded.ask] if guarded.ask else []), *([permission.reason] if permission.action == "ask" else [])]
    denied = permission.reason if permission.action == "deny" else guarded.blocked
    # Nobody need be asked about a call that will not be made whatever they say.
    asks = denied is None and bool(wants or tool.asks) and wanted.once not in made and _readable(tool, wanted.call)
    if asks and run.store is None:
        denied = NOBODY
    if denied is not None:
        return Deny(wanted=wanted, result=not_called(tool, denied), decisions=decisions)
    if not asks:
        return Allow(wanted=wanted, decisions=decisions)
    if tool.asks:
        return Ask(wanted=wanted, question=wanted.question(agent_run, "answer", _asked(tool, wanted.call), decisions))
    kind: QuestionKind = "guardrail" if guarded.ask else "approve_call"
    text = f"{_may(wanted.call)} {'; '.join(wants)}"
    return Ask(wanted=wanted, question=wanted.question(agent_run, kind, text, decisions), decisions=decisions)


def _readable(tool: Tool, call: ToolCall) -> bool:
    try:
        tool.arguments.read(dict(call.arguments))
    except Exception:  # A validator is the tool's code too; the call will say what it raised.
        return False
    return True


def _may(call: ToolCall) -> str:
    return f"May {call.name} be called with {json.dumps(call.arguments, ensure_ascii=False)}?"


def _asked(tool: Tool, call: ToolCall) -> str:
    return next((str(value) for value in call.arguments.values()), tool.description)
