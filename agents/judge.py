"""The judge: a model that says whether an answer is sufficient. It is asked only where a crew wants it.

It works as an agent of its own, `judge`, so that it has its own policy and nobody learns to plan from what it says.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from journeyman.agents.agent import Agent, Crew, default_instructions
from journeyman.agents.calls import Calls, ask_repaired
from journeyman.agents.plan import Plan, Report
from journeyman.agents.prompt import opening, working_form
from journeyman.agents.reply import TruncatedReplyError, UnreadableReplyError, read_json
from journeyman.agents.schedule import lost
from journeyman.traces.base import Record

JUDGE = "judge"
MAX_REASON_CHARS = 300
SCHEMA: dict[str, Any] = {
    "type": "object",
    # The reason first: a verdict that is written before its reason cannot rest on it.
    "properties": {
        "reason": {"type": "string", "minLength": 1, "maxLength": MAX_REASON_CHARS},
        "sufficient": {"type": "boolean"},
    },
    "required": ["reason", "sufficient"],
    "additionalProperties": False,
}


class Judgement(Record):
    sufficient: bool
    reason: str


def judge_of(crew: Crew) -> Agent | None:
    """The agent that judges the answers of `crew`, with its orchestrator's limits; None where nobody does."""
    orchestrator = crew.orchestrator
    if orchestrator is None or not orchestrator.judge:
        return None
    return Agent(name=JUDGE, instructions=default_instructions(JUDGE), limits=orchestrator.limits)


async def judge(
    agent: Agent, prompt: str, plan: Plan, reports: Mapping[str, Report], answer: str, calls: Calls
) -> Judgement:
    """Whether `answer` does what `prompt` asks; raises `ModelError`, and `UnreadableReplyError` for a second bad reply.

    The judge is told what was not found out, but never the text of an error.
    """
    form = working_form(agent, {}, calls.prompt)
    messages = opening(form, calls.policy, _question(prompt, plan, reports, answer))
    try:
        return await ask_repaired(calls, messages, SCHEMA, read_verdict, "verdict")
    except TruncatedReplyError as cut:
        raise UnreadableReplyError(str(cut)) from None


def read_verdict(text: str) -> Judgement:
    """The verdict in a reply; raises `UnreadableReplyError`."""
    said = read_json(text)
    try:
        return Judgement.model_validate(said, strict=True)
    except ValidationError:
        form = '{"reason": "...", "sufficient": true or false}'
        raise UnreadableReplyError(f"it must be a JSON object {form}") from None


def _question(prompt: str, plan: Plan, reports: Mapping[str, Report], answer: str) -> str:
    lines = [f"Task: {prompt}", f"Answer: {answer}" if answer else "There is no answer."]
    lines += [f"Not found out: {report.assignment.goal}" for report in lost(plan, reports)]
    return "\n".join(lines)
