"""Agents and crews: who there is to do the work, read from TOML or made in Python."""

import importlib
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from journeyman.tools.calculator import calculator
from journeyman.tools.retrieve import retrieve_from_file
from journeyman.tools.tool import Tool
from journeyman.traces.errors import ConfigError
from journeyman.traces.record import Config, Record, parse_config, read_toml


class Limits(Config):
    """What one agent may spend on one assignment."""

    turns: int = Field(default=4, ge=1)
    """Model calls; on the last one only an answer is accepted."""
    tokens: int = Field(default=256, ge=1)
    """Generated tokens a model call."""
    seconds: float = Field(default=120.0, gt=0)


class Example(Config):
    """A worked example, shown to the base model only: an adapter has learned the form and needs none."""

    user: str
    assistant: str


class _Skills(Config):
    """What an agent is besides its name and its instructions."""

    description: str = ""
    """What the orchestrator is told of this worker."""
    examples: tuple[Example, ...] = ()
    tools: tuple[str, ...] = ()
    tool_first: bool = False
    """The first turn must call a tool."""
    output: Literal["text", "values"] = "text"
    """What an answer is: one string, or a list of strings that a plan may fan out over."""
    model: str | None = None
    """A policy for this agent whatever the policy table says."""
    limits: Limits = Limits()


class Agent(_Skills):
    name: str
    instructions: str
    """The system prompt."""

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
    orchestrator: Agent | None
    workers: tuple[Agent, ...]
    tools: Mapping[str, Tool] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.workers:
            raise ValueError(f"crew {self.name!r} has no worker")
        names = [agent.name for agent in self.agents]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"crew {self.name!r} has two agents of the name {min(doubled)!r}")
        for agent in self.agents:
            for name in agent.tools:
                if name not in self.tools:
                    have = ", ".join(sorted(self.tools)) or "none"
                    raise ValueError(f"agent {agent.name!r} asks for unknown tool {name!r}; the crew has: {have}")
        return self

    @property
    def agents(self) -> tuple[Agent, ...]:
        return self.workers if self.orchestrator is None else (self.orchestrator, *self.workers)

    def worker(self, name: str) -> Agent:
        for agent in self.workers:
            if agent.name == name:
                return agent
        raise ConfigError(f"unknown worker {name!r}; the crew has: {', '.join(a.name for a in self.workers)}")


def load_crew(path: Path) -> Crew:
    """The crew that a TOML file describes; raises `ConfigError` naming the file and the key that is wrong."""
    written = parse_config(_CrewFile, read_toml(path), str(path))
    try:
        tools = {name: _build_tool(name, options, path.parent) for name, options in written.tools.items()}
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    crew = {
        "name": written.name,
        "orchestrator": None if written.orchestrator is None else _agent("orchestrator", written.orchestrator),
        "workers": tuple(_agent(name, worker) for name, worker in written.workers.items()),
        "tools": tools,
    }
    return parse_config(Crew, crew, str(path))


def default_instructions(role: Literal["orchestrator", "worker"]) -> str:
    return (resources.files("journeyman.agents") / "prompts" / f"{role}.md").read_text(encoding="utf-8").strip()


class _WorkerTable(_Skills):
    instructions: str | None = None


class _OrchestratorTable(Config):
    name: str = "orchestrator"
    instructions: str | None = None
    examples: tuple[Example, ...] = ()
    model: str | None = None
    limits: Limits = Limits()


class _CrewFile(Config):
    name: str
    orchestrator: _OrchestratorTable | None = None
    workers: dict[str, _WorkerTable]
    tools: dict[str, dict[str, Any]] = Field(default_factory=dict)


def _agent(name: str, table: _WorkerTable | _OrchestratorTable) -> dict[str, Any]:
    role: Literal["orchestrator", "worker"] = "worker" if isinstance(table, _WorkerTable) else "orchestrator"
    return {"name": name, **table.model_dump(), "instructions": table.instructions or default_instructions(role)}


BUILDERS: dict[str, Callable[..., Tool]] = {"calculator": lambda: calculator, "retrieve": retrieve_from_file}
"""Tools in the box: the name in `use`, and what makes the tool from the rest of its table."""


def _build_tool(name: str, options: dict[str, Any], folder: Path) -> Tool:
    """A tool from its table: `use` names one in the box or a `module:attribute`, the other keys are its options."""
    options = dict(options)
    use = options.pop("use", None)
    if not isinstance(use, str):
        raise ConfigError(f'tools.{name} needs `use`: one of {", ".join(BUILDERS)}, or "module:attribute"')
    builder: Any = BUILDERS.get(use) or _imported(name, use)
    if isinstance(options.get("path"), str):
        options["path"] = folder / options["path"]
    try:
        built = builder if isinstance(builder, Tool) else builder(**options)
    except TypeError as error:
        raise ConfigError(f"tools.{name}: {error}") from None
    if not isinstance(built, Tool):
        raise ConfigError(f"tools.{name}: {use!r} gave a {type(built).__name__}, not a Tool")
    return built if built.name == name else built.renamed(name)


def _imported(name: str, use: str) -> Any:
    module, _, attribute = use.partition(":")
    if not attribute:
        raise ConfigError(
            f'tools.{name}: unknown tool {use!r}; have {", ".join(BUILDERS)}, or write "module:attribute"'
        )
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"tools.{name}: {use!r} cannot be imported: {error}") from None
