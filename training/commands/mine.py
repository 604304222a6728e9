"""The `journeyman mine` command: recorded runs become a dataset for one agent."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from journeyman.agents.crew_file import load_crew
from journeyman.agents.prompt import PromptForm, prompt_form
from journeyman.runtime.adapters.live import current_policies
from journeyman.runtime.commands.traces.scope import (
    CrewOption,
    FamilyOption,
    SessionOption,
    SinceOption,
    StatusOption,
    TaskSetOption,
    TextOption,
    UntilOption,
    UserOption,
    conditions,
)
from journeyman.runtime.console import JsonOption, WorkspaceOption, emit, runs_done
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces.base import parse_config
from journeyman.traces.errors import ConfigError, TrainingError
from journeyman.traces.trace import Task
from journeyman.training.commands.choose import (
    BalanceOption,
    CapOption,
    HardOption,
    KeepSecretsOption,
    MaxRowsOption,
    MaxTokensOption,
    MixOption,
    NearOption,
    NoInjectionsOption,
    OutliersOption,
    SeedOption,
    choose_config,
)
from journeyman.training.commands.evaluate import SCORER, ScorerOption
from journeyman.training.commands.forks import (
    BudgetOption,
    CreditOption,
    Forking,
    MinCreditOption,
    ReplaceOption,
    SampleOption,
    check_credit,
    credited,
    draw,
)
from journeyman.training.commands.mine_shown import MineShown
from journeyman.training.data.admission import DEFAULT, Learnable
from journeyman.training.data.choosing.choose import Choosing
from journeyman.training.data.corpus import Corpus, find_corpus
from journeyman.training.data.datasets.card import Provenance
from journeyman.training.data.mine import KINDS, mine_to_file
from journeyman.training.data.samples import Kind, dataset_file_name
from journeyman.training.data.shorter import prefer_short
from journeyman.training.data.source import MineConfig, Source
from journeyman.training.data.tasks.heldout import HeldOut, runs_of
from journeyman.training.data.tasks.sets import read_set
from journeyman.training.evaluation.bench import evaluated
from journeyman.training.forks.counterfactual import RESAMPLE


def mine_command(
    agent: Annotated[str, typer.Option(help="The agent whose turns are mined")],
    kind: Annotated[str, typer.Option(help=f"What the rows are to be learned as: {', '.join(KINDS)}")] = "sft",
    min_score: Annotated[
        float | None, typer.Option(help="Only runs whose label is at least this; of kto and prompts, good from here")
    ] = None,
    label: Annotated[
        str,
        typer.Option(
            metavar="NAME[=VALUE]",
            help="The label that --min-score is compared with; with a value, only runs labelled so: thumbs=true",
        ),
    ] = "score",
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Only turns of this policy, e.g. teacher or worker@8; repeatable"),
    ] = None,
    family: FamilyOption = None,
    status: StatusOption = None,
    session: SessionOption = None,
    user: UserOption = None,
    of_crew: CrewOption = None,
    task_set: TaskSetOption = None,
    text: TextOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    tasks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only runs of these tasks: a file, or a set's name")
    ] = None,
    purpose: Annotated[
        list[str] | None,
        typer.Option(help="Only runs made for this; repeatable (default: service, teach and rollout)"),
    ] = None,
    crew: Annotated[
        Path | None,
        typer.Option("--crew", metavar="FILE", help="The crew as it is now (default: as in the agent's newest run)"),
    ] = None,
    documents: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Texts for --kind documents (default: what the --crew's agent looks up)"),
    ] = None,
    licence: Annotated[str | None, typer.Option(metavar="TEXT", help="What the owner of those texts allows")] = None,
    length: Annotated[int, typer.Option(min=16, help="Tokens in a row of documents")] = 1024,
    prefer: Annotated[
        str | None,
        typer.Option("--prefer", metavar="short", help="Of runs of a task that ended equally well only the shortest"),
    ] = None,
    sample: SampleOption = None,
    credit: CreditOption = None,
    min_credit: MinCreditOption = None,
    replace: ReplaceOption = RESAMPLE,
    budget: BudgetOption = None,
    scorer: ScorerOption = SCORER,
    near: NearOption = None,
    max_tokens: MaxTokensOption = None,
    no_injections: NoInjectionsOption = False,
    keep_secrets: KeepSecretsOption = False,
    outliers: OutliersOption = None,
    mix: MixOption = None,
    cap: CapOption = None,
    max_rows: MaxRowsOption = None,
    hard: HardOption = None,
    balance: BalanceOption = None,
    seed: SeedOption = 0,
    to: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The dataset (default: in the workspace)")
    ] = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn recorded runs into training data for one agent, and say what was refused and why.

    Nothing is mined from the tasks of gate, test and vault under [tasks] of journeyman.toml, nor from near ones.
    Runs that were made to measure (evaluation, gate, replay, shadow) are always refused.
    So are prompts that the agent would not be shown now; demonstrations are put in its own prompt.
    A reply that a person corrected (`journeyman label --edit`) gives a row with what they wrote, as policy `person`.
    --sample draws from the running server, first for tasks that neither always nor never succeed.
    --credit rule reads what a call was worth off the record. Counterfactual credit measures it by replays.

    Example: journeyman mine --agent clerk --min-score 1
    """
    workspace = find_workspace(folder)
    store = workspace.store
    asked = conditions(
        label=label,
        policy=policy,
        family=family,
        status=status,
        session=session,
        user=user,
        crew=of_crew,
        task_set=task_set,
        text=text,
        since=since,
        until=until,
    )
    config = _config(asked, min_score=min_score, purposes=tuple(map(_learnable, purpose or DEFAULT)))
    choice = choose_config(
        near=near,
        max_tokens=max_tokens,
        no_injections=no_injections,
        secrets=keep_secrets,
        outliers=outliers,
        mix=mix,
        cap=cap,
        max_rows=max_rows,
        hard=hard,
        balance=balance,
        seed=seed,
    )
    rows = KINDS[_kind(kind)]
    check_credit(kind, credit, min_credit)
    _check_prefer(prefer, kind)
    known = [] if tasks is None else list(read_set(workspace.task_file(tasks)).values())
    corpus = _corpus(kind, documents, licence, crew, agent, length, workspace)
    form = None if crew is None or corpus is not None else _form(workspace, crew, agent)
    source = Source(store, agent, config, None, HeldOut.of(workspace), evaluated(workspace), form, corpus=corpus)
    forking = Forking(workspace, crew, scorer, budget, known)
    forks: dict[str, Any] = {}
    if sample is not None:
        forks["sampled"] = draw(_of_tasks(source, known), sample, forking)
    source = _of_tasks(source, known)
    if credit is not None:
        source, forks["credit"] = credited(source, credit, min_credit, replace, forking)
    preferred = None if prefer is None else prefer_short(source)
    source = source if preferred is None else source._replace(left_out=preferred.left_out)
    options = {"agent": agent, "kind": kind, **config.model_dump(mode="json"), **choice.model_dump(mode="json")}
    more: dict[str, Any] = {"tasks": tasks and str(tasks), "crew": crew and str(crew), "prefer": prefer}
    more |= {"sample": sample, "credit": credit, "min_credit": min_credit, "budget": budget}
    more |= {"replace": replace, "scorer": scorer} if forks else {}
    if corpus is not None:
        more |= {"documents": ", ".join(map(str, corpus.paths)), "licence": licence, "length": length}
    made = Provenance.now(workspace, options | more)
    target, named = (workspace.datasets, None) if to is None else (to.parent, to.name)
    with runs_done("mining, run", len(store.ids(**source.wanted(config.policy)))) as tell:
        source = source._replace(on_turn=tell)
        mining, choosing = rows(source), Choosing(source, choice)
        dataset = mine_to_file(mining, target, lambda digest: named or dataset_file_name(agent, digest), choosing, made)
    shown = MineShown(mining, choosing.chosen, preferred, forks)
    shown.note(store.damage)
    if dataset is None:
        raise TrainingError(shown.nothing(agent, workspace))
    emit(shown.report(dataset), as_json, lambda: shown.show(dataset))


def _corpus(
    kind: str, documents: Path | None, licence: str | None, crew: Path | None, agent: str, length: int, where: Workspace
) -> Corpus | None:
    """The texts of rows of kind `documents`; None for the others."""
    if kind == "documents":
        return find_corpus(documents, crew, agent, licence, length, where.config.server.model)
    if documents is not None or licence is not None:
        raise ConfigError("--documents and --licence are for --kind documents: add it, or leave them out")
    return None


def _of_tasks(source: Source, tasks: Sequence[Task]) -> Source:
    """Of runs of those tasks only, where there are any."""
    return source._replace(ids=runs_of(source.store, tasks)) if tasks else source


def _config(asked: Mapping[str, Any], *, min_score: float | None, purposes: tuple[Learnable, ...]) -> MineConfig:
    """`asked` is what `conditions` gives. A label with a value is a condition; one without it is the score's name."""
    values = dict(asked)
    label = values.pop("label")
    named = {"labelled": label} if {"value", "min_value"} & values.keys() else {"label": label}
    return parse_config(MineConfig, {"min_score": min_score, "purposes": purposes, **values, **named}, "mining")


def _form(workspace: Workspace, crew: Path, agent: str) -> PromptForm:
    """How the crew addresses the agent under the policy in service, which may be a prompt candidate."""
    loaded = load_crew(crew)
    known = {one.name: one for one in loaded.agents}
    if agent not in known:
        raise ConfigError(f"crew {loaded.name!r} has no agent {agent!r}; it has: {', '.join(known)}")
    return prompt_form(known[agent], loaded, current_policies(workspace).prompt(known[agent]))


def _kind(kind: str) -> Kind:
    for known in KINDS:
        if kind == known:
            return known
    raise ConfigError(f"--kind {kind}: there are no such rows; have {', '.join(KINDS)}")


def _learnable(purpose: str) -> Learnable:
    for learnable in get_args(Learnable):
        if purpose == learnable:
            return cast(Learnable, learnable)
    raise ConfigError(f"--purpose {purpose}: nobody learns from such runs; have {', '.join(get_args(Learnable))}")


def _check_prefer(prefer: str | None, kind: str) -> None:
    if prefer not in (None, "short"):
        raise ConfigError(f"--prefer {prefer}: runs can't be preferred by that; have short")
    if prefer is not None and kind != "sft":
        raise ConfigError(f"--prefer {prefer} is about what to imitate: leave it out, or mine --kind sft")
