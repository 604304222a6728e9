"""Shorter paths: of several runs of one task that ended equally well, the cheapest are learned from."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import NamedTuple

from journeyman.traces.base import Record
from journeyman.training.data.accepted import not_accepted
from journeyman.training.data.edits import PERSON
from journeyman.training.data.replies import Replies
from journeyman.training.data.source import Source
from journeyman.training.data.student import Student

LONGER = "a shorter run of the task ended as well"

RUNS = """
SELECT trace_id, traces.task_id, prompt, model_calls + tool_calls AS steps, input_tokens + output_tokens AS tokens
FROM traces JOIN workflows USING (trace_id) WHERE traces.status = 'ok' ORDER BY trace_id
"""
USABLE = """
SELECT DISTINCT trace_id, prompt_form, demonstration FROM turns
WHERE agent = ? AND refusal IS NULL AND coalesce(trajectory_status, 'ok') = 'ok'
"""


class Lengths(Record):
    """Means over runs."""

    runs: int
    steps: float
    """Model calls and tool calls of a run, all agents together."""
    tokens: float
    """Read and generated."""


class Preferred(Record):
    """What preferring short runs does."""

    left_out: Mapping[str, str]
    """By trace id, why."""
    before: Lengths | None
    """Of runs that rows could come from; None where there are none."""
    after: Lengths | None
    """Of those that are left."""


class _Run(NamedTuple):
    trace_id: str
    steps: int
    tokens: int

    @property
    def length(self) -> tuple[int, int]:
        return self.steps, self.tokens


def prefer_short(source: Source) -> Preferred:
    """Of runs of one task with the same score, those with the fewest steps, then tokens, are taken; equal ones all are.

    A run competes only if rows can come of it: what is refused anyway displaces nothing.
    """
    scores, able = source.scores(), _able(source)
    by_outcome: defaultdict[tuple[str | None, str | None, float | None], list[_Run]] = defaultdict(list)
    for row in source.store.sql(RUNS).to_pylist():
        if (trace_id := row["trace_id"]) in able:
            outcome = row["task_id"], row["prompt"], scores.get(trace_id)
            by_outcome[outcome].append(_Run(trace_id, row["steps"], row["tokens"]))
    shortest = {outcome: min(run.length for run in runs) for outcome, runs in by_outcome.items()}
    every = [(run, run.length == shortest[outcome]) for outcome, runs in by_outcome.items() for run in runs]
    return Preferred(
        left_out={run.trace_id: LONGER for run, taken in every if not taken},
        before=_lengths(run for run, _ in every),
        after=_lengths(run for run, taken in every if taken),
    )


def _able(source: Source) -> set[str]:
    """Runs that rows of the agent can come from."""
    replies, student = Replies(source), Student(source.store, source.agent, source.form)
    policy = None if source.config.takes(PERSON) else source.config.policy
    unaccepted = not_accepted(source.store)
    wanted = {
        trace_id
        for trace_id in source.store.ids(**source.wanted(policy))
        if trace_id not in unaccepted and replies.run_refusal(trace_id) is None and replies.wants(trace_id)
    }
    return {
        row["trace_id"]
        for row in source.store.sql(USABLE, [source.agent]).to_pylist()
        if row["trace_id"] in wanted and student.refusal(row["prompt_form"], row["demonstration"]) is None
    }


def _lengths(runs: Iterable[_Run]) -> Lengths | None:
    counted = list(runs)
    if not counted:
        return None
    return Lengths(
        runs=len(counted), steps=fmean(run.steps for run in counted), tokens=fmean(run.tokens for run in counted)
    )
