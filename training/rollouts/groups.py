"""Groups: the turns of many rollouts as rows, each beside those that it may be compared with.

Turns are compared where they differ in nothing but the draw: those of one agent, in one role, shown the same prompt.
A later turn's prompt holds what was sampled before it, so that often no other rollout has it; such turns are compared
with those of the same task and role. That is right in the mean, for no turn moves its own baseline by what it said,
and noisier, because the prompts differ.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from math import sqrt
from statistics import fmean, stdev
from typing import Literal, NamedTuple

from journeyman.traces.assemble import turn_refusal
from journeyman.traces.base import Record
from journeyman.traces.trace import Trace, Trajectory, Turn
from journeyman.training.rollouts.rows import TurnRow

FLAT = 1e-6
"""Rewards of a group that lie no further apart are one reward: nothing in it is better than the rest."""

SMALL = 1e-4
"""Added to a deviation that is divided by, as TRL does."""

Scale = Literal["agent", "group", "none"]
"""What advantages are divided by: the deviation of all the agent's turns of the step (Dr. MAS, arXiv 2602.08847), that
of their own group (GRPO, arXiv 2402.03300), or nothing (Dr. GRPO, arXiv 2503.20783)."""


class Rewarded(NamedTuple):
    """A rollout, and what its turns came to."""

    task: str
    """What tells its task from others."""
    trace: Trace
    rewards: Mapping[str, float]
    """By span id."""


class Counts(Record):
    """What became of the turns of the agent that learns."""

    turns: int
    """All of them."""
    rows: int
    """Those that are learned from."""
    groups: int
    """With more than one turn."""
    flat: int
    """Groups whose turns all came to the same, so that nothing can be learned from them."""
    alone: int
    """Turns that have no other to be compared with."""
    masked: int
    """Turns that were compared and are not learned from: cut off at their limit, or too long."""
    refused: Mapping[str, int]
    """Turns that are not what the server sampled, by reason."""

    @property
    def flat_share(self) -> float:
        return self.flat / self.groups if self.groups else 0.0


class Grouped(NamedTuple):
    rows: tuple[TurnRow, ...]
    counts: Counts


def turn_rows(
    rollouts: Iterable[Rewarded],
    agent: str,
    *,
    versions: Mapping[str, int],
    scale: Scale = "agent",
    mask_truncated: bool = True,
    longest: int | None = None,
) -> Grouped:
    """The rows of one step.

    `versions` are the learner's policies, each with its number: a turn of another one is refused. A row that is longer
    than `longest` tokens, prompt and reply together, is masked, and one that was cut off where `mask_truncated` says
    so. Both count in the mean of their group.
    """
    refused, turns = Counter[str](), list[_Compared]()
    for rollout in rollouts:
        for trajectory in rollout.trace.trajectories:
            for turn, role in _roles(trajectory, agent):
                if (reason := _refusal(turn, versions)) is not None:
                    refused[reason] += 1
                else:
                    turns.append(_Compared(rollout, turn, role, versions[turn.policy]))
    groups = _groups(turns)
    several = [(key, group) for key, group in groups.items() if len(group) > 1]
    telling = [(key, group) for key, group in several if _spread(group) > FLAT]
    rows = _scaled([row for key, group in telling for row in _rows(key, group, scale)], scale)
    kept = [row for row in rows if not _masked(row, mask_truncated, longest)]
    counts = Counts(
        turns=len(turns) + refused.total(),
        rows=len(kept),
        groups=len(several),
        flat=len(several) - len(telling),
        alone=sum(len(group) == 1 for group in groups.values()),
        masked=len(rows) - len(kept),
        refused=dict(refused.most_common()),
    )
    return Grouped(tuple(kept), counts)


class _Compared(NamedTuple):
    rollout: Rewarded
    turn: Turn
    role: str
    version: int

    @property
    def reward(self) -> float:
        return self.rollout.rewards[self.turn.span_id]


def _roles(trajectory: Trajectory, agent: str) -> Iterator[tuple[Turn, str]]:
    """The agent's turns, each with its role: which turn of its work it is, and whether it answers a complaint."""
    complaint = False
    for number, turn in enumerate(sorted(trajectory.turns, key=lambda turn: turn.started_ns), 1):
        if turn.agent == agent:
            yield turn, f"turn {number}{' again' if complaint else ''}"
        complaint = turn.error is not None


def _refusal(turn: Turn, versions: Mapping[str, int]) -> str | None:
    """Why the turn can't be learned from; a reply that could not be used can: that is what it is taught."""
    refusal = turn_refusal(
        withheld=turn.withheld,
        answered=turn.response is not None,
        failed=turn.response is None,
        finish_reason="stop",
        policy=turn.policy,
        served_by=turn.served_by,
        adapter_digest=turn.adapter_digest,
        weights=turn.weights,
        demonstration=turn.demonstration,
        prompted=bool(turn.prompt_token_ids),
        token_ids=turn.token_ids,
        logprobs=turn.logprobs,
    )
    return refusal or (None if turn.policy in versions else "asked of another policy")


def _groups(turns: Sequence[_Compared]) -> dict[str, list[_Compared]]:
    """By their keys: one of turns with a prompt in common, or of all others of a task and role."""
    shown: dict[tuple[str, str, str], list[_Compared]] = defaultdict(list)
    for turn in turns:
        prompt = sha256(repr(tuple(turn.turn.prompt_token_ids or ())).encode()).hexdigest()[:12]
        shown[turn.rollout.task, turn.role, prompt].append(turn)
    groups: dict[str, list[_Compared]] = defaultdict(list)
    for (task, role, prompt), same in shown.items():
        groups[f"{task} {role} {prompt}" if len(same) > 1 else f"{task} {role}"] += same
    return groups


def _rows(key: str, group: Sequence[_Compared], scale: Scale) -> Iterator[TurnRow]:
    mean = fmean(one.reward for one in group)
    deviation = stdev(one.reward for one in group) + SMALL if scale == "group" else 1.0
    for one in group:
        turn = one.turn
        assert turn.prompt_token_ids and turn.token_ids and turn.logprobs
        yield TurnRow(
            agent=turn.agent,
            role=one.role,
            group=key,
            trace_id=one.rollout.trace.trace_id,
            span_id=turn.span_id,
            prompt_ids=tuple(turn.prompt_token_ids),
            completion_ids=turn.token_ids,
            old_logprobs=turn.logprobs,
            reward=one.reward,
            advantage=(one.reward - mean) / deviation,
            truncated=turn.finish_reason == "length",
            version=one.version,
        )


def _spread(group: Sequence[_Compared]) -> float:
    rewards = [one.reward for one in group]
    return max(rewards) - min(rewards)


def _scaled(rows: list[TurnRow], scale: Scale) -> list[TurnRow]:
    if scale != "agent" or not rows:
        return rows
    deviation = sqrt(fmean(row.advantage**2 for row in rows)) + SMALL
    return [row.model_copy(update={"advantage": row.advantage / deviation}) for row in rows]


def _masked(row: TurnRow, mask_truncated: bool, longest: int | None) -> bool:
    tokens = len(row.prompt_ids) + len(row.completion_ids)
    return (mask_truncated and row.truncated) or (longest is not None and tokens > longest)
