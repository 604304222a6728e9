"""`journeyman tasks`: one file of tasks becomes sets that share nothing, and stays so."""

import json
from collections.abc import Sequence
from os.path import relpath
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from journeyman.runtime.console import Exit, JsonOption, WorkspaceOption, emit, notes, out
from journeyman.runtime.workspace import Workspace, find_workspace
from journeyman.traces.base import parse_config
from journeyman.traces.errors import ConfigError
from journeyman.traces.reports.wording import line
from journeyman.traces.trace import Task
from journeyman.training.commands.tasks_write import write_command
from journeyman.training.data.tasks.leaks import Leak, find_leaks
from journeyman.training.data.tasks.sets import SetSummary, read_set, summarise_set, workspace_sets
from journeyman.training.data.tasks.split import SHARES, Split, WrittenSplit, write_split

app = typer.Typer(no_args_is_help=True, help="Split tasks into sets, find leaks between them, show and write tasks.")
app.command("write")(write_command)

SHOWN = 20
"""Leaks, or ids, that a person is shown; `--json` has all."""
PROMPT = 100
"""Letters of a prompt that they are shown."""
FAMILIES = 6
"""Families of a set that they are shown."""

NearOption = Annotated[
    float | None,
    typer.Option(min=0.01, max=1.0, help="Similarity from which prompts are near-equal (default: [tasks] near, 0.7)"),
]
SetsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[FILE]...", help="Files or names of sets (default: all of [tasks])")
]


@app.command("split")
def split_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Tasks as JSON lines")],
    by: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="Keep together what has the same value there (default: near-duplicates)"),
    ] = None,
    train: Annotated[float, typer.Option(min=0.0, help="Share of train, to learn from")] = SHARES["train"],
    gate: Annotated[float, typer.Option(min=0.0, help="Share of gate, to choose by")] = SHARES["gate"],
    test: Annotated[float, typer.Option(min=0.0, help="Share of test, to report on")] = SHARES["test"],
    vault: Annotated[float, typer.Option(min=0.0, help="Share of vault, for the very end")] = SHARES["vault"],
    salt: Annotated[str, typer.Option(help="Another salt gives another split")] = "",
    near: NearOption = None,
    folder_out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the sets go (default: beside the file)")
    ] = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Split a file of tasks into train, gate, test and vault, for good.

    A task's set follows from its group and the salt. Later tasks may be added to the file: none moves. Of shares only
    the proportion counts.

    Example: journeyman tasks split questions.jsonl --by database
    """
    workspace = find_workspace(folder)
    shares = {"train": train, "gate": gate, "test": test, "vault": vault}
    if not any(shares.values()):
        raise ConfigError("all shares are 0: give at least one set a share")
    near = workspace.config.tasks.near if near is None else near
    split = parse_config(Split, {"by": by, "near": near, "salt": salt, "shares": shares}, "split")
    written = write_split(file, folder_out or file.parent, split)
    emit(written, as_json, lambda: _show_split(written, workspace))
    raise typer.Exit(Exit.PARTIAL if written.left_out else Exit.OK)


@app.command("check")
def check_command(
    files: SetsArgument = None,
    near: NearOption = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find tasks of different sets that a model could know from each other; exit code 1 where there are some.

    Equal and near-equal prompts, shared questions, and references that stand in another set's prompts.

    Example: journeyman tasks check train.jsonl gate.jsonl test.jsonl
    """
    workspace = find_workspace(folder)
    sets = _sets(workspace, files)
    if len(sets) < 2:
        raise ConfigError("leaks are between sets: name at least two files, or sets under [tasks] of journeyman.toml")
    leaks = find_leaks(sets, workspace.config.tasks.near if near is None else near)
    report = {"tasks": {name: len(tasks) for name, tasks in sets.items()}, "leaks": leaks}
    emit(report, as_json, lambda: _show_leaks(sets, leaks))
    raise typer.Exit(Exit.FAILED if leaks else Exit.OK)


@app.command("show")
def show_command(files: SetsArgument = None, folder: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Show how many tasks there are, of which families, and how long their prompts are.

    Example: journeyman tasks show questions.jsonl
    """
    sets = _sets(find_workspace(folder), files)
    if not sets:
        raise ConfigError("no task set: name a file, or sets under [tasks] of journeyman.toml")
    summaries = [summarise_set(name, tasks) for name, tasks in sets.items()]
    emit(summaries, as_json, lambda: _show_sets(summaries))


def _sets(workspace: Workspace, named: Sequence[str] | None) -> dict[str, list[Task]]:
    if not named:
        return workspace_sets(workspace)
    if twice := [name for name in named if named.count(name) > 1]:
        raise ConfigError(f"{twice[0]} is named twice: name each set once")
    return {name: [*read_set(workspace.task_file(Path(name))).values()] for name in named}


def _show_split(written: WrittenSplit, workspace: Workspace) -> None:
    table = Table("set", "tasks", "groups", "file", box=None)
    for name, members in written.sets.items():
        table.add_row(name, str(members.tasks), str(members.groups), str(members.path))
    out.print(table)
    if written.left_out:
        ids = ", ".join(written.left_out[:SHOWN])
        notes.print(f"left out, near tasks of two sets that were fixed before: {ids}", markup=False)
    if written.leaks:
        files = " ".join(str(members.path) for members in written.sets.values())
        notes.print(f"{len(written.leaks)} pairs leak between the sets: see `journeyman tasks check {files}`")
    if workspace.config.tasks.train is None:
        notes.print("to use the sets by name, and mine nothing of those held out, write in journeyman.toml:")
        notes.print("[tasks]", markup=False)
        for name, members in written.sets.items():
            path = relpath(members.path, workspace.config_file.parent)
            notes.print(f"{name} = {json.dumps(path, ensure_ascii=False)}", markup=False)


def _show_leaks(sets: dict[str, list[Task]], leaks: Sequence[Leak]) -> None:
    if not leaks:
        counts = ", ".join(f"{len(tasks)} in {name}" for name, tasks in sets.items())
        out.print(f"no leaks: {counts}", markup=False)
        return
    table = Table("leak", "tasks", "prompts", box=None)
    for leak in leaks[:SHOWN]:
        kind = leak.kind if leak.similarity is None else f"{leak.kind} {leak.similarity:.2f}"
        sides = (leak.first, leak.second)
        table.add_row(
            kind,
            "\n".join(line(f"{side.set} {side.id}") for side in sides),
            "\n".join(line(side.prompt)[:PROMPT] for side in sides),
        )
    out.print(table)
    more = f", of which {SHOWN} are shown: --json has all" if len(leaks) > SHOWN else ""
    out.print(f"{len(leaks)} pairs leak between sets{more}")


def _show_sets(summaries: Sequence[SetSummary]) -> None:
    table = Table("set", "tasks", "with reference", "letters, median", "P90", "longest", "families", box=None)
    for each in summaries:
        letters = (each.median_letters, each.p90_letters, each.longest_letters)
        families = ", ".join(f"{line(name)} {count}" for name, count in [*each.families.items()][:FAMILIES])
        more = ", …" if len(each.families) > FAMILIES else ""
        table.add_row(each.name, str(each.tasks), str(each.with_reference), *map(str, letters), families + more)
    out.print(table)
