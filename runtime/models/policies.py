"""The policy table: which policy answers for which agent, and which ones stand in for it."""

from collections.abc import Mapping

from pydantic import Field

from journeyman.agents.agent import Agent
from journeyman.agents.model import BASE
from journeyman.traces.base import Record


class PolicyTable(Record):
    """A snapshot; a run keeps the one it started with, also where another adapter is promoted meanwhile."""

    agents: Mapping[str, str] = Field(default_factory=dict)
    """Agent to policy; an agent without a row is answered by the base model."""
    fallbacks: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """Agent to the policies that are asked in turn where its own one fails."""
    digests: Mapping[str, str] = Field(default_factory=dict)
    """Policy to the digest of its adapter."""

    def policy(self, agent: Agent) -> str:
        """What the crew says, else the table, else the base model."""
        return agent.model or self.agents.get(agent.name, BASE)

    def chain(self, agent: Agent, routed: str | None = None) -> tuple[str, ...]:
        """The policies to ask in turn, each only where the one before failed: `routed`, the agent's own, its fallbacks.

        The crew's fallbacks come before the table's.
        """
        own = (self.policy(agent), *agent.fallback, *self.fallbacks.get(agent.name, ()))
        return tuple(dict.fromkeys(own if routed is None else (routed, *own)))
