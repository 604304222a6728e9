"""Permitting: whether a tool call may be made, and what a person must say about it or about what it gave."""

import json
from collections.abc import Container
from typing import Any

from journeyman.agents.decision import Decision
from journeyman.runtime.run.agent_run import AgentRun
from journeyman.runtime.run.approval import NOBODY
from journeyman.runtime.store.questions import Consent, Question, QuestionKind
from journeyman.tools.call import CallResult
from journeyman.tools.tool import Tool
from journeyman.traces.messages import ToolCall


class Wanted:
    """A tool call that a model asked for, and what was decided about it."""

    def __init__(self, agent_run: AgentRun, call: ToolCall) -> None:
        self.number = agent_run.steps.take()
        self.kept = agent_run.steps.kept(self.number)
        self.call = call
        self.tool: Tool | None = agent_run.tools.get(call.name)
        self.decisions: list[Decision] = []
        self.denied: str | None = None
        self.question: Question | None = None
        self.answer: str | None = None
        self.released: CallResult | None = None
        """Of a call that was made, after a person has seen what it gave."""
        self.paid = False
        self.over_budget: str | None = None
        """Which limit stood in the way."""
        self.first = self
        """Of the same calls in one turn, where one word of a person is enough for all: the one he is asked about."""
        self._agent_run = agent_run

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

    def ask(self, step_key: str, kind: QuestionKind, text: str, content: str | None = None) -> None:
        self.question = Question(
            id=f"{step_key}/{self.number}",
            kind=kind,
            agent=self._agent_run.agent.name,
            assignment=self._agent_run.assignment,
            tool=self.call.name,
            arguments=dict(self.call.arguments),
            text=text,
            content=content,
            decisions=tuple(self.decisions),
        )


async def decide(agent_run: AgentRun, wanted: Wanted, made: Container[str]) -> None:
    """May the call be made, and must a person be asked first? Those `made` are not made again."""
    tool = wanted.tool
    if tool is None:
        return
    if (held := wanted.kept.get("held")) is not None:
        await _release(agent_run, wanted, tool, held)
    elif (asked := wanted.first.kept.get("question")) is not None:
        _heed(agent_run, wanted, tool, Question.model_validate(asked), wanted.first.kept["answer"])
    else:
        await _judge(agent_run, wanted, tool, made)


def withheld(tool: Tool, reason: str) -> CallResult:
    return CallResult(status="denied", content=f"the result of {tool.name} was withheld: {reason}")


async def _release(agent_run: AgentRun, wanted: Wanted, tool: Tool, held: Any) -> None:
    """The result that a person was to see first, as he says; the question again where he has not said anything."""
    question = Question.model_validate(held["question"])
    word = (await agent_run.run.steps(question.step_key)).kept(question.number).get("answer")
    if word is None:
        wanted.question = question
        return
    consent = Consent.model_validate(word)
    wanted.decisions.append(consent.decision("guardrail", "result"))
    wanted.released = CallResult.model_validate(held["result"]) if consent.approved else withheld(tool, consent.refusal)


def _heed(agent_run: AgentRun, wanted: Wanted, tool: Tool, question: Question, word: Any) -> None:
    """Does what a person said, about the very call that he was shown: guardrails do not check it again."""
    wanted.call = wanted.call.model_copy(update={"arguments": question.arguments or {}})
    wanted.decisions += question.decisions
    permission = agent_run.run.crew.permissions.decide(agent_run.agent.name, tool, wanted.call.arguments)
    if permission.action == "deny":
        wanted.decisions.append(permission)
        wanted.denied = permission.reason
    elif question.kind == "answer":
        wanted.answer = str(word)
    else:
        consent = Consent.model_validate(word)
        wanted.decisions.append(consent.decision(question.kind, "call"))
        wanted.denied = None if consent.approved else consent.refusal


async def _judge(agent_run: AgentRun, wanted: Wanted, tool: Tool, made: Container[str]) -> None:
    """What permissions and guardrails say of a call that nobody was asked about yet."""
    run, call = agent_run.run, wanted.call
    arguments, guarded = await run.guards.check_json(
        "call", dict(call.arguments), agent=agent_run.agent.name, tool=tool.name
    )
    wanted.decisions += guarded.decisions
    if guarded.blocked is None:
        call = wanted.call = call.model_copy(update={"arguments": arguments})
    # What the tool would really get is what the table decides about.
    permission = run.crew.permissions.decide(agent_run.agent.name, tool, call.arguments)
    if run.crew.permissions or permission.action != "allow":
        wanted.decisions.append(permission)
    wants = [*([guarded.ask] if guarded.ask else []), *([permission.reason] if permission.action == "ask" else [])]
    if permission.action == "deny":
        wanted.denied = permission.reason
    elif guarded.blocked is not None:
        wanted.denied = guarded.blocked
    elif not (wants or tool.asks) or wanted.once in made or not _readable(tool, call):
        return  # Nobody need be asked; also not about a call that will not be made whatever he says.
    elif run.store is None:
        wanted.denied = NOBODY
    elif tool.asks:
        wanted.ask(agent_run.steps.step_key, "answer", _asked(tool, call))
    else:
        kind: QuestionKind = "guardrail" if guarded.ask else "approve_call"
        wanted.ask(agent_run.steps.step_key, kind, f"{_may(call)} {'; '.join(wants)}")


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
