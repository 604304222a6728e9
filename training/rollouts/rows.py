"""A turn as GRPO learns from it: the server's own tokens and logprobs, and what the turn was worth beside its group."""

from journeyman.traces.base import Record


class TurnRow(Record):
    """One model call of the agent that learns, in one rollout."""

    agent: str
    role: str
    """Which turn of the agent's work it is, and whether it answers a complaint: `turn 2 again`."""
    group: str
    """Rows of one group are compared with each other, and with nothing else."""
    trace_id: str
    span_id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    old_logprobs: tuple[float, ...]
    """Natural-log probability of each of `completion_ids`, as the server sampled it, at temperature 1."""
    reward: float
    """What the turn came to, before it is compared."""
    advantage: float
    """How much better than the mean of its group, divided as `[rollouts] scale` says."""
    weight: float = 1.0
    """Factor on the row's loss."""
    truncated: bool = False
    """The reply was cut off at its limit."""
    version: int
    """Steps that the weights had learned for which sampled it, 0 at first."""
