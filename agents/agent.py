"""Agents and crews: who there is to do the work, read from TOML or made in Python."""

import importlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator, validate_call

from journeyman.agents.budget import Budget
from journeyman.agents.checks import read_guardrail
from journeyman.agents.guardrails import Guardrail
from journeyman.agents.memory import MemoryConfig
from journeyman.agents.permissions import Permissions
from journeyman.agents.verify import Verifiers
from journeyman.tools.tool import Tool, toolbox
from journeyman.traces.errors import ConfigError
from journeyman.traces.record import Config, Record, parse_config, read_toml

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


class Example(Config):
    """A worked example, shown to every policy but an adapter, which has learned the form and needs none."""

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
    parallel_calls: int = Field(default=1, ge=1, le=16)
    """Tool calls that one turn may ask for; they are made at once."""
    tool_calls: Literal["json", "native"] = "json"
    """How calls are written: as JSON that any model can write, or in the tool-call template of the model's own."""
    verify: Verifiers = ()
    """What an answer must pass; one that does not is told why, and may try again on the turns it has left."""
    model: str | None = None
    """A policy for this agent whatever the policy table says."""
    fallback: tuple[str, ...] = ()
    """Policies that are asked in turn where the agent's own one fails."""
    limits: Limits = Limits()


class Agent(_Skills):
    name: str
    instructions: str
    """The system prompt."""
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
    orchestrator: Agent | None
    workers: tuple[Agent, ...]
    tools: Mapping[str, Tool] = Field(default_factory=dict)
    verify: Verifiers = ()
    """What the crew's answer must pass."""
    budget: Budget = Budget()
    """What one run may spend, all agents together."""
    guardrails: tuple[Guardrail, ...] = ()
    permissions: Permissions = Permissions()
    memory: MemoryConfig | None = None
    """How much of a session is shown again; None shows nothing."""

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

    def worker(self, name: str) -> Agent:
        for agent in self.workers:
            if agent.name == name:
                return agent
        raise ConfigError(f"unknown worker {name!r}; the crew has: {', '.join(a.name for a in self.workers)}")


def load_crew(path: Path) -> Crew:
    """The crew that a TOML file describes; raises `ConfigError` naming the file and the key that is wrong."""
    written = parse_config(_CrewFile, read_toml(path), str(path))
    try:
        boxes = {name: _build_tools(name, options, path.parent) for name, options in written.tools.items()}
        tools = _united(boxes)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    crew = {
        "name": written.name,
        "orchestrator": None if written.orchestrator is None else _agent("orchestrator", written.orchestrator, boxes),
        "workers": tuple(_agent(name, worker, boxes) for name, worker in written.workers.items()),
        "tools": tools,
        "verify": written.verify,
        "budget": written.budget,
        "guardrails": tuple(
            read_guardrail(row, f"{path}: guardrail {number}") for number, row in enumerate(written.guardrails, start=1)
        ),
        "permissions": written.permissions,
        "memory": written.memory,
    }
    return parse_config(Crew, crew, str(path))


def default_instructions(role: str) -> str:
    """What an agent of that role is told where nobody wrote it anything else: `orchestrator`, `worker`, `judge`, ..."""
    return (resources.files("journeyman.agents") / "prompts" / f"{role}.md").read_text(encoding="utf-8").strip()


class _WorkerTable(_Skills):
    instructions: str | None = None


class _OrchestratorTable(Config):
    name: str = "orchestrator"
    instructions: str | None = None
    assignments: int = Field(default=MAX_ASSIGNMENTS, ge=1, le=64)
    examples: tuple[Example, ...] = ()
    model: str | None = None
    fallback: tuple[str, ...] = ()
    replans: int = Field(default=1, ge=0)
    judge: bool = False
    approve: bool = False
    limits: Limits = Limits()


class _CrewFile(Config):
    name: str
    orchestrator: _OrchestratorTable | None = None
    workers: dict[str, _WorkerTable]
    tools: dict[str, dict[str, Any]] = Field(default_factory=dict)
    verify: Verifiers = ()
    budget: Budget = Budget()
    guardrails: tuple[dict[str, Any], ...] = ()
    permissions: Permissions = Permissions()
    memory: MemoryConfig | None = None


def _agent(
    name: str, table: _WorkerTable | _OrchestratorTable, boxes: Mapping[str, Mapping[str, Tool]]
) -> dict[str, Any]:
    role = "orchestrator" if isinstance(table, _OrchestratorTable) else _worker_role(table)
    agent = {"name": name, **table.model_dump(), "instructions": table.instructions or default_instructions(role)}
    if isinstance(table, _WorkerTable):
        # The name of a table that gives several tools stands for all of them.
        agent["tools"] = tuple(tool for asked in table.tools for tool in boxes.get(asked, (asked,)))
    return agent


def _worker_role(table: _WorkerTable) -> str:
    if table.tool_calls == "native":
        return "worker_native"
    return "worker" if table.parallel_calls == 1 else "worker_parallel"


PATHS = {"path", "log", "certificates"}
"""Options that name a file, from the folder of the crew's file."""
LOOSE = ConfigDict(arbitrary_types_allowed=True)
BUILDERS = {
    "calculator": "journeyman.tools.calculator:calculator",
    "retrieve": "journeyman.tools.retrieve:retrieve_from",
    "sql": "journeyman.tools.sql:sql",
    "files": "journeyman.tools.files:files",
    "python": "journeyman.tools.python:python",
    "http": "journeyman.tools.http:http",
    "mcp": "journeyman.tools.mcp:mcp",
    "memory": "journeyman.tools.memory:memory",
    "ask": "journeyman.tools.ask:ask",
}
"""Tools in the box: the name in `use`, and what makes a tool, or several, from the rest of its table."""


def _build_tools(name: str, options: dict[str, Any], folder: Path) -> dict[str, Tool]:
    """The tools of one table: `use` names one in the box or a `module:attribute`, the other keys are its options.

    One tool gets the table's name, several get it in front of theirs.
    """
    options = dict(options)
    use = options.pop("use", None)
    if not isinstance(use, str):
        raise ConfigError(f'tools.{name} needs `use`: one of {", ".join(BUILDERS)}, or "module:attribute"')
    builder = _imported(name, BUILDERS.get(use, use))
    for key in PATHS & options.keys():
        if isinstance(options[key], str):
            options[key] = folder / options[key]
    if use in BUILDERS and not isinstance(builder, Tool):
        # A mistake in an option is told by its key, as everywhere else in the file.
        builder = validate_call(config=LOOSE)(builder)
    try:
        built = builder if isinstance(builder, Tool) else builder(**options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"tools.{name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except TypeError as error:
        raise ConfigError(f"tools.{name}: {error}") from None
    if isinstance(built, Tool):
        return {name: built.renamed(name)}
    if isinstance(built, list | tuple) and built and all(isinstance(one, Tool) for one in built):
        return toolbox(name, built)
    raise ConfigError(f"tools.{name}: {use!r} gave a {type(built).__name__}, not a Tool")


def _united(boxes: Mapping[str, Mapping[str, Tool]]) -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    for table, box in boxes.items():
        if doubled := tools.keys() & box.keys():
            raise ConfigError(f"tools.{table}: there are two tools of the name {min(doubled)!r}; rename the table")
        tools |= box
    return tools


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
