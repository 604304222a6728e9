"""Memory: how much of a conversation a crew is shown again."""

from pydantic import Field

from journeyman.traces.record import Config


class MemoryConfig(Config):
    """Table `[memory]` of a crew: earlier turns of a task's session, put before the task.

    When a session has more than either limit, the older half of its turns is forgotten, but never the last one. So the
    start of the prompt stays the same for many tasks, and the server's prefix cache can serve it.
    """

    turns: int = Field(default=8, ge=1)
    """Earlier tasks of the session, each with its answer."""
    max_tokens: int = Field(default=1_000, ge=1)
    """Of all of them, estimated from their characters; of a last turn that is longer by itself, the beginning stays."""
