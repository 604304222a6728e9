"""A turn as GRPO learns from it: the server's own tokens and logprobs, and what the turn was worth beside its group."""

from journeyman.traces.base import Record


class TurnRow(Record):
    """One model call of the agent that learns, in one rollout."""

    agent: str
    role: str
    """What the agent did in that turn, such as `plan` or the number of its call; see `groups`."""
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
    """How much better than the rest of its group, normalised over the agent's turns."""
    weight: float = 1.0
    """Of the row in the loss; 0 masks it, as for a reply that was cut off."""
    truncated: bool = False
    """The reply was cut off at its limit."""
    version: int
    """The number N of the adapter `agent@N` that sampled it; 0 for the base model."""
