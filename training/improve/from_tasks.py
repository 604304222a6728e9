"""Learning from tasks: what a method gets that makes runs of the crew itself, and what it must do."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from pydantic import BaseModel

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.crew_file import load_crew
from journeyman.agents.model import BASE
from journeyman.runtime.adapters.adapter import Adapter
from journeyman.runtime.adapters.prompts import read_prompts
from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.methods.plan import Choice
from journeyman.training.methods.recipe import OnStep, Recipe
from journeyman.training.trainings.launched import processes


class TaskJob(NamedTuple):
    """One agent of a crew is to learn from runs on tasks, by a recipe that has a `driver`."""

    workspace: Workspace
    agent: str
    recipe: Any
    crew: Path
    tasks: tuple[Task, ...]
    source: str
    """The name of the tasks' file or set."""
    scorer: str
    """What says how good an answer is, as `module:function`."""
    base_model: Path
    parent: str = BASE
    """The policy that the result would replace."""
    start: str = BASE
    """The policy that training starts from."""
    mlflow_uri: str | None = None
    wait: bool = False
    """Whether another training in the workspace is waited for, and not an error."""
    discard: bool = False
    """Whether the agent's other unfinished trainings are removed."""
    others: Mapping[str, str] = {}
    """By agent, the policies of others that are not the ones in service."""

    @property
    def given(self) -> dict[str, Any]:
        """What `train_adapter` and `train_online` take of it alike."""
        names = ("workspace", "agent", "recipe", "base_model", "parent", "mlflow_uri", "wait", "discard")
        return {name: getattr(self, name) for name in names}


class TaskPlan(Record):
    """What a driver would do."""

    summary: str
    """In one line: how many rounds or steps, of how many runs."""
    runs: int
    """Of the crew, at most."""
    tokens: float | None = None
    """That they are expected to generate; None where nothing of the kind is on record."""
    choices: tuple[Choice, ...] = ()

    def __str__(self) -> str:
        return self.summary


class Watcher(NamedTuple):
    """Who is told how a driver comes on."""

    on_step: OnStep = lambda step: None
    """Each optimiser step."""
    on_run: Callable[[int, int], None] = lambda made, runs: None
    """Each run of the crew that ended, and how many there will be in this phase."""
    say: Callable[[str], None] = lambda line: None
    """One line on what begins or has ended, such as a round."""


class Driver(Protocol):
    """The class that a recipe's `driver` names. Its constructor takes a `TaskJob`, and refuses what can't be done."""

    def plan(self) -> TaskPlan:
        """What `train` would do; nothing is run."""
        ...

    def train(self, watcher: Watcher) -> Adapter:
        """Makes the runs, and the policy that comes of them. A call after a kill goes on where it was."""
        ...


def driver_of(job: TaskJob) -> Driver:
    """Raises `ConfigError` where the recipe's method learns from rows, and in one of several processes."""
    recipe: Recipe = job.recipe
    if recipe.driver is None:
        raise ConfigError(f"method {recipe.method} learns from a dataset, not from tasks: name one with --data")
    if processes() > 1:
        raise ConfigError(
            f"method {recipe.method} makes the crew's runs, which several processes would make twice: start "
            "`journeyman train` by itself"
        )
    module, _, name = recipe.driver.partition(":")
    return cast("Driver", getattr(import_module(module), name)(job))


def crew_that_learns(job: TaskJob) -> Crew:
    """The job's crew, whose agent has the instructions that it has in service: a prompt candidate's, where one serves.

    Its examples are left out, because no adapter is shown any. Raises `ConfigError` where the crew can't be read or
    hasn't got the agent, and `AdapterError` where the prompt was altered.
    """
    crew = load_crew(job.crew)
    if job.agent not in (names := [agent.name for agent in crew.agents]):
        raise ConfigError(f"crew {crew.name!r} has no agent {job.agent!r}; it has: {', '.join(names)}")
    if (prompt := read_prompts(job.workspace.adapters, [job.parent]).get(job.parent)) is None:
        return crew
    words = {"instructions": prompt.instructions, "examples": ()}

    def told(agent: Agent) -> Agent:
        return agent.model_copy(update=words) if agent.name == job.agent else agent

    orchestrator = None if crew.orchestrator is None else told(crew.orchestrator)
    return crew.model_copy(update={"orchestrator": orchestrator, "workers": tuple(map(told, crew.workers))})


def told_aside(held_out: int, left_out: Mapping[str, int]) -> str:
    """How many tasks are held out of learning, and how many nobody may learn from, to follow on a plan's summary."""
    aside = f", {held_out} tasks held out" if held_out else ""
    return aside + "".join(f", {count} left out ({reason})" for reason, count in left_out.items())


def choices_of(name: str, table: BaseModel) -> list[Choice]:
    """The keys of a recipe's table of that name, and which of them the recipe leaves at their defaults."""
    given = table.model_fields_set
    return [
        Choice(
            key=f"{name}.{key}",
            value=value,
            source="recipe" if key in given else "rule",
            why="the recipe says so" if key in given else "the default",
        )
        for key, value in table.model_dump(mode="json").items()
    ]
