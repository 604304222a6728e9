"""Budgets: what a whole run may spend, and what has been spent."""

from pydantic import Field

from journeyman.traces.base import Config, Record
from journeyman.traces.messages import Usage


class Budget(Config):
    """Limits for a whole run, workers included; None is no limit."""

    tokens: int | None = Field(default=None, ge=1)
    """Read and generated together."""
    model_calls: int | None = Field(default=None, ge=1)
    """Calls of a model, repairs included; retries of one call count once."""
    tool_calls: int | None = Field(default=None, ge=0)
    """Calls of tools; a question to a person is none."""
    seconds: float | None = Field(default=None, gt=0)
    """Time that the run works; what it waits for a person doesn't count."""
    cost: float | None = Field(default=None, gt=0)
    """Money, by `[traces.prices]`, in its currency."""
    reserve: float = Field(default=0.1, ge=0, lt=1)
    """Share of each limit but `tool_calls` that is kept for what ends a run: review and the final answer. What is
    counted is rounded down."""


class Spent(Record):
    """What a run has spent so far: tokens, calls and money."""

    usage: Usage = Usage()
    model_calls: int = 0
    tool_calls: int = 0
    cost: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            usage=self.usage + other.usage,
            model_calls=self.model_calls + other.model_calls,
            tool_calls=self.tool_calls + other.tool_calls,
            cost=self.cost + other.cost,
        )
