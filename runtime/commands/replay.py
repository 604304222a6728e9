"""`journeyman replay`: a recorded run again, from its record alone or live from some step on, and what differs."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from journeyman.runtime.commands.run import exit_code
from journeyman.runtime.console import AttachOption, Exit, JsonOption, WorkspaceOption, emit, notes, out, progress
from journeyman.runtime.run.events import Ended, ReportFiled
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.reports.diff import Diff, diff
from journeyman.traces.reports.shown.diff_table import diff_table
from journeyman.traces.reports.wording import visible
from journeyman.traces.trace import Outcome, Trace

if TYPE_CHECKING:
    from journeyman.agents.agent import Crew
    from journeyman.runtime.models.policies import PolicyTable
    from journeyman.runtime.replay.fork import Fork
    from journeyman.runtime.replay.replay import Replay
    from journeyman.runtime.runtime import Runtime


def replay_command(
    trace: Annotated[str, typer.Argument(metavar="TRACE", help="Trace id, or the start of one")],
    span: Annotated[
        str | None, typer.Option("--from", metavar="SPAN", help="Go on live from this agent, model call or tool call")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="[AGENT=]POLICY",
            help="Who answers the agent then; without AGENT, that of SPAN; repeatable",
        ),
    ] = None,
    approve: Annotated[
        bool, typer.Option("--approve", help="Say yes to what a person would be asked then: plans, texts, tool calls")
    ] = False,
    crew: Annotated[Path, typer.Option("--crew", metavar="FILE", help="The crew's TOML file")] = Path("crew.toml"),
    attach: AttachOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Sampling seed of live model calls")] = 0,
    full: Annotated[bool, typer.Option("--full", help="Also what is the same, and whole texts")] = False,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a recorded run again and compare the two step by step.

    Model and tools answer from the record; nothing is called, and it ends with 1 where the runs parted. With --from,
    what began later than that step is asked of the model server and the tools, and the end is the run's own. What a
    person said of a plan holds for that very plan.

    Example: journeyman replay 3fa9 --crew crew.toml
    """
    from journeyman.agents.crew_file import load_crew
    from journeyman.runtime.replay.fork import find_fork

    workspace = find_workspace(folder)
    recorded = workspace.store.get(trace)
    fork = None if span is None else find_fork(recorded, span)
    for option, given in (("--policy", policy), ("--approve", approve)):
        if fork is None and given:
            raise ConfigError(f"{option} needs --from SPAN: what is answered from the record asks nobody")
    outcome, unasked = asyncio.run(
        _again(workspace, recorded, load_crew(crew), fork, _policies(policy or [], fork), approve, attach, seed)
    )
    again = workspace.store.get(outcome.trace_id)
    found = diff(recorded, again)
    same = found.first is None and _end(recorded) == _end(again)
    emit(
        {"outcome": outcome, "same": same, "unasked": unasked, "diff": found},
        as_json,
        lambda: _show(outcome, found, unasked, full, may_approve=fork is not None and not approve),
    )
    raise typer.Exit((Exit.OK if same else Exit.FAILED) if fork is None else exit_code([outcome], []))


async def _again(
    workspace: Workspace,
    trace: Trace,
    crew: "Crew",
    fork: "Fork | None",
    policies: dict[str, str],
    approve: bool,
    attach: str | None,
    seed: int,
) -> tuple[Outcome, list[str]]:
    """The outcome, and what nobody was asked."""
    from journeyman.runtime.adapters.prompts import read_prompts
    from journeyman.runtime.recording.recording import Recording
    from journeyman.runtime.replay.replay import Replay, ReplaySink
    from journeyman.runtime.runtime import Runtime
    from journeyman.runtime.serving.backend import open_backend
    from journeyman.traces.capture.content import ContentPolicy
    from journeyman.traces.capture.tracer import Tracer

    live = None if fork is None else open_backend(workspace, attach)
    models = None if live is None else live.models
    prompts = read_prompts(workspace.adapters, {*(turn.policy for turn in trace.turns), *policies.values()})
    replay = Replay(trace, crew, fork=fork, live=models, policies=policies, prompts=prompts, approve=approve)
    if live is not None:
        workspace.config.check_crew(replay.crew)
    with Recording(workspace) as recording:
        # The recording has the workspace's own content policy.
        tracer = Tracer(ReplaySink(recording, trace.trace_id), content=ContentPolicy("full", ()))
        async with Runtime(
            replay.crew,
            model=replay.models,
            tracer=tracer,
            policies=_table(workspace, replay, policies.values()),
            memory=replay.memory,
            words=replay.words,
            prices=workspace.config.traces.prices,
            base_digest=None if live is None else live.base_digest,
            seed=seed,
        ) as runtime:
            with progress() as bar:
                return await _watched(runtime, replay, bar, trace), replay.words.unasked


async def _watched(runtime: "Runtime", replay: "Replay", bar: Progress, trace: Trace) -> Outcome:
    """The run, counted in reports against those that the recorded one had."""
    had = sum(one.assignment is not None for one in trace.trajectories)
    row = bar.add_task("replaying, report", total=had or None)
    async for event in runtime.stream(replay.task, origin=replay.origin):
        if isinstance(event, ReportFiled):
            bar.advance(row)
        elif isinstance(event, Ended):
            return event.outcome
    raise AssertionError("a run ends with `Ended`")


def _end(trace: Trace) -> tuple[str, str] | None:
    return None if trace.outcome is None else (trace.outcome.status, trace.outcome.answer)


def _policies(given: list[str], fork: "Fork | None") -> dict[str, str]:
    """Agent to policy, from `AGENT=POLICY` and `POLICY`."""
    pairs = [one.rpartition("=") for one in given]
    return {agent or (fork.agent if fork else ""): policy for agent, _, policy in pairs}


def _table(workspace: Workspace, replay: "Replay", policies: Iterable[str]) -> "PolicyTable":
    """Those who answered then, with the digests of the adapters that are asked instead; raises `AdapterError`."""
    from journeyman.runtime.adapters.adapter import adapter_digests

    digests = adapter_digests(workspace.adapters, policies)
    return replay.policies.model_copy(update={"digests": {**replay.policies.digests, **digests}})


def _show(outcome: Outcome, found: Diff, unasked: list[str], full: bool, *, may_approve: bool) -> None:
    out.print(diff_table(found, full=full))
    if outcome.error is not None:
        notes.print(visible(f"{outcome.status}: {outcome.error}"), markup=False)
    for question in unasked:
        notes.print(visible(f"nobody was asked: {question}"), markup=False)
    if unasked and may_approve:
        notes.print("--approve says yes to what wants a yes or no")
    notes.print(f"trace {outcome.trace_id[:12]} is the replay", style="dim", markup=False)
