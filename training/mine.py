"""Mining: recorded runs become samples for one agent; what may not be learned from is refused, counted and shown."""

from collections import Counter
from collections.abc import Iterable, Iterator

from pydantic import Field

from journeyman.traces.assemble import refusal
from journeyman.traces.record import Config, Record
from journeyman.traces.trace import Trace, Trajectory, Turn
from journeyman.training.samples import SFTSample


class MineConfig(Config):
    """Which turns are wanted. Turns of another policy or family are passed over; the rest is mined or refused."""

    label: str = "score"
    """The label of a trace that `min_score` is compared with."""
    min_score: float | None = Field(default=None, allow_inf_nan=False)
    """Smallest value of the label, true counting as 1; None takes every trace, labelled or not."""
    policy: str | None = None
    """Only turns that were asked of this policy, e.g. `teacher`."""
    family: str | None = None
    """Only tasks of this family."""


class Mined(Record):
    samples: tuple[SFTSample, ...]
    """In the order of the traces, exact duplicates merged into the first."""
    refused: dict[str, int]
    """Turns that may not be training data, counted by reason."""

    @property
    def turns(self) -> int:
        """Turns that became samples, duplicates included."""
        return sum(sample.count for sample in self.samples)


def mine_sft(traces: Iterable[Trace], agent: str, config: MineConfig) -> Mined:
    """Replies of `agent` worth imitating, one sample for each distinct pair of prompt and reply.

    A turn carries its whole prompt, so a later turn of a trajectory needs nothing of the earlier ones.
    """
    distinct: dict[str, SFTSample] = {}
    refused: Counter[str] = Counter()
    for trace, trajectory, turn in _turns(traces, agent, config):
        if reason := _trace_refusal(trace, config) or _turn_refusal(turn, trajectory):
            refused[reason] += 1
            continue
        sample = _sample(trace, turn)
        contents = sample.model_dump_json(exclude={"trace_id", "span_ids"})
        if same := distinct.get(contents):
            sample = same.model_copy(update={"span_ids": (*same.span_ids, turn.span_id)})
        distinct[contents] = sample
    return Mined(samples=tuple(distinct.values()), refused=dict(refused.most_common()))


def _turns(traces: Iterable[Trace], agent: str, config: MineConfig) -> Iterator[tuple[Trace, Trajectory, Turn]]:
    for trace in traces:
        if config.family is not None and (trace.task is None or trace.task.family != config.family):
            continue
        for trajectory in trace.trajectories:
            for turn in trajectory.turns:
                if turn.agent == agent and config.policy in (None, turn.policy):
                    yield trace, trajectory, turn


def _trace_refusal(trace: Trace, config: MineConfig) -> str | None:
    if config.min_score is None:
        return None
    label = trace.label(config.label)
    if label is None:
        return f"no label {config.label}"
    if isinstance(label.value, str):
        return f"label {config.label} is no number"
    return None if label.value >= config.min_score else f"{config.label} below {config.min_score:g}"


def _turn_refusal(turn: Turn, trajectory: Trajectory) -> str | None:
    if trajectory.status not in ("ok", None):
        return f"trajectory {trajectory.status}"
    if reason := refusal(turn, trajectory):
        return reason
    # A reply that is only tool calls has no text to write a prompt's continuation with.
    return "empty reply" if turn.demonstration and turn.response and not turn.response.content else None


def _sample(trace: Trace, turn: Turn) -> SFTSample:
    assert turn.response is not None
    return SFTSample(
        agent=turn.agent,
        policy=turn.policy,
        trace_id=trace.trace_id,
        span_ids=(turn.span_id,),
        messages=turn.messages,
        completion=turn.response.content,
        prompt_token_ids=None if turn.demonstration else turn.prompt_token_ids,
        token_ids=None if turn.demonstration else turn.token_ids,
    )
