"""Comparison: a candidate adapter against the policy in service, on the bench."""

from collections.abc import Callable

from journeyman.agents.agent import Crew
from journeyman.runtime.adapters.adapter import find_adapter, split_policy
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.adapters.live import current_policies, is_served, swap_in, sync
from journeyman.runtime.models.routing import RoutingConfig
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError, ConfigError
from journeyman.training.evaluation.bench import Bench, with_policies
from journeyman.training.evaluation.evaluate import Episode
from journeyman.training.evaluation.gate import GateConfig, Verdict, decide, write_verdict

OnEpisode = Callable[[str, Episode], None]
"""Called after each episode with the policy that it is of."""


def check_candidate(workspace: Workspace, crew: Crew, candidate: str) -> str:
    """The agent whose adapter it is; raises `ConfigError` or `AdapterError` where it could never go into service."""
    find_adapter(workspace.adapters, candidate)
    name, _ = split_policy(candidate)
    agent = next((agent for agent in crew.agents if agent.name == name), None)
    if agent is None:
        raise ConfigError(f"{candidate} is for {name!r}; the crew has: {', '.join(a.name for a in crew.agents)}")
    if agent.model is not None:
        raise ConfigError(f"the crew gives {name!r} the model {agent.model!r}: an adapter would never be asked")
    _check_routes(name, workspace.config.routing)
    Journal(workspace.journal).check(name, "promote", candidate)
    return name


def compare(
    workspace: Workspace,
    server: ServerState,
    bench: Bench,
    candidate: str,
    config: GateConfig,
    *,
    on_episode: OnEpisode = lambda policy, episode: None,
    again: bool = False,
) -> Verdict:
    """The verdict on `candidate` against what its agent has in service, all else as it is; kept beside the adapter.

    Raises `AdapterError` where another process changed what is in service meanwhile.
    """
    agent = check_candidate(workspace, bench.crew, candidate)
    incumbent = Journal(workspace.journal).in_service(agent)
    sync(workspace, server)
    with workspace.lock("swap"):
        swap_in(workspace, server, candidate)
    table = current_policies(workspace)
    theirs, ours = (
        bench.episodes(
            with_policies(workspace, table, {agent: policy}),
            on_episode=lambda episode, policy=policy: on_episode(policy, episode),  # type: ignore[misc]
            again=again,
        )
        for policy in (incumbent, candidate)
    )
    _check_undisturbed(workspace, server, agent, candidate, incumbent)
    verdict = decide(ours, theirs, config, names=(candidate, incumbent), setup=bench.setup)
    write_verdict(find_adapter(workspace.adapters, candidate), verdict)
    return verdict


def _check_undisturbed(workspace: Workspace, server: ServerState, agent: str, candidate: str, incumbent: str) -> None:
    """A promotion in the middle of it can unload the candidate, whose every call fails from then on."""
    if not is_served(workspace, server, candidate) or Journal(workspace.journal).in_service(agent) != incumbent:
        raise AdapterError(f"{agent} was changed by another process during the comparison: run the gate again")


def _check_routes(agent: str, routing: RoutingConfig | None) -> None:
    if routing is not None and routing.leaves_nothing(agent):
        raise ConfigError(
            f"[routing] gives all work of {agent!r} to {routing.small!r} or {routing.large!r}: an adapter would never "
            "be asked; leave out small, so that what is in service has the easy work"
        )
