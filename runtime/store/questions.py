"""Questions: what a run asks a person, and waits for."""

import re
from typing import Any, Literal

from pydantic import ValidationError

from journeyman.agents.decision import Decision, Point
from journeyman.agents.orchestrator import write_plan
from journeyman.agents.plan import Plan
from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError

QuestionKind = Literal["approve_call", "approve_plan", "guardrail", "answer"]
"""`answer` wants a text; the others yes or no."""


class Question(Record):
    """What a run asks a person: for consent to a step, or for an answer in words."""

    id: str
    """`<step key>/<number>`: the call of the run that waits."""
    kind: QuestionKind
    agent: str
    assignment: str | None = None
    tool: str | None = None
    arguments: dict[str, Any] | None = None
    text: str
    """What is asked, in words."""
    decisions: tuple[Decision, ...] = ()
    """What was decided before it came to this; they go into the record with what a person says."""
    content: str | None = None
    """For a guardrail's question about a text: what goes on where a person agrees."""

    @property
    def step_key(self) -> str:
        return self.id.rpartition("/")[0]

    @property
    def order(self) -> tuple[int, ...]:
        """A key that sorts questions as the plan does, e.g. `2.2/1` before `2.10/1`."""
        return tuple(map(int, re.findall(r"\d+", self.id)))

    @property
    def number(self) -> int:
        return int(self.id.rpartition("/")[2])


class Consent(Record):
    """A person's word on a question that wants yes or no."""

    approved: bool
    reason: str = ""

    @property
    def refusal(self) -> str:
        return f"a person refused it{': ' + self.reason if self.reason else ''}"

    def decision(self, kind: QuestionKind, point: Point | Literal["plan"]) -> Decision:
        action: Literal["allow", "deny"] = "allow" if self.approved else "deny"
        return Decision(source="person", name=kind, point=point, action=action, reason=self.reason)


def about_plan(plan: Plan) -> str:
    """What is asked about a plan that needs a person's approval."""
    return f"May the crew follow this plan? {write_plan(plan)}"


def read_word(word: object) -> str | Consent:
    """What a person said, from a program that has no `Consent`; raises `ConfigError` for what is no word."""
    if isinstance(word, str | Consent):
        return word
    said = {"approved": word} if isinstance(word, bool) else word
    try:
        return Consent.model_validate(said)
    except ValidationError:
        raise ConfigError(
            f'{word!r} answers nothing: give a text, or yes or no as true, false, {{"approved": true, "reason": "..."}}'
        ) from None
