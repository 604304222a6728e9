"""`journeyman teach`: a crew works under teachers, and its good runs become demonstrations."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from journeyman.runtime.config import ProjectConfig
from journeyman.runtime.console import AttachOption, Exit, JsonOption, WorkspaceOption, emit, notes, out, progress
from journeyman.runtime.workspace import find_workspace
from journeyman.traces.base import parse_config
from journeyman.traces.errors import ConfigError
from journeyman.training.commands.evaluate import (
    ConcurrencyOption,
    CrewOption,
    ScorerOption,
    SeedOption,
    find_tasks,
    use_server,
)
from journeyman.training.data.demonstrations import TEACHER
from journeyman.training.data.tasks.heldout import HELD_OUT
from journeyman.training.improve.spending import Estimate, Limit
from journeyman.training.improve.teach import SCORER, Taught, TeachConfig, Teaching
from journeyman.training.improve.teachers import DEMONSTRATIONS, EVERYBODY


def teach_command(
    crew: CrewOption,
    tasks: Annotated[Path, typer.Option("--tasks", metavar="FILE", help="Tasks, JSON lines, or a set's name: train")],
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            "--teacher",
            metavar="[AGENT=]NAME",
            help="Who shows how it is done; repeatable (default: demonstrations, what the tasks hold)",
        ),
    ] = None,
    best_of: Annotated[int, typer.Option("--best-of", min=1, help="Runs of each task; the best is accepted")] = 1,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0, help="Of sampling (default: 0, with --best-of 1)")
    ] = None,
    scorer: ScorerOption = SCORER,
    verify: Annotated[
        list[str] | None, typer.Option("--verify", help="What an answer must pass, e.g. number; repeatable")
    ] = None,
    min_score: Annotated[float, typer.Option("--min-score", help="Smallest score of a run that is accepted")] = 1.0,
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", metavar="KEY=NUMBER", help="cost=MONEY or tokens=NUMBER of these runs; repeatable"),
    ] = None,
    concurrency: ConcurrencyOption = 8,
    seed: SeedOption = 0,
    again: Annotated[bool, typer.Option("--again", help="Make the runs again that were made before")] = False,
    attach: AttachOption = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a crew work under a teacher, so that `journeyman mine` has good runs to learn from.

    A teacher is an endpoint `models.NAME` with `teacher = true`, base, an adapter such as clerk@2, a Python model
    (MODULE:ATTRIBUTE), or `demonstrations`: work that people wrote into the tasks. The terms of some providers forbid
    training on what their models say.
    Accepted are runs that end ok and score at least --min-score. The others stay recorded; nobody learns from them.
    Runs that were made before are not made again. Ends with 3 if a task has no accepted run, with 1 if none has one,
    and with 5 if the budget ended it; the runs so far count.

    Example: journeyman teach --crew crew.toml --tasks train.jsonl --teacher planner=big --budget cost=5
    """
    workspace = find_workspace(folder).create()
    if str(tasks) in HELD_OUT:
        raise ConfigError(f"--tasks {tasks}: nobody may learn from that set; teach with train, or with a file")
    if attach is not None:
        use_server(workspace, attach)
    config = parse_config(
        TeachConfig,
        {
            "scorer": scorer,
            "verify": tuple(verify or ()),
            "min_score": min_score,
            "best_of": best_of,
            "temperature": temperature,
            "seed": seed,
            "concurrency": concurrency,
            "again": again,
            "limit": _limit(budget or []),
        },
        "teach",
    )
    named = _teachers(teacher or [])
    teaching = Teaching.open(workspace, crew, find_tasks(workspace, tasks), named, config, source=tasks.name)
    _announce(teaching, workspace.config)
    with progress() as bar:
        row = bar.add_task("teaching, run", total=best_of * len(teaching.teachers.tasks))
        taught = teaching.teach(on_run=lambda episode: bar.advance(row))
    emit({**taught.model_dump(), "estimate": teaching.estimate}, as_json, lambda: _show(taught, workspace.config))
    if taught.used_up is not None:
        notes.print(f"stopped: {taught.used_up}; the same call goes on with another --budget", markup=False)
    if taught.first_problem is not None:
        notes.print(f"the first run that did not end well: {taught.first_problem}", markup=False)
    raise typer.Exit(_exit(taught))


def _teachers(texts: list[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for agent, name in map(_named, texts):
        if agent in named:
            raise ConfigError(
                f"--teacher names {named[agent]} and {name} for {agent or 'all agents'}: name one of them"
            )
        named[agent] = name
    return named


def _named(text: str) -> tuple[str, str]:
    agent, equals, name = text.rpartition("=")
    if not name or (equals and not agent):
        raise ConfigError(f"--teacher {text!r}: write NAME, or AGENT=NAME as in planner=big")
    return agent or EVERYBODY, name


def _limit(budget: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in budget]
    for text, (key, _, number) in zip(budget, pairs, strict=True):
        if key not in Limit.model_fields or not number:
            raise ConfigError(f"--budget {text!r}: write cost=MONEY or tokens=NUMBER, as in cost=5")
    keys = [key for key, _, _ in pairs]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ConfigError(f"--budget names {twice} twice: give it one limit")
    return {key: number for key, _, number in pairs}


def _announce(teaching: Teaching, config: ProjectConfig) -> None:
    """Who teaches, on which terms, and what it is likely to cost."""
    teachers = teaching.teachers
    named = {TEACHER: DEMONSTRATIONS}
    who = ", ".join(f"{agent} by {named.get(one, one)}" for agent, one in teachers.policies.agents.items())
    notes.print(f"{len(teaching.teachers.tasks)} tasks, {who}", markup=False)
    for name in sorted(teachers.asked & {*config.models}):
        terms = config.models[name].terms
        told = f"its terms: {terms}" if terms else "no `terms` note; some providers' terms forbid training on replies"
        notes.print(f"models.{name}: {told}", markup=False)
    notes.print(_reckoning(teaching.estimate, config.traces.currency), markup=False)


def _reckoning(estimate: Estimate, currency: str) -> str:
    basis = f"by {estimate.recorded} recorded runs" if estimate.recorded else "a rough guess, nothing is recorded yet"
    money = f" and {estimate.cost:,.4g} {currency}"
    if estimate.unpriced:
        money = f"; no price for {', '.join(estimate.unpriced)} under [traces.prices]"
    return f"{estimate.runs} runs to make, about {estimate.tokens:,.0f} tokens{money} ({basis})"


def _show(taught: Taught, config: ProjectConfig) -> None:
    out.print(f"{len(taught.accepted)} of {taught.tasks} tasks have an accepted run")
    out.print(
        f"{taught.made} runs made now, {taught.runs - taught.made} before; {taught.tokens:,} tokens and "
        f"{taught.cost:,.4g} {config.traces.currency} now"
    )
    for what, reasons in (("runs", taught.refused), ("tasks", taught.passed_over)):
        if reasons:
            table = Table("not accepted" if what == "runs" else "passed over", what, box=None)
            for reason, count in reasons.items():
                table.add_row(reason, str(count))
            out.print(table)
    if taught.accepted:
        out.print("next: journeyman mine --purpose teach --agent AGENT")


def _exit(taught: Taught) -> Exit:
    if taught.used_up is not None:
        return Exit.OVER_BUDGET
    if not taught.accepted:
        return Exit.FAILED
    return Exit.OK if len(taught.accepted) == taught.tasks else Exit.PARTIAL
