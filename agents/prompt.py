"""The prompt form: what all prompts of an agent begin with, rendered in one way for teaching, training and service."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any

from journeyman.agents.agent import Agent, Crew, Example
from journeyman.tools.tool import Tool
from journeyman.traces.base import Record
from journeyman.traces.messages import Message


class PromptForm(Record):
    """How an agent is addressed. Its student, an adapter, is shown all but the examples, whose place training takes."""

    instructions: str
    """As they are sent."""
    examples: tuple[Example, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    """Definitions that the model's own template shows."""

    @cached_property
    def digest(self) -> str:
        """Of what a student is shown: the same whatever examples there are."""
        return sha256(json.dumps([self.instructions, self.tools], sort_keys=True).encode()).hexdigest()[:16]

    def shown(self, policy: str) -> str:
        """The form in which that policy is asked, for the record: the digest, and `+4` where four messages of examples
        stand behind the instructions."""
        examples = self.examples_for(policy)
        return f"{self.digest}+{2 * len(examples)}" if examples else self.digest

    def examples_for(self, policy: str) -> tuple[Example, ...]:
        return () if "@" in policy else self.examples


def prompt_form(agent: Agent, crew: Crew) -> PromptForm:
    """That of any agent of a crew, its judge too."""
    if crew.orchestrator is not None and agent.name == crew.orchestrator.name:
        return planning_form(agent, crew)
    return working_form(agent, {name: crew.tools[name] for name in agent.tools})


def planning_form(orchestrator: Agent, crew: Crew) -> PromptForm:
    """The orchestrator's instructions, followed by what each worker does, where its crew says so."""
    told = [f"- {worker.name}: {worker.description}" for worker in crew.workers if worker.description]
    return PromptForm(instructions=_followed(orchestrator, "Workers:", told), examples=orchestrator.examples)


def working_form(agent: Agent, tools: Mapping[str, Tool]) -> PromptForm:
    """The agent's instructions and its tools: in the model's template, else as text those that say what they do."""
    if agent.tool_calls == "native":
        shown = tuple(tool.definition for tool in tools.values())
        return PromptForm(instructions=agent.instructions, examples=agent.examples, tools=shown)
    told = [f"- {name} {tool.told}" for name, tool in tools.items() if tool.description]
    return PromptForm(instructions=_followed(agent, "Tools:", told), examples=agent.examples)


def opening(form: PromptForm, policy: str, prompt: str, earlier: Sequence[Message] = ()) -> tuple[Message, ...]:
    """The start of a conversation: instructions, examples unless an adapter answers, what was said earlier, the prompt.

    What all calls of one agent share comes first, byte for byte, so that the server's prefix cache can serve it.
    """
    messages = [Message(role="system", content=form.instructions)]
    for example in form.examples_for(policy):
        messages.append(Message(role="user", content=example.user))
        messages.append(Message(role="assistant", content=example.assistant))
    return (*messages, *earlier, Message(role="user", content=prompt))


def _followed(agent: Agent, heading: str, told: Sequence[str]) -> str:
    return "\n".join([agent.instructions, heading, *told]) if told else agent.instructions
