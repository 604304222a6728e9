"""The policy table: which policy answers for which agent."""

from collections.abc import Mapping

from pydantic import Field

from journeyman.agents.agent import Agent
from journeyman.agents.model import BASE
from journeyman.traces.record import Record


class PolicyTable(Record):
    """A snapshot; a run keeps the one it started with, whatever is promoted meanwhile."""

    agents: Mapping[str, str] = Field(default_factory=dict)
    """Agent to policy; an agent without a row is answered by the base model."""
    digests: Mapping[str, str] = Field(default_factory=dict)
    """Policy to the digest of its adapter."""

    def policy(self, agent: Agent) -> str:
        return agent.model or self.agents.get(agent.name, BASE)
