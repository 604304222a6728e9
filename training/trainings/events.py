"""What a training leaves in its journal: it began, its plan, each step, its end. One JSON line each."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, JsonValue, TypeAdapter

from journeyman.traces.base import Record

Ending = Literal["finished", "failed", "interrupted"]
"""`interrupted`: by Ctrl-C or SIGTERM, which leave a checkpoint, or by a kill, which leaves the last one."""


class Spent(Record):
    """What was spent since this attempt began."""

    seconds: float
    joules: float | None = None
    """By the machine's own counters; None where it has none."""
    source: str | None = None
    """`rapl`, `nvml` or `rapl+nvml`."""


class Began(Record):
    event: Literal["began"] = "began"
    version: int = 1
    """Of this record's form."""
    at_ns: int
    pid: int
    policy: str
    job: dict[str, JsonValue]
    recipe: dict[str, JsonValue]
    versions: dict[str, str]
    """Of the libraries that train."""
    step: int = 0
    """Of the checkpoint that it goes on from."""
    watts: float | None = None
    """Power that energy is estimated with where the machine has no counter."""
    cost_per_hour: float | None = None
    currency: str = "USD"


class Planned(Record):
    event: Literal["planned"] = "planned"
    plan: dict[str, JsonValue]
    said: str
    """The plan in words."""


class Stepped(Record):
    event: Literal["step"] = "step"
    at_ns: int
    step: int
    steps: int
    """In all, at most."""
    metrics: dict[str, float]
    """`loss`, and what else the trainer says of the step."""
    spent: Spent


class Ended(Record):
    event: Literal["ended"] = "ended"
    at_ns: int
    state: Ending
    error: str | None = None
    """Of one that failed: its line."""
    digest: str | None = None
    """Of the adapter, where there is one."""
    spent: Spent


Event: TypeAlias = Annotated[Began | Planned | Stepped | Ended, Field(discriminator="event")]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
