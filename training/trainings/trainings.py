"""Trainings as their journals tell them: what ran, how it came out, and what it cost."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import JsonValue, ValidationError

from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError
from journeyman.traces.files import RowFile, is_closed, is_torn
from journeyman.training.trainings.events import EVENT, Began, Ended, Event, Planned, Spent, Stepped
from journeyman.training.trainings.stopping import Say

LOCK = "train"
"""The workspace's lock that a training holds."""


@contextmanager
def training_lock(workspace: Workspace, *, wait: bool, say: Say) -> Iterator[None]:
    """Held while a training runs in the workspace; another holder raises `ConfigError`, or is waited for, and told."""
    with workspace.lock(LOCK, on_wait=(lambda holder: say(f"{holder}: waiting for it")) if wait else None):
        yield


class Attempt(Record):
    """From one start of the command to its end."""

    began: Began
    plan: Planned | None
    steps: tuple[Stepped, ...]
    ended: Ended | None
    """None while it runs, and where it was killed."""

    @property
    def spent(self) -> Spent:
        """What is known of it: up to its last step where it was killed."""
        last = self.ended or (self.steps[-1] if self.steps else None)
        return Spent(seconds=0.0) if last is None else last.spent


class Energy(Record):
    joules: float
    source: str
    """`rapl`, `nvml`, `rapl+nvml`, or `estimated` from `[traces] watts`."""

    @property
    def watt_hours(self) -> float:
        return self.joules / 3600


class Training(Record):
    """A job, in one attempt or several."""

    name: str
    """By which `trainings show` finds it: the policy, and a digest of the job."""
    attempts: tuple[Attempt, ...]
    state: str
    """`running`, `finished`, `failed` or `interrupted`."""

    @property
    def began(self) -> Began:
        return self.attempts[-1].began

    @property
    def policy(self) -> str:
        return self.began.policy

    @property
    def error(self) -> str | None:
        ended = self.attempts[-1].ended
        return None if ended is None else ended.error

    @property
    def plan(self) -> str | None:
        return next((attempt.plan.said for attempt in reversed(self.attempts) if attempt.plan), None)

    @property
    def steps(self) -> dict[int, dict[str, float]]:
        """Metrics by step; a step that was made again after a kill counts once, as it was made last."""
        made: dict[int, dict[str, float]] = {}
        for attempt in self.attempts:
            made = {number: metrics for number, metrics in made.items() if number <= attempt.began.step}
            for event in attempt.steps:
                made[event.step] = made.get(event.step, {}) | event.metrics
        return made

    @property
    def step(self) -> int:
        """How far it came."""
        return max(self.steps, default=0)

    @property
    def planned_steps(self) -> int | None:
        return next((event.steps for attempt in reversed(self.attempts) for event in attempt.steps), None)

    @property
    def seconds(self) -> float:
        """Of all attempts, loading the model included."""
        return sum(attempt.spent.seconds for attempt in self.attempts)

    @property
    def energy(self) -> Energy | None:
        if any(attempt.spent.joules is None for attempt in self.attempts):
            watts = self.began.watts
            return None if watts is None else Energy(joules=watts * self.seconds, source="estimated")
        joules = sum(attempt.spent.joules or 0.0 for attempt in self.attempts)
        return Energy(joules=joules, source=next((a.spent.source for a in self.attempts if a.spent.source), ""))

    @property
    def cost(self) -> float | None:
        """By `[training] cost_per_hour`."""
        price = self.began.cost_per_hour
        return None if price is None else price * self.seconds / 3600

    def summary(self) -> dict[str, JsonValue]:
        """Everything but the steps, as JSON."""
        steps = self.steps
        last = steps[max(steps)] if steps else {}
        return {
            "name": self.name,
            "policy": self.policy,
            "method": self.began.job.get("method"),
            "state": self.state,
            "error": self.error,
            "began_ns": self.attempts[0].began.at_ns,
            "attempts": len(self.attempts),
            "plan": self.plan,
            "step": self.step,
            "steps": self.planned_steps,
            "metrics": dict(last),
            "seconds": round(self.seconds, 3),
            "watt_hours": None if self.energy is None else round(self.energy.watt_hours, 4),
            "energy_source": None if self.energy is None else self.energy.source,
            "cost": self.cost,
            "currency": self.began.currency,
        }


def list_trainings(workspace: Workspace) -> list[Training]:
    """Every training of the workspace, the oldest first. A line that isn't one of a journal is passed over."""
    running = _running(workspace)
    known = (_read(path, running) for path in sorted(workspace.trainings.glob("*.jsonl")))
    return sorted((training for training in known if training), key=lambda one: one.attempts[0].began.at_ns)


def find_training(workspace: Workspace, named: str) -> Training:
    """The newest training whose name, or policy, is `named`; raises `ConfigError` where there is none."""
    trainings = list_trainings(workspace)
    for training in reversed(trainings):
        if named in (training.name, training.policy):
            return training
    have = ", ".join(training.name for training in trainings[-5:]) or "none yet"
    raise ConfigError(f"unknown training {named!r}; have {have} (see `journeyman trainings list`)")


def differences(trainings: Sequence[Training]) -> dict[str, list[JsonValue]]:
    """The keys of jobs and recipes in which they differ, with each one's value."""
    began = [one.began for one in trainings]
    told = [_flat({"job": one.job, "recipe": one.recipe, "versions": one.versions}) for one in began]
    keys = dict.fromkeys(key for values in told for key in values)
    rows = {key: [values.get(key) for values in told] for key in keys}
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, JsonValue]:
    flat: dict[str, JsonValue] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value  # type: ignore[assignment]
    return flat


def _running(workspace: Workspace) -> int | None:
    """The process that trains in this workspace."""
    path = workspace.root / f"{LOCK}.lock"
    try:
        if not path.is_file() or is_closed(path):
            return None
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _read(path: Path, running: int | None) -> Training | None:
    attempts = tuple(_attempts(path))
    if not attempts:
        return None
    last = attempts[-1]
    state = "running" if last.began.pid == running else "interrupted"
    return Training(name=path.stem, attempts=attempts, state=last.ended.state if last.ended else state)


def _attempts(path: Path) -> Iterator[Attempt]:
    began: Began | None = None
    plan: Planned | None = None
    steps: list[Stepped] = []
    ended: Ended | None = None
    for event in _events(path):
        match event:
            case Began():
                if began is not None:
                    yield Attempt(began=began, plan=plan, steps=tuple(steps), ended=ended)
                began, plan, steps, ended = event, None, [], None
            case Planned():
                plan = event
            case Stepped():
                steps.append(event)
            case Ended():
                ended = event
    if began is not None:
        yield Attempt(began=began, plan=plan, steps=tuple(steps), ended=ended)


def _events(path: Path) -> Iterator[Event]:
    try:
        for line in RowFile(path):
            if not is_torn(line):
                try:
                    yield EVENT.validate_json(line)
                except ValidationError:
                    continue
    except OSError:
        return
