"""Teachers: who answers for each agent of a crew while it shows how the work is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.judge import judge_of
from journeyman.agents.model import BASE, Model, ModelReply, ModelRequest, ModelTable
from journeyman.runtime.adapters.adapter import find_adapter, split_policy
from journeyman.runtime.adapters.live import current_policies
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.imports import imported
from journeyman.traces.trace import Task
from journeyman.training.data.demonstrations import TEACHER, Demonstrated, read_demonstration
from journeyman.training.evaluation.bench import with_policies

if TYPE_CHECKING:
    from journeyman.runtime.serving.backend import Backend

DEMONSTRATIONS = "demonstrations"
"""The teacher that plays what the tasks themselves hold; also who teaches where nobody is named."""
EVERYBODY = ""
"""Who a teacher is for that is named without an agent."""


@dataclass(frozen=True)
class Teachers:
    """Who teaches whom, checked, and the tasks that they can show."""

    crew: Crew
    """With the teachers in the place of the models that it names, and nobody to stand in for them."""
    policies: PolicyTable
    """Agent to policy: the teacher's where the agent has one, else what is in service."""
    tasks: tuple[Task, ...]
    without: int = 0
    """Tasks that have no demonstration, where that is what teaches."""
    models: Mapping[str, Model] = field(default_factory=dict)
    """Those that are no server, by policy."""

    @property
    def samples(self) -> bool:
        """Whether any agent is answered by a server, which can say something else the next time."""
        return any(policy not in self.models for policy in self.asked)

    @property
    def asked(self) -> frozenset[str]:
        """All policies that may be asked."""
        return frozenset(policy for agent in _agents(self.crew) for policy in self.policies.chain(agent))

    def backend(self, workspace: Workspace) -> "Backend":
        """The teachers, and behind them the workspace's server where anybody needs it; raises `ServerError`."""
        from journeyman.runtime.serving.backend import Backend, open_backend  # langchain takes a second to import.

        if not self.samples:
            default = next(iter(self.models.values()))
            return Backend(models=ModelTable(default, self.models), router=None, server=None)
        behind = open_backend(workspace)
        # A route would send work past the teacher.
        return Backend(models=behind.models.with_others(self.models), router=None, server=behind.server)


def find_teachers(workspace: Workspace, crew: Crew, tasks: Sequence[Task], named: Mapping[str, str]) -> Teachers:
    """`named` is agent to teacher, under `EVERYBODY` for all the others; raises `ConfigError` or `AdapterError`.

    A teacher is an endpoint that is declared one, `base`, an adapter, which is its own agent's, a Python model as
    `module:attribute`, or `demonstrations`: what the tasks hold.
    """
    names = [agent.name for agent in _agents(crew)]
    if unknown := sorted(set(named) - {*names, EVERYBODY}):
        raise ConfigError(f"crew {crew.name!r} has no agent {unknown[0]!r} to teach; it has: {', '.join(names)}")
    taught = _by_agent(crew, names, named)
    for agent, teacher in taught.items():
        _check(workspace, agent, teacher)
    shown, without = _shown(crew, tasks, taught, workspace)
    models: dict[str, Model] = {name: _python_model(name) for name in {*taught.values()} if ":" in name}
    if DEMONSTRATIONS in taught.values():
        models[TEACHER] = Demonstrated(crew, {task.id: read_demonstration(task, crew) for task in shown})
    policies = {agent: TEACHER if name == DEMONSTRATIONS else name for agent, name in taught.items()}
    return Teachers(
        crew=_without_models(crew, policies),
        policies=_table(workspace, names, policies),
        tasks=tuple(shown),
        without=without,
        models=models,
    )


def _agents(crew: Crew) -> tuple[Agent, ...]:
    """All that are asked, the judge too."""
    judge = judge_of(crew)
    return crew.agents if judge is None else (*crew.agents, judge)


def _by_agent(crew: Crew, names: Sequence[str], named: Mapping[str, str]) -> dict[str, str]:
    everybody = named.get(EVERYBODY)
    own = {agent: name for agent, name in named.items() if agent != EVERYBODY}
    if everybody is None:
        return own
    if "@" in everybody and ":" not in everybody:
        agent, _ = split_policy(everybody)
        if agent not in names:
            raise ConfigError(f"{everybody} is an adapter of {agent!r}; crew {crew.name!r} has: {', '.join(names)}")
        return {agent: everybody, **own}
    return {agent: named.get(agent, everybody) for agent in names}


def _check(workspace: Workspace, agent: str, teacher: str) -> None:
    models = workspace.config.models
    if teacher in (BASE, DEMONSTRATIONS) or ":" in teacher:
        return
    if "@" in teacher:
        own, _ = split_policy(teacher)
        if own != agent:
            raise ConfigError(f"{teacher} is an adapter of {own!r} and can't teach {agent!r}: name one of its own")
        find_adapter(workspace.adapters, teacher)
    elif teacher not in models:
        declared = ", ".join(name for name, model in models.items() if model.teacher) or "none"
        raise ConfigError(
            f"there is no teacher {teacher!r}: name an endpoint of [models] that is declared one ({declared}), base, "
            "an adapter such as worker@3, a Python model as module:attribute, or demonstrations"
        )
    elif not models[teacher].teacher:
        raise ConfigError(
            f"models.{teacher} isn't declared a teacher: write `teacher = true` under [models.{teacher}] in "
            f"{workspace.config_file}, if its provider's terms allow training on its replies"
        )


def _shown(
    crew: Crew, tasks: Sequence[Task], taught: Mapping[str, str], workspace: Workspace
) -> tuple[list[Task], int]:
    """The tasks that can be taught, and how many can't because nobody demonstrated them."""
    if DEMONSTRATIONS not in taught.values():
        return [*tasks], 0
    if TEACHER in workspace.config.models:
        raise ConfigError(f"models.{TEACHER} has the name under which demonstrations are recorded: rename it")
    shown = [task for task in tasks if task.demonstration is not None]
    return shown, len(tasks) - len(shown)


def _without_models(crew: Crew, policies: Mapping[str, str]) -> Crew:
    """What a crew names as its models, and what stands in for them, would keep a teacher from being asked."""

    def free(agent: Agent) -> Agent:
        return agent.model_copy(update={"model": None, "fallback": ()}) if agent.name in policies else agent

    orchestrator = None if crew.orchestrator is None else free(crew.orchestrator)
    return crew.model_copy(update={"orchestrator": orchestrator, "workers": tuple(map(free, crew.workers))})


def _table(workspace: Workspace, names: Sequence[str], policies: Mapping[str, str]) -> PolicyTable:
    """Of this crew's agents alone: what another crew has in service doesn't make these runs other ones."""
    current = PolicyTable() if {*names} <= {*policies} else current_policies(workspace)
    untaught = [name for name in names if name not in policies]
    own = {name: current.agents[name] for name in untaught if name in current.agents}
    fallbacks = {name: current.fallbacks[name] for name in untaught if name in current.fallbacks}
    return with_policies(workspace, PolicyTable(fallbacks=fallbacks), {**own, **policies})


def _python_model(name: str) -> Model:
    named = imported(name, "teacher")
    if (callable(named) and not callable(getattr(named, "complete", None))) or isinstance(named, type):
        try:
            named = named()
        except Exception as error:
            raise ConfigError(
                f"teacher {name!r} can't be made: {type(error).__name__}: {error}; it is called without arguments"
            ) from error
    lacking = [part for part in ("provider", "complete", "aclose") if not hasattr(named, part)]
    if lacking:
        raise ConfigError(
            f"teacher {name!r} isn't a model, it lacks {', '.join(lacking)}; write a class with `provider`, "
            "`demonstrates`, `async complete(request)` and `async aclose()`"
        )
    return _Declared(cast("Model", named))


class _Declared:
    """A model whose replies count as demonstrations because somebody named it a teacher."""

    demonstrates = True

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def provider(self) -> str:
        return self._model.provider

    async def complete(self, request: ModelRequest) -> ModelReply:
        return await self._model.complete(request)

    async def aclose(self) -> None:
        await self._model.aclose()
