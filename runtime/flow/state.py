"""State: what the graph hands from step to step, and a checkpoint keeps."""

from operator import add, or_
from typing import Annotated, TypedDict

from journeyman.agents.budget import Spent
from journeyman.agents.decision import Decision
from journeyman.agents.plan import Assignment, Plan, Report
from journeyman.agents.review import Problem
from journeyman.traces.trace import Status


def _first(known: str | None, new: str | None) -> str | None:
    return known or new


class State(TypedDict, total=False):
    prompt: str
    """The task, as the guardrails left it."""
    plan: Plan
    reports: Annotated[dict[str, Report], or_]
    problems: tuple[Problem, ...]
    """What the last review found wrong with the answer."""
    spent: Annotated[Spent, add]
    """By the steps that are done."""
    over_budget: Annotated[str | None, _first]
    """Which limit stopped work, in words."""
    decisions: tuple[Decision, ...]
    """Over the run itself, from its beginning."""
    status: Status
    error: str | None
    answer: str
    evidence: tuple[str, ...]
    """Spans of the tool calls that the answer rests on."""


class Work(TypedDict):
    """What a worker is sent: its own assignment and nothing else."""

    assignment: Assignment
    tried: tuple[str, ...]
    """Work in whose place it is done, the first of it first."""


def merged(state: State, update: State) -> State:
    """The state after an update, by the rules that are written at its keys, as LangGraph merges it."""
    merged: State = {**state, **update}
    if "reports" in state and "reports" in update:
        merged["reports"] = state["reports"] | update["reports"]
    if "spent" in state and "spent" in update:
        merged["spent"] = state["spent"] + update["spent"]
    if "over_budget" in state and "over_budget" in update:
        merged["over_budget"] = _first(state["over_budget"], update["over_budget"])
    return merged
