"""The worker: a loop of turns in which it calls tools until it answers.

A turn is one JSON object: `{"<tool>": {<arguments>}}` or `{"answer": ...}`. Models without a tool-call template of
their own can write it, and a server that decodes under a schema can hold them to it. An agent with `parallel_calls`
over 1 writes its calls as a list of such objects. `agents/native.py` has the form of models with a template.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from pydantic import JsonValue

from journeyman.agents.agent import Agent
from journeyman.agents.calls import Calls, Used, told
from journeyman.agents.model import ModelReply, ToolChoice
from journeyman.agents.native import NativeForm
from journeyman.agents.plan import Assignment, Report
from journeyman.agents.prompt import opening, working_form
from journeyman.agents.reply import TruncatedReplyError, UnreadableReplyError, read_json
from journeyman.agents.trim import TokenCount, fit
from journeyman.agents.turn import ANSWER, Answering, Calling, RefusedAnswerError, answer_schema, keyed, read_output
from journeyman.agents.verify import refusal
from journeyman.tools.tool import Tool
from journeyman.traces.errors import OverBudgetError
from journeyman.traces.messages import Message, ToolCall

UNFOUNDED = "it rests on no tool call that went well; make one first"


class Form(Protocol):
    """How an agent is asked for a turn, and how what it said and what came of it is written down."""

    @property
    def tools(self) -> Sequence[Tool]:
        """Tools that the model's own template shows."""
        ...

    def choice(self, *, first: bool, last: bool) -> ToolChoice: ...

    def schema(self, *, first: bool, last: bool) -> dict[str, Any] | None: ...

    def read(self, reply: ModelReply, *, first: bool, last: bool) -> Calling | Answering: ...

    def results(self, calls: Sequence[ToolCall], used: Sequence[Used]) -> tuple[Message, ...]: ...


async def work(
    agent: Agent, assignment: Assignment, tools: Mapping[str, Tool], calls: Calls, earlier: Sequence[Message] = ()
) -> Report:
    """Does one assignment; raises `ModelError`, everything else that goes wrong is in the report.

    A reply that cannot be used is told to the model, `limits.repairs` times; an answer that a verifier refuses costs a
    turn, and so does one that repeats a complaint word for word. `earlier` is what the session said before this task.
    """
    form: Form = NativeForm(agent, tools) if agent.tool_calls == "native" else JsonForm(agent, tools)
    count = TokenCount([tool.parameters for tool in form.tools])
    messages = opening(working_form(agent, tools, calls.prompt), calls.policy, assignment.goal, earlier)
    keep, turn, repairs = len(messages), 0, 0
    evidence: list[str] = []
    complaints: set[str] = set()
    problem, final = None, False
    while turn < agent.limits.turns and repairs <= agent.limits.repairs:
        messages = fit(messages, agent.limits.prompt_tokens, count, keep=keep)
        try:
            said = await _ask(agent, assignment, form, calls, messages, count, turn, final, complaints, evidence)
        except OverBudgetError:
            if final or not evidence:
                raise
            # What the budget keeps for the end is enough to answer with what was found.
            final = True
            continue
        except TruncatedReplyError as cut:
            return Report(assignment=assignment, status="truncated", evidence=tuple(evidence), error=str(cut))
        except RefusedAnswerError as refused:
            turn, problem = turn + 1, str(refused)
            complaint = f"Your answer was not accepted: {problem}"
            messages = told((*messages, refused.message), complaint)
            complaints.add(complaint)
            continue
        except UnreadableReplyError as unreadable:
            repairs, problem = repairs + 1, str(unreadable)
            # The reply itself stays out of the history: some servers refuse every later request over unparsed text.
            complaint = f"Your last reply was not usable: {problem}"
            messages = told(messages, complaint)
            complaints |= {complaint, messages[-1].content.strip()}
            continue
        if isinstance(said, Answering):
            return Report(assignment=assignment, status="ok", output=said.output, evidence=tuple(evidence))
        used = await calls.use(said.calls)
        evidence += [one.span_id for one in used if one.result.status == "ok"]
        results = form.results(said.calls, used)
        complaints |= _complaints(said.calls, used, results)
        messages = (*messages, said.message, *results)
        turn, problem = turn + 1, None
    error = f"{repairs} unusable replies" if repairs > agent.limits.repairs else f"no answer in {turn} turns"
    error += f"; last: {problem}" if problem else ""
    return Report(assignment=assignment, status="failed", evidence=tuple(evidence), error=error)


async def _ask(
    agent: Agent,
    assignment: Assignment,
    form: Form,
    calls: Calls,
    messages: tuple[Message, ...],
    count: TokenCount,
    turn: int,
    final: bool,
    complaints: Collection[str],
    evidence: Sequence[str],
) -> Calling | Answering:
    first, last = turn == 0, final or turn == agent.limits.turns - 1

    def read(reply: ModelReply) -> Calling | Answering:
        count.learn(messages, reply.usage)
        said = form.read(reply, first=first, last=last)
        if isinstance(said, Answering):
            reason = (
                _repeated(said.output, complaints)
                or (UNFOUNDED if agent.rests_on_calls and not evidence else None)
                or refusal(agent.verify, said.output, assignment)
            )
            if reason is not None:
                # Refused within the call, so that the record of the call says so and nobody learns from the reply.
                raise RefusedAnswerError(reason, said.message)
        return said

    schema, choice = form.schema(first=first, last=last), form.choice(first=first, last=last)
    return await calls.ask(messages, schema, read, tools=form.tools, tool_choice=choice, final=final)


def _complaints(calls: Sequence[ToolCall], used: Sequence[Used], results: Sequence[Message]) -> set[str]:
    """What calls that did not go well said, as they said it and as the model was shown it."""
    said: set[str] = set()
    for call, one in zip(calls, used, strict=True):
        if one.result.status != "ok":
            said |= {one.result.content.strip(), f"{call.name}: {one.result.content}".strip()}
    return said | {results[0].content.strip()} if said and len(results) == 1 else said


def _repeated(output: JsonValue, complaints: Collection[str]) -> str | None:
    """Why a mere complaint is no answer. One that only mentions it may report what was found, so it passes."""
    values = output if isinstance(output, list) else [output]
    if any(str(value).strip() in complaints for value in values):
        return "it repeats a complaint; say what you found, or that you found nothing"
    return None


class JsonForm:
    """How an agent with `tool_calls = "json"` is asked and understood."""

    tools: Sequence[Tool] = ()

    def __init__(self, agent: Agent, tools: Mapping[str, Tool]) -> None:
        self._agent = agent
        self._known = tools

    def choice(self, *, first: bool, last: bool) -> ToolChoice:
        return "auto"

    def schema(self, *, first: bool, last: bool) -> dict[str, Any]:
        return turn_schema(self._agent, self._known, first=first, last=last)

    def read(self, reply: ModelReply, *, first: bool, last: bool) -> Calling | Answering:
        return read_turn(reply.content, self._agent, self._known, first=first, last=last)

    def results(self, calls: Sequence[ToolCall], used: Sequence[Used]) -> tuple[Message, ...]:
        lines = [f"{call.name}: {one.result.content}" for call, one in zip(calls, used, strict=True)]
        if len(lines) > 1:
            lines = [f"{number}. {line}" for number, line in enumerate(lines, start=1)]
        return (Message(role="user", content="\n".join(lines)),)


def turn_schema(agent: Agent, tools: Mapping[str, Tool], *, first: bool, last: bool) -> dict[str, Any]:
    """JSON schema of what `agent` may say on a turn: any of its tools, an answer, or both."""
    if not tools or last:
        return answer_schema(agent)
    choices = [keyed(name, tool.bare_parameters) for name, tool in tools.items()]
    if agent.parallel_calls > 1:
        one = choices[0] if len(choices) == 1 else {"anyOf": choices}
        choices = [{"type": "array", "items": one, "minItems": 1, "maxItems": agent.parallel_calls}]
    if not (first and agent.tool_first):
        choices.append(answer_schema(agent))
    return choices[0] if len(choices) == 1 else {"anyOf": choices}


def read_turn(
    text: str, agent: Agent, tools: Mapping[str, Tool], *, first: bool = False, last: bool = False
) -> Calling | Answering:
    """What a reply says; raises `UnreadableReplyError` with a reason the model can act on.

    It is held to what `turn_schema` asks for, because not every server decodes under a schema.
    """
    said = read_json(text)
    message = Message(role="assistant", content=text)
    last = last or not tools
    if isinstance(said, dict) and said.keys() == {ANSWER}:
        if first and agent.tool_first and not last:
            raise UnreadableReplyError(f"it must call a tool before it answers; there are: {', '.join(tools)}")
        return Answering(message=message, output=read_output(said[ANSWER], agent))
    calls = said if isinstance(said, list) and agent.parallel_calls > 1 else [said]
    if not 1 <= len(calls) <= agent.parallel_calls:
        raise UnreadableReplyError(f"it must have 1 to {agent.parallel_calls} calls")
    wanted = tuple(_call(one, tools) for one in calls)
    if last:
        raise UnreadableReplyError('no tool can be called any more: reply with {"answer": ...}')
    return Calling(message=message, calls=wanted)


def write_call(tool: str, arguments: dict[str, Any]) -> str:
    return json.dumps({tool: arguments}, ensure_ascii=False)


def write_answer(output: str | list[str]) -> str:
    return json.dumps({ANSWER: output}, ensure_ascii=False)


def _call(said: Any, tools: Mapping[str, Tool]) -> ToolCall:
    if not isinstance(said, dict) or len(said) != 1:
        raise UnreadableReplyError("it must be a JSON object with exactly one key: a tool's name, or answer")
    ((name, arguments),) = said.items()
    if name not in tools:
        raise UnreadableReplyError(f"there is no tool {name!r}; there are: {', '.join(tools) or 'none'}")
    if not isinstance(arguments, dict):
        raise UnreadableReplyError(f"the arguments of {name} must be a JSON object, as training wrote it")
    return ToolCall(id="", name=name, arguments=arguments)
