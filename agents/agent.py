"""Agents and crews: who there is to do the work."""

from collections.abc import Mapping
from importlib import resources
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from journeyman.agents.budget import Budget
from journeyman.agents.guards.guardrails import Guardrail
from journeyman.agents.guards.permissions import Permissions
from journeyman.agents.verify import Verifiers
from journeyman.tools.tool import Tool
from journeyman.traces.base import Config, Record
from journeyman.traces.errors import ConfigError

MAX_ASSIGNMENTS = 12


class Limits(Config):
    """What one agent may spend on one assignment."""

    turns: int = Field(default=4, ge=1)
    """Usable replies; on the last turn only an answer is accepted."""
    repairs: int = Field(default=2, ge=0)
    """Unusable replies, over all turns, that the model is told of and asked for again."""
    tokens: int = Field(default=256, ge=1)
    """Generated tokens a model call."""
    prompt_tokens: int | None = Field(default=None, ge=1)
    """Tokens of a prompt, as they are estimated; what is oldest is cut first. None is no limit."""
    seconds: float = Field(default=120.0, gt=0)
    """Of the whole assignment, model and tool calls included."""


class MemoryConfig(Config):
    """Table `[memory]` of a crew: earlier turns of a task's session, put before the task.

    When a session has more than either limit, the older half of its turns is forgotten, but never the last one. So the
    start of the prompt stays the same for many tasks, and the server's prefix cache can serve it.
    """

    turns: int = Field(default=8, ge=1)
    """Earlier tasks of the session, each with its answer."""
    max_tokens: int = Field(default=1_000, ge=1)
    """Of all of them, estimated from their characters; of a last turn that is longer by itself, the beginning stays."""


class Example(Config):
    """A worked example, shown to every policy but an adapter, which has learned the form and needs none."""

    user: str
    """What the agent is given: an assignment's goal, or for an orchestrator the task."""
    assistant: str
    """The reply that is right then, in the form in which the agent writes."""


class Skills(Config):
    """What an agent is besides its name and its instructions."""

    description: str = ""
    """What the orchestrator is told of this worker."""
    examples: tuple[Example, ...] = ()
    tools: tuple[str, ...] = ()
    """Tools of the crew that it may call. The name of a table that gives several stands for all of them."""
    tool_first: bool = False
    """The first turn must call a tool."""
    needs_evidence: bool | None = None
    """An answer must rest on at least one tool call that went well; None demands it where `tool_first` is set."""
    output: Literal["text", "values"] = "text"
    """What an answer is: one string, or a list of strings that a plan may fan out over."""
    parallel_calls: int = Field(default=1, ge=1, le=16)
    """Tool calls that one turn may ask for; they are made at once."""
    tool_calls: Literal["json", "native"] = "json"
    """How calls are written: as JSON that any model can write, or in the tool-call template of the model's own."""
    verify: Verifiers = ()
    """Verifiers that an answer must pass, such as `number`. An agent whose answer does not is told why, and may try
    again on the turns it has left."""
    model: str | None = None
    """The policy that answers this agent, in place of the policy table's."""
    fallback: tuple[str, ...] = ()
    """Policies that are asked in turn where the agent's own one fails. One that has others behind it may take its share
    of the agent's time, so that what hangs can be replaced."""
    limits: Limits = Limits()

    @property
    def rests_on_calls(self) -> bool:
        return self.tool_first if self.needs_evidence is None else self.needs_evidence


class Agent(Skills):
    """A worker or an orchestrator: who it is, what it is told, and what it may do."""

    name: str
    """A Python identifier; plans, adapters and the record call it so."""
    instructions: str
    """The system prompt. Where calls are written as JSON, its tools follow: names, parameters and descriptions."""
    assignments: int = Field(default=MAX_ASSIGNMENTS, ge=1, le=64)
    """For an orchestrator: the most that one of its plans may have."""
    replans: int = Field(default=1, ge=0)
    """For an orchestrator: how often it may add to its plan once something failed or was found insufficient."""
    judge: bool = False
    """For an orchestrator: a model judges each answer before it is given, as an agent of the name `judge`."""
    approve: bool = False
    """For an orchestrator: a person must agree to each plan before anybody works on it."""

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        if not name.isidentifier():
            raise ValueError(f"{name!r} must be a Python identifier")
        return name


class Crew(Record):
    """A team: an orchestrator that plans, workers that do, and the tools they share.

    Without an orchestrator the first worker gets the whole task: a single agent.
    """

    name: str
    """What the record calls the crew."""
    orchestrator: Agent | None
    workers: tuple[Agent, ...]
    tools: Mapping[str, Tool] = Field(default_factory=dict)
    """What its agents may call, by the name that they call it by."""
    verify: Verifiers = ()
    """What the crew's answer must pass: verifiers such as `number`, `pattern:[A-Z]{2}` or `module:function`."""
    budget: Budget = Budget()
    """What one run may spend, all agents together."""
    guardrails: tuple[Guardrail, ...] = ()
    """Checks of the texts that go into and come out of agents, in their order."""
    permissions: Permissions = Permissions()
    """Who may call what, with which arguments."""
    memory: MemoryConfig | None = None
    """How much of a session is shown again; None shows nothing."""

    @field_validator("tools")
    @classmethod
    def _named(cls, tools: Mapping[str, Tool]) -> Mapping[str, Tool]:
        """A tool is called by the name that its crew gives it."""
        return {name: tool if tool.name == name else tool.renamed(name) for name, tool in tools.items()}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.workers:
            raise ValueError(f"crew {self.name!r} has no worker")
        names = [agent.name for agent in self.agents]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"crew {self.name!r} has two agents of the name {min(doubled)!r}")
        if self.orchestrator is not None and self.orchestrator.judge and "judge" in names:
            raise ValueError(f"crew {self.name!r} has an agent 'judge', the name of the model that judges its answers")
        for agent in self.agents:
            if (agent.tool_first or agent.needs_evidence) and not agent.tools:
                key = "tool_first" if agent.tool_first else "needs_evidence"
                raise ValueError(f"agent {agent.name!r} must call a tool ({key}), but has none: give it `tools`")
            for name in agent.tools:
                if name not in self.tools:
                    have = ", ".join(sorted(self.tools)) or "none"
                    raise ValueError(f"agent {agent.name!r} asks for unknown tool {name!r}; the crew has: {have}")
        for guardrail in self.guardrails:
            guardrail.check_names(names, self.tools)
        self.permissions.check_names(names, self.tools)
        return self

    @property
    def agents(self) -> tuple[Agent, ...]:
        return self.workers if self.orchestrator is None else (self.orchestrator, *self.workers)

    @property
    def worker_names(self) -> tuple[str, ...]:
        return tuple(worker.name for worker in self.workers)

    def worker(self, name: str) -> Agent:
        for agent in self.workers:
            if agent.name == name:
                return agent
        raise ConfigError(f"unknown worker {name!r}; the crew has: {', '.join(self.worker_names)}")


def default_instructions(role: str) -> str:
    """What an agent of that role is told where nobody wrote it anything else: `orchestrator`, `worker`, `judge`, ..."""
    return (resources.files("journeyman.agents") / "prompts" / f"{role}.md").read_text(encoding="utf-8").strip()
