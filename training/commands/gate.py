"""`journeyman gate`: a candidate adapter against the policy in service, over held-out tasks."""

from typing import Annotated, Any

import typer

from journeyman.agents.agent import Crew
from journeyman.runtime.adapters.adapter import find_adapter, split_policy
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.adapters.live import AdapterServer, current_policies, swap_in, sync
from journeyman.runtime.console import AttachOption, Exit, JsonOption, WorkspaceOption, emit, notes, out
from journeyman.runtime.models.routing import RoutingConfig
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces.base import parse_config
from journeyman.traces.errors import AdapterError, ConfigError
from journeyman.training.commands.adapters import note_override
from journeyman.training.commands.evaluate import (
    SCORER,
    Bench,
    ConcurrencyOption,
    CrewOption,
    ScorerOption,
    SeedOption,
    TasksOption,
    find_tasks,
    use_server,
    with_policies,
)
from journeyman.training.evaluation.gate import GateConfig, Verdict, decide, settle, write_verdict

ENDS = {"promote": Exit.OK, "reject": Exit.FAILED, "inconclusive": Exit.PARTIAL}


def gate_command(
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="The adapter to test, e.g. worker@8")],
    crew: CrewOption,
    tasks: TasksOption,
    margin: Annotated[float, typer.Option("--margin", help="Smallest gain in mean score that counts")] = 0.0,
    confidence: Annotated[float, typer.Option("--confidence", help="Of the interval around the gain")] = 0.95,
    min_tasks: Annotated[int, typer.Option("--min-tasks", help="Below it there is no decision")] = 20,
    scorer: ScorerOption = SCORER,
    concurrency: ConcurrencyOption = 8,
    seed: SeedOption = 0,
    attach: AttachOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare an adapter with the policy in service, on the same tasks with the same seeds.

    The verdict is kept beside the adapter, for `journeyman adapters promote`. Exit code: 0 promote, 1 reject,
    3 inconclusive.

    Example: journeyman gate clerk@2 --crew crew.toml --tasks gate.jsonl
    """
    ws = find_workspace(workspace)
    config = _config(margin=margin, confidence=confidence, min_tasks=min_tasks)
    folder = find_adapter(ws.adapters, candidate)
    server = use_server(ws, attach)
    bench = Bench(ws, crew, find_tasks(tasks), scorer, concurrency=concurrency, seed=seed)
    agent = _agent(candidate, bench.crew, ws.config.routing)
    Journal(ws.journal).check(agent, "promote", candidate)
    note_override(ws, agent)
    verdict = _compare(ws, server, bench, agent, candidate, config)
    write_verdict(folder, verdict)
    settle(ws, server, verdict)
    emit(verdict, as_json, lambda: _show(verdict))
    raise typer.Exit(ENDS[verdict.decision])


def _compare(
    workspace: Workspace, server: ServerState, bench: Bench, agent: str, candidate: str, config: GateConfig
) -> Verdict:
    incumbent = Journal(workspace.journal).in_service(agent)
    sync(workspace, server)
    with workspace.lock("swap"):
        swap_in(workspace, server, candidate)
    table = current_policies(workspace)
    theirs = bench.episodes(with_policies(workspace, table, {agent: incumbent}), incumbent)
    ours = bench.episodes(with_policies(workspace, table, {agent: candidate}), candidate)
    _check_undisturbed(workspace, server, agent, candidate, incumbent)
    return decide(ours, theirs, config, names=(candidate, incumbent))


def _check_undisturbed(workspace: Workspace, server: ServerState, agent: str, candidate: str, incumbent: str) -> None:
    """A promotion in the middle of it can unload the candidate, whose every call fails from then on."""
    with AdapterServer(server.url) as live:
        served = live.served()
    if candidate not in served or Journal(workspace.journal).in_service(agent) != incumbent:
        raise AdapterError(f"{agent} was changed by another process during the comparison: run the gate again")


def _config(**values: Any) -> GateConfig:
    return parse_config(GateConfig, values, "gate")


def _agent(candidate: str, crew: Crew, routing: RoutingConfig | None) -> str:
    """Whose adapter it is; raises `ConfigError` where nothing would ever be asked of it."""
    name, _ = split_policy(candidate)
    agent = next((agent for agent in crew.agents if agent.name == name), None)
    if agent is None:
        raise ConfigError(f"{candidate} is for {name!r}; the crew has: {', '.join(a.name for a in crew.agents)}")
    if agent.model is not None:
        raise ConfigError(f"the crew gives {name!r} the model {agent.model!r}: an adapter would never be asked")
    if routing is not None and routing.leaves_nothing(name):
        raise ConfigError(
            f"[routing] gives all work of {name!r} to {routing.small!r} or {routing.large!r}: an adapter would never "
            "be asked; leave out small, so that what is in service has the easy work"
        )
    return name


def _show(verdict: Verdict) -> None:
    low, high = verdict.interval
    ours, theirs = verdict.candidate_cost, verdict.incumbent_cost
    out.print(f"{verdict.decision}  {verdict.candidate} against {verdict.incumbent} over {verdict.tasks} tasks")
    out.print(
        f"gain {verdict.mean_delta:+.3f} ({low:+.3f} .. {high:+.3f}), score {theirs.score:.3f} → {ours.score:.3f}"
    )
    out.print(
        f"tokens a task {theirs.tokens:.0f} → {ours.tokens:.0f}, seconds {theirs.seconds:.1f} → {ours.seconds:.1f}"
    )
    for reason in verdict.reasons:
        notes.print(reason, style="dim", markup=False)
    if verdict.tasks_needed is not None:
        notes.print(f"about {verdict.tasks_needed} tasks would tell, if the gain is what it looks like", style="dim")
