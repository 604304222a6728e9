"""Events: what `Runtime.stream` tells while a run goes on, in the order in which it happens."""

from typing import Literal

from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.traces.record import Record
from journeyman.traces.trace import Outcome


class PlanMade(Record):
    kind: Literal["plan"] = "plan"
    plan: Plan


class WorkerStarted(Record):
    kind: Literal["worker"] = "worker"
    assignment: Assignment


class ToolUsed(Record):
    kind: Literal["tool"] = "tool"
    agent: str
    tool: str
    status: str


class ReportFiled(Record):
    kind: Literal["report"] = "report"
    report: Report


class Ended(Record):
    kind: Literal["ended"] = "ended"
    outcome: Outcome


Event = PlanMade | WorkerStarted | ToolUsed | ReportFiled | Ended
