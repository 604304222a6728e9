"""Runs as they are recorded, of an agent that learns as `lookup@3`."""

from collections.abc import Sequence
from typing import Any

import pytest

from journeyman.traces.messages import Message, Usage
from journeyman.traces.trace import Outcome, Status, Trace, Trajectory, Turn


@pytest.fixture
def turn() -> Any:
    return _turn


@pytest.fixture
def run() -> Any:
    return _run


def _turn(
    name: str,
    *,
    prompt: Sequence[int] = (1, 2, 3),
    reply: Sequence[int] = (7, 8),
    policy: str = "lookup@3.0",
    agent: str = "lookup",
    at: int = 0,
    **more: Any,
) -> Turn:
    fields: dict[str, Any] = {
        "served_by": policy,
        "adapter_digest": "d",
        "response": Message(role="assistant", content="!"),
        "prompt_token_ids": tuple(prompt),
        "token_ids": tuple(reply),
        "logprobs": tuple(-0.5 for _ in reply),
        "usage": Usage(input_tokens=len(prompt), output_tokens=len(reply)),
        "finish_reason": "stop",
    }
    return Turn(
        span_id=name,
        agent=agent,
        policy=policy,
        messages=(Message(role="user", content="?"),),
        started_ns=at,
        ended_ns=at + 1,
        **(fields | more),
    )


def _run(trace_id: str, *turns: Turn, status: Status = "ok") -> Trace:
    work = Trajectory(
        span_id=f"{trace_id}-work", agent="lookup", parent=None, status=status, turns=turns, started_ns=0, ended_ns=9
    )
    return Trace(
        trace_id=trace_id,
        task=None,
        trajectories=(work,),
        outcome=Outcome(task_id="t", trace_id=trace_id, status=status),
        started_ns=0,
        ended_ns=9,
    )
