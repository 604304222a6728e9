"""Questions: what a run asks a person, and waits for."""

from typing import Any, Literal

from journeyman.agents.decision import Decision, Place
from journeyman.traces.record import Record

QuestionKind = Literal["approve_call", "approve_plan", "guardrail", "answer"]
"""`answer` wants a text; the others yes or no."""


class Question(Record):
    id: str
    """`<place>/<number>`: the call of the run that waits."""
    kind: QuestionKind
    agent: str
    assignment: str | None = None
    tool: str | None = None
    arguments: dict[str, Any] | None = None
    text: str
    """What is asked, in words."""

    @property
    def place(self) -> str:
        return self.id.rpartition("/")[0]

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

    def decision(self, kind: QuestionKind, place: Place | Literal["plan"]) -> Decision:
        action: Literal["allow", "deny"] = "allow" if self.approved else "deny"
        return Decision(source="person", name=kind, place=place, action=action, reason=self.reason)
