"""Prices: what a policy's tokens cost."""

from collections.abc import Mapping

from pydantic import Field

from journeyman.traces.base import Config
from journeyman.traces.messages import Usage

DEFAULT = "default"


class Price(Config):
    """What a policy's tokens cost, in `currency` of `[traces]` for a million tokens."""

    input: float = Field(default=0.0, ge=0)
    """Of tokens that are read."""
    cached: float | None = Field(default=None, ge=0)
    """Of input tokens that came from the prefix cache; None for the price of `input`."""
    output: float = Field(default=0.0, ge=0)
    """Of tokens that are generated."""

    def of(self, usage: Usage) -> float:
        cached = self.input if self.cached is None else self.cached
        fresh = usage.input_tokens - usage.cached_tokens
        return (fresh * self.input + usage.cached_tokens * cached + usage.output_tokens * self.output) / 1e6


def price_of(policy: str, prices: Mapping[str, Price]) -> Price | None:
    """The policy's price, else the default one; None where neither is set."""
    return prices.get(policy, prices.get(DEFAULT))
