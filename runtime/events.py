"""Events: what `Runtime.stream` tells while a run goes on, in the order in which it happens."""

from typing import Any, Literal

from journeyman.agents.budget import Spent
from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.runtime.questions import Question
from journeyman.traces.record import Record
from journeyman.traces.trace import CallStatus, Outcome


class PlanMade(Record):
    """Also after replanning: the whole plan then, with what was done before."""

    kind: Literal["plan"] = "plan"
    plan: Plan


class WorkerStarted(Record):
    kind: Literal["worker"] = "worker"
    assignment: Assignment


class Token(Record):
    """A piece of a reply while it is written, before any guardrail has seen the whole of it.

    Only where the run was asked for `tokens`.
    """

    kind: Literal["token"] = "token"
    agent: str
    assignment: str | None
    text: str


class ToolCalled(Record):
    kind: Literal["tool_call"] = "tool_call"
    agent: str
    assignment: str | None
    tool: str
    arguments: dict[str, Any]


class ToolUsed(Record):
    kind: Literal["tool"] = "tool"
    agent: str
    assignment: str | None
    tool: str
    status: CallStatus


class ReportFiled(Record):
    kind: Literal["report"] = "report"
    report: Report


class SpentSoFar(Record):
    """After each model call."""

    kind: Literal["usage"] = "usage"
    spent: Spent


class Asked(Record):
    """A person is asked; the run waits for the answer after what else can be done is done."""

    kind: Literal["question"] = "question"
    question: Question


class Answered(Record):
    """The answer, before the run's last records are written."""

    kind: Literal["answer"] = "answer"
    answer: str


class Ended(Record):
    kind: Literal["ended"] = "ended"
    outcome: Outcome


Event = PlanMade | WorkerStarted | Token | ToolCalled | ToolUsed | ReportFiled | SpentSoFar | Asked | Answered | Ended
