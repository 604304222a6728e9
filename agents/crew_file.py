"""A crew's file: TOML in, a `Crew` out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from journeyman.agents.agent import MAX_ASSIGNMENTS, Crew, Example, Limits, MemoryConfig, Skills, default_instructions
from journeyman.agents.budget import Budget
from journeyman.agents.guards.checks import read_guardrail
from journeyman.agents.guards.permissions import Permissions
from journeyman.agents.tool_tables import build_tools, united
from journeyman.agents.verify import Verifiers
from journeyman.tools.tool import Tool
from journeyman.traces.base import Config, parse_config, read_toml
from journeyman.traces.errors import ConfigError


def load_crew(path: Path) -> Crew:
    """The crew that a TOML file describes; raises `ConfigError` naming the file and the key that is wrong."""
    written = parse_config(CrewFile, read_toml(path), str(path))
    try:
        boxes = {name: build_tools(name, options, path.parent) for name, options in written.tools.items()}
        tools = united(boxes)
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


class WorkerTable(Skills):
    """Table `[workers.NAME]`: an agent that does work. NAME must be a Python identifier."""

    instructions: str | None = None
    """The system prompt; None for the worker's own of the package. The tools are told behind it."""


class OrchestratorTable(Config):
    """Table `[orchestrator]`: who plans. Without it the first worker gets the whole task."""

    # A key without a docstring means what the field of `Agent` does.
    name: str = "orchestrator"
    instructions: str | None = None
    """The system prompt; None for the orchestrator's own of the package."""
    assignments: int = Field(default=MAX_ASSIGNMENTS, ge=1, le=64)
    examples: tuple[Example, ...] = ()
    model: str | None = None
    fallback: tuple[str, ...] = ()
    replans: int = Field(default=1, ge=0)
    judge: bool = False
    approve: bool = False
    limits: Limits = Limits()


class CrewFile(Config):
    """A crew's file, `crew.toml` unless a command is told another: who does the work, and what holds them in."""

    # A key without a docstring means what the field of `Crew` does.
    name: str
    orchestrator: OrchestratorTable | None = None
    workers: dict[str, WorkerTable]
    tools: dict[str, dict[str, Any]] = Field(default_factory=dict)
    verify: Verifiers = ()
    budget: Budget = Budget()
    guardrails: tuple[dict[str, Any], ...] = ()
    permissions: Permissions = Permissions()
    memory: MemoryConfig | None = None


def _agent(
    name: str, table: WorkerTable | OrchestratorTable, boxes: Mapping[str, Mapping[str, Tool]]
) -> dict[str, Any]:
    role = "orchestrator" if isinstance(table, OrchestratorTable) else _worker_role(table)
    agent = {"name": name, **table.model_dump(), "instructions": table.instructions or default_instructions(role)}
    if isinstance(table, WorkerTable):
        # The name of a table that gives several tools stands for all of them.
        agent["tools"] = tuple(tool for asked in table.tools for tool in boxes.get(asked, (asked,)))
    return agent


def _worker_role(table: WorkerTable) -> str:
    if table.tool_calls == "native":
        return "worker_native"
    return "worker" if table.parallel_calls == 1 else "worker_parallel"
