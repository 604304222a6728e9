"""Forks: where a replay leaves the record, and how the call there is asked anew."""

from typing import Literal

from journeyman.agents.agent import Crew
from journeyman.agents.judge import judge_of
from journeyman.agents.prompt import prompt_form
from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Trace


class Fork(Record):
    """Where a replay leaves the record: what began before is answered from it, the rest is live."""

    span_id: str
    agent: str
    at_ns: int


class Replacement(Record):
    """How the model call at a fork is asked anew, and what becomes of those behind it."""

    policy: str | None = None
    """Who is asked; None for the one that would be asked now."""
    temperature: float = 0.0
    seed: int = 0
    rest: Literal["live", "recorded"] = "live"
    """`recorded`: a later call that is asked as it was is answered as it was, so that the fork alone makes a
    difference."""


def find_fork(trace: Trace, prefix: str) -> Fork:
    """The agent, model call or tool call whose span id starts with `prefix`; raises `ConfigError`."""
    found = [fork for fork in _forks(trace) if fork.span_id.startswith(prefix.lower())]
    if len(found) == 1:
        return found[0]
    problem = (
        "more than one step has a span that starts with" if found else "no agent, model call or tool call has span"
    )
    raise ConfigError(f"{problem} {prefix!r}: `journeyman traces show {trace.trace_id[:12]} --json` has their ids")


def changed(trace: Trace, crew: Crew) -> str | None:
    """Why the crew would ask otherwise than the run did, in words fit for counting; None where it would not."""
    forms = {agent.name: prompt_form(agent, crew) for agent in crew.agents}
    if (judge := judge_of(crew)) is not None:
        forms[judge.name] = prompt_form(judge, crew)
    for turn in trace.turns:
        if turn.agent not in forms:
            return f"the crew has no agent {turn.agent} now"
        if not turn.messages or turn.messages[0].content != forms[turn.agent].instructions:
            return f"{turn.agent} is shown another prompt now"
    return None


def check_replaced(trace: Trace, crew: Crew, fork: Fork | None) -> None:
    """Raises `ConfigError` where the call at the fork can't be replaced."""
    short = trace.trace_id[:12]
    if fork is None or fork.span_id not in {turn.span_id for turn in trace.turns}:
        raise ConfigError(f"only a model call of trace {short} can be replaced: name one as the fork")
    if (reason := changed(trace, crew)) is not None:
        raise ConfigError(f"trace {short} can't be forked: {reason}; name the crew that it was made with")


def _forks(trace: Trace) -> list[Fork]:
    forks = []
    for trajectory in trace.trajectories:
        forks.append(Fork(span_id=trajectory.span_id, agent=trajectory.agent, at_ns=trajectory.started_ns))
        for turn in trajectory.turns:
            forks.append(Fork(span_id=turn.span_id, agent=turn.agent, at_ns=turn.started_ns))
            for result in turn.tool_results:
                forks.append(Fork(span_id=result.span_id, agent=turn.agent, at_ns=result.started_ns))
    return forks
