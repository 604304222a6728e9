"""What a tool may know of the call it serves."""

from typing import Protocol

from pydantic import Field, SkipValidation

from journeyman.traces.base import Record


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
    """An idempotency key, for services that take one: the same however often the run is taken up again.

    A call that may be made again has it from its place in the agent's work: a model that asks for it twice means two
    calls. One of a tool with `idempotent=False` has it from the work (the first of it, where other work replaces it),
    the tool, and the arguments with their defaults: whoever asks again, in whatever turn or replacement, asks for the
    same.
    """
    notes: SkipValidation[Notes | None] = Field(default=None, exclude=True, repr=False)
    """None where the task names nobody to remember things of."""
