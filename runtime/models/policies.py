"""The policy table: which policy answers for which agent, and which ones stand in for it."""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

from pydantic import Field

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.model import BASE
from journeyman.agents.prompt import Prompt, prompt_form
from journeyman.traces.base import Record

logger = logging.getLogger(__name__)


class PolicyTable(Record):
    """A snapshot; a run keeps the one it started with, also where another adapter is promoted meanwhile."""

    agents: Mapping[str, str] = Field(default_factory=dict)
    """Agent to policy; an agent without a row is answered by the base model."""
    fallbacks: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """Agent to the policies that are asked in turn where its own one fails."""
    digests: Mapping[str, str] = Field(default_factory=dict)
    """Policy to the digest of its adapter."""
    forms: Mapping[str, str] = Field(default_factory=dict)
    """Policy to the digest of the prompt form that its adapter was trained on, where that is known."""
    prompts: Mapping[str, Prompt] = Field(default_factory=dict)
    """Prompt candidates: policy to what it says in place of the crew, and whose weights answer."""

    def policy(self, agent: Agent) -> str:
        """What the crew says, else the table, else the base model."""
        return agent.model or self.agents.get(agent.name, BASE)

    def chain(self, agent: Agent, routed: str | None = None) -> tuple[str, ...]:
        """The policies to ask in turn, each only where the one before failed: `routed`, the agent's own, its fallbacks.

        The crew's fallbacks come before the table's. All are asked in the prompt of the first, so a prompt candidate
        that stands in for it is no more than its weights, and has their name.
        """
        own = (self.policy(agent), *agent.fallback, *self.fallbacks.get(agent.name, ()))
        first, *others = own if routed is None else (routed, *own)
        return tuple(dict.fromkeys((first, *map(self.weights, others))))

    def prompt(self, agent: Agent) -> Prompt | None:
        """What the agent's policy says in place of the crew, where it is a prompt candidate."""
        return self.prompts.get(self.policy(agent))

    def digest(self, policy: str) -> str | None:
        """Of the adapter that `policy` names, also where a prompt candidate only has its weights."""
        weights = {prompt.weights: prompt.weights_digest for prompt in self.prompts.values()}
        return self.digests.get(policy, weights.get(policy))

    def weights(self, policy: str) -> str:
        """The policy that a server is asked for: of a prompt candidate the one whose weights it has."""
        return prompt.weights if (prompt := self.prompts.get(policy)) is not None else policy


class CheckedPolicies:
    """The policies of the moment for a crew. An adapter that is shown another prompt than it was trained on still
    answers, and a warning says so, once in a process."""

    def __init__(self, crew: Crew, source: Callable[[], PolicyTable]) -> None:
        self._crew = crew
        self._source = source
        self._seen: PolicyTable | None = None

    def __call__(self) -> PolicyTable:
        table = self._source()
        if table is not self._seen:  # A source gives the same table until something changes.
            self._seen = table
            for warning in _differences(table, self._crew) if table.forms else ():
                _warn(warning)
        return table


def _differences(table: PolicyTable, crew: Crew) -> Iterator[str]:
    for agent in crew.agents:
        own, *others = table.chain(agent)
        form = prompt_form(agent, crew, table.prompts.get(own)).digest
        for policy in (own, *others):
            if table.forms.get(policy, form) != form:
                yield (
                    f"{policy} was trained on another prompt of {agent.name} ({table.forms[policy]}) than crew "
                    f"{crew.name} has now ({form}): train it on rows mined with --crew, or restore the instructions"
                )


@lru_cache(maxsize=256)
def _warn(warning: str) -> None:
    logger.warning(warning)
