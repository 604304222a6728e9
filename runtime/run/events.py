"""Events: what `Runtime.stream` tells while a run goes on, in the order in which it happens."""

from typing import Any, Literal

from journeyman.agents.budget import Spent
from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.runtime.store.questions import Question
from journeyman.traces.base import Record
from journeyman.traces.trace import CallStatus, Outcome


class PlanMade(Record):
    """Also after replanning: the whole plan then, with what was done before."""

    kind: Literal["plan"] = "plan"
    plan: Plan


class WorkerStarted(Record):
    """A worker begins an assignment."""

    kind: Literal["worker"] = "worker"
    assignment: Assignment


class Token(Record):
    """A piece of a reply while it is written.

    Only where the run was asked for `tokens`, and no guardrail may stop or change a call, an output or the answer: it
    must see the whole of a text before anybody else does. The pieces of one `call` make up its reply. What was kept
    from before an interruption is not told again.
    """

    kind: Literal["token"] = "token"
    agent: str
    assignment: str | None
    call: str
    """The model call, by the id of its span."""
    text: str


class ReplyBroken(Record):
    """A reply broke off after pieces of it were shown: the pieces of its `call` so far count no longer.

    The reply begins again, in the same call or in one to another policy; or the agent's work fails.
    """

    kind: Literal["broken"] = "broken"
    agent: str
    assignment: str | None
    call: str


class ToolCalled(Record):
    """A tool is called."""

    kind: Literal["tool_call"] = "tool_call"
    agent: str
    assignment: str | None
    tool: str
    arguments: dict[str, Any]


class ToolUsed(Record):
    """A tool call ended, well or not."""

    kind: Literal["tool"] = "tool"
    agent: str
    assignment: str | None
    tool: str
    status: CallStatus
    result: str
    """What the agent is shown: the result, or in one line what went wrong."""


class ReportFiled(Record):
    """An assignment ended."""

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
    """The run ended: always the last event."""

    kind: Literal["ended"] = "ended"
    outcome: Outcome


Event = (
    PlanMade
    | WorkerStarted
    | Token
    | ReplyBroken
    | ToolCalled
    | ToolUsed
    | ReportFiled
    | SpentSoFar
    | Asked
    | Answered
    | Ended
)
"""What `Runtime.stream` yields."""
