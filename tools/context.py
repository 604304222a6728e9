"""What a tool may know of the call it serves."""

from journeyman.traces.record import Record


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
