"""Alarms: what GRPO measures at each step, and what of it lowers the rate or ends the training."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Literal

from pydantic import Field

from journeyman.traces.base import Config, Record

Action = Literal["stop", "lower", "tell"]
"""`stop` ends the training and keeps the adapter, `lower` multiplies the learning rate by `factor`, `tell` says so."""

Name = Literal["entropy", "kl", "ratio", "hacking"]


class AlarmsTable(Config):
    """Table `[alarms]`: limits of what is measured at each step, and what happens beyond them.

    A mean over `window` steps is judged. An alarm that rang is silent for as many steps.
    """

    window: int = Field(default=3, ge=1)
    """Steps that a mean is over: one step alone is noise."""
    entropy: Action = "lower"
    """When the policy is all but certain of each token: it tries nothing new, and its groups become flat."""
    entropy_least: float = Field(default=0.3, ge=0, le=1)
    """Share of the first steps' entropy."""
    kl: Action = "lower"
    """When the policy runs away from the one that it started from: it forgets."""
    kl_most: float = Field(default=0.3, gt=0)
    """Nats per token."""
    ratio: Action = "stop"
    """When trainer and server disagree about the policy: the server serves other weights, or samples otherwise."""
    ratio_off: float = Field(default=0.25, gt=0)
    """Distance of the mean importance ratio from 1. Under a schema it is below 1 until the agent knows its form."""
    hacking: Action = "stop"
    """When the reward rises while held-out tasks get worse: the policy learns to please the reward, not to solve."""
    held_out_fall: float = Field(default=0.1, ge=0)
    """By how much the held-out reward is below its best."""
    factor: float = Field(default=0.5, gt=0, lt=1)
    """By which `lower` multiplies the learning rate."""
    strikes: int = Field(default=3, ge=1)
    """Times that an alarm may ring to `lower`; the next time it stops."""


class Alarm(Record):
    """A limit that was passed."""

    name: Name
    action: Action
    value: float
    limit: float

    def __str__(self) -> str:
        return f"alarm {self.name}: {TOLD[self.name].format(self.value, self.limit)}"


TOLD: Mapping[Name, str] = {
    "entropy": "{:.3g} nats a token, less than {:.3g}",
    "kl": "{:.3g} nats a token from the reference, more than {:.3g}",
    "ratio": "the mean importance ratio is {:.3g} off 1, more than {:.3g}",
    "hacking": "the reward rises and that of held-out tasks is {:.3g} below its best, more than {:.3g}",
}


class StepMetrics(Record):
    """What a step of GRPO came to. Means and shares are over the tokens of replies, unless a field says else."""

    step: int
    """From 1 on."""
    loss: float
    grad_norm: float
    """Before it is clipped."""
    learning_rate: float
    kl: float | None
    """Nats per token from the reference, by Schulman's k3 estimate; None where `trl.beta` is 0."""
    entropy: float
    """Nats per token."""
    clip_share: float
    """Tokens whose update was clipped."""
    ratio_mean: float
    """Probability of a token in the trainer over that in the server, each truncated."""
    ratio_truncated: float
    """Tokens whose ratio was truncated, or left out for it."""
    reward_mean: float
    """Over rows."""
    reward_std: float
    """Over rows."""
    length: float
    """Tokens of a reply."""
    rows: int
    """Learned from."""
    flat_share: float = 0.0
    """Groups whose runs all came to the same, which teach nothing; the driver counts them."""
    held_out: float | None = None
    """Mean reward of held-out tasks, in a step where they were tried."""
    seconds: float
    alarms: tuple[Alarm, ...] = ()

    @property
    def stops(self) -> bool:
        return any(alarm.action == "stop" for alarm in self.alarms)

    @property
    def logged(self) -> dict[str, float]:
        """The numbers, for a log or MLflow."""
        numbers = self.model_dump(exclude={"step", "alarms"}, exclude_none=True)
        return numbers | {f"alarm_{alarm.name}": 1.0 for alarm in self.alarms}


def ring(history: Sequence[StepMetrics], table: AlarmsTable) -> tuple[Alarm, ...]:
    """The alarms of the last step of `history`, whose earlier steps hold those that rang before."""
    alarms = []
    for name, passed in _PASSED.items():
        silent = any(alarm.name == name for step in history[:-1][-table.window :] for alarm in step.alarms)
        if not silent and (beyond := passed(history, table)) is not None:
            alarms.append(Alarm(name=name, action=_action(name, history, table), value=beyond[0], limit=beyond[1]))
    return tuple(alarms)


def _action(name: Name, history: Sequence[StepMetrics], table: AlarmsTable) -> Action:
    action: Action = getattr(table, name)
    rang = sum(alarm.name == name for step in history[:-1] for alarm in step.alarms)
    return "stop" if action == "lower" and rang >= table.strikes else action


def _collapsed(history: Sequence[StepMetrics], table: AlarmsTable) -> "_Beyond":
    if len(history) < 2 * table.window:
        return None
    least = table.entropy_least * fmean(step.entropy for step in history[: table.window])
    now = fmean(step.entropy for step in history[-table.window :])
    return (now, least) if now < least else None


def _ran_away(history: Sequence[StepMetrics], table: AlarmsTable) -> "_Beyond":
    drifts = [step.kl for step in history[-table.window :] if step.kl is not None]
    if len(drifts) < table.window:
        return None
    return (drift, table.kl_most) if (drift := fmean(drifts)) > table.kl_most else None


def _disagrees(history: Sequence[StepMetrics], table: AlarmsTable) -> "_Beyond":
    if len(history) < table.window:
        return None
    off = abs(fmean(step.ratio_mean for step in history[-table.window :]) - 1)
    return (off, table.ratio_off) if off > table.ratio_off else None


def _hacked(history: Sequence[StepMetrics], table: AlarmsTable) -> "_Beyond":
    looks = [(number, step.held_out) for number, step in enumerate(history, 1) if step.held_out is not None]
    if len(looks) < 2 or history[-1].held_out is None:
        return None
    number, best = max(looks[:-1], key=lambda look: look[1])
    fall = best - history[-1].held_out
    rise = _reward(history, table) - _reward(history[:number], table)
    return (fall, table.held_out_fall) if fall > table.held_out_fall and rise > 0 else None


def _reward(history: Sequence[StepMetrics], table: AlarmsTable) -> float:
    return fmean(step.reward_mean for step in history[-table.window :])


_Beyond = tuple[float, float] | None
"""What was measured and the limit that it passed; None where it didn't."""

_PASSED: Mapping[Name, Callable[[Sequence[StepMetrics], AlarmsTable], _Beyond]] = {
    "entropy": _collapsed,
    "kl": _ran_away,
    "ratio": _disagrees,
    "hacking": _hacked,
}
