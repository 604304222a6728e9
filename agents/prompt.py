"""The prompt form: what all prompts of an agent begin with, rendered in one way for teaching, training and service."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any

from journeyman.agents.agent import Agent, Crew, Example
from journeyman.agents.model import BASE
from journeyman.tools.tool import Tool
from journeyman.traces.base import Record
from journeyman.traces.messages import Message


class Prompt(Record):
    """A prompt candidate's words, which stand for those of the crew's file, and the policy whose weights answer."""

    version: int = 1
    """Of this record's form."""
    weights: str = BASE
    """`base`, or an adapter such as `worker@8`; the policy itself where it has weights of its own."""
    weights_digest: str | None = None
    """Of the adapter that `weights` names; None for the base model and for the policy's own."""
    instructions: str
    """The agent's; what its tools or its workers do still follows them."""
    examples: tuple[Example, ...] = ()
    """Shown by this policy, also where its weights are an adapter's."""


class PromptForm(Record):
    """How an agent is addressed. Its student, an adapter, is shown all but the examples, whose place training takes."""

    instructions: str
    """As they are sent."""
    examples: tuple[Example, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    """Definitions that the model's own template shows."""
    keeps_examples: bool = False
    """Whether every policy is shown the examples: they are a prompt candidate's."""

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
        return () if "@" in policy and not self.keeps_examples else self.examples


def prompt_form(agent: Agent, crew: Crew, prompt: Prompt | None = None) -> PromptForm:
    """That of any agent of a crew, its judge too; `prompt` is what a prompt candidate says in place of the crew."""
    if crew.orchestrator is not None and agent.name == crew.orchestrator.name:
        return planning_form(agent, crew, prompt)
    return working_form(agent, {name: crew.tools[name] for name in agent.tools}, prompt)


def planning_form(orchestrator: Agent, crew: Crew, prompt: Prompt | None = None) -> PromptForm:
    """The orchestrator's instructions, followed by what each worker does, where its crew says so."""
    told = [f"- {worker.name}: {worker.description}" for worker in crew.workers if worker.description]
    return _form(orchestrator, prompt, "Workers:", told)


def working_form(agent: Agent, tools: Mapping[str, Tool], prompt: Prompt | None = None) -> PromptForm:
    """The agent's instructions and its tools: in the model's template, else as text those that say what they do."""
    if agent.tool_calls == "native":
        return _form(agent, prompt, tools=tuple(tool.definition for tool in tools.values()))
    return _form(agent, prompt, "Tools:", [f"- {name} {tool.told}" for name, tool in tools.items() if tool.description])


def opening(form: PromptForm, policy: str, prompt: str, earlier: Sequence[Message] = ()) -> tuple[Message, ...]:
    """The start of a conversation: instructions, examples unless an adapter answers, what was said earlier, the prompt.

    What all calls of one agent share comes first, byte for byte, so that the server's prefix cache can serve it.
    """
    messages = [Message(role="system", content=form.instructions)]
    for example in form.examples_for(policy):
        messages.append(Message(role="user", content=example.user))
        messages.append(Message(role="assistant", content=example.assistant))
    return (*messages, *earlier, Message(role="user", content=prompt))


def _form(
    agent: Agent,
    prompt: Prompt | None,
    heading: str = "",
    told: Sequence[str] = (),
    tools: tuple[dict[str, Any], ...] = (),
) -> PromptForm:
    words = agent if prompt is None else prompt
    return PromptForm(
        instructions="\n".join([words.instructions, heading, *told]) if told else words.instructions,
        examples=words.examples,
        tools=tools,
        keeps_examples=prompt is not None,
    )
