"""Decisions: what a guardrail, a permission, a person or the budget said to a step of a run."""

import json
from collections.abc import Iterable
from typing import Literal

from pydantic import ConfigDict, Field

from journeyman.traces.base import Record, Words

Point = Literal["task", "agent", "call", "result", "output", "answer"]
"""Where texts are checked: the task before the crew sees it, an agent's goal, a tool call's arguments, a tool's result
before a model reads it, an agent's output, and the answer of the run."""


class Decision(Record):
    """One decision; the spans of a run hold all of them, so that an audit is a query."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True, validate_by_alias=True)

    source: Literal["guardrail", "permission", "person", "budget"]
    name: str
    """Of the guardrail, the row of the permission table, the person or the limit that decided."""
    point: Point | Literal["plan"] = Field(alias="place")
    action: Literal["allow", "deny", "ask", "block", "redact", "warn"]
    reason: Words = ""
    """In one line. What is in the box never quotes the text that was checked."""


def write_decisions(decisions: Iterable[Decision]) -> str:
    """The value of the attribute `journeyman.decisions`: a JSON list."""
    return json.dumps([decision.model_dump(mode="json") for decision in decisions], ensure_ascii=False)
