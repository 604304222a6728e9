"""What a tool may know of the call it serves."""

from typing import Protocol

from pydantic import Field, SkipValidation

from journeyman.traces.record import Record


class Notes(Protocol):
    """What is remembered of the person, or the session, that a run is for."""

    async def add(self, text: str) -> None: ...

    async def all(self) -> list[str]:
        """Every note, newest first."""
        ...


class ToolContext(Record):
    """A parameter that is annotated with it is filled in by the runtime; no model sees it or can set it."""

    run_id: str = ""
    task_id: str = ""
    session: str | None = None
    user: str | None = None
    agent: str = ""
    assignment: str | None = None
    key: str = ""
    """The same for the same call of a run, however often the run is taken up again: an idempotency key."""
    notes: SkipValidation[Notes | None] = Field(default=None, exclude=True, repr=False)
    """None where the task names nobody to remember things of."""
