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


def read_word(word: object, question: Question | None = None) -> str | Consent:
    """What a person said to `question`, in the words of a program that has no `Consent`; raises `ConfigError`.

    Where yes or no is wanted these are `true`, `false`, `{"approved": ..., "reason": ...}`, or a text that begins with
    yes or no and goes on with the reason, if there is one.
    """
    if isinstance(word, str):
        return word if question is None or question.kind == "answer" else _read_consent(word, question)
    try:
        return Consent.model_validate({"approved": word} if isinstance(word, bool) else word)
    except ValidationError:
        raise ConfigError(
            f'{word!r} answers nothing: give a text, or yes or no as true, false, {{"approved": true, "reason": '
            '"..."}; what is asked about cannot be edited, so say no, and in the reason what would be right'
        ) from None


def _read_consent(said: str, question: Question) -> Consent:
    first, _, reason = " ".join(said.split()).partition(" ")
    word = first.lower().strip(",.:;!")
    if word not in ("yes", "no"):
        raise ConfigError(
            f"question {question.id} does not want an answer: say yes or no, then a reason if there is one"
        )
    return Consent(approved=word == "yes", reason=reason)
