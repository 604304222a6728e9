"""`journeyman data`: datasets are looked at, compared, checked and given to other programs."""

from pathlib import Path
from typing import Annotated

import typer

from journeyman.runtime.console import Exit, JsonOption, WorkspaceOption, emit, notes, out
from journeyman.runtime.workspace import find_workspace
from journeyman.traces.errors import ConfigError
from journeyman.training.commands import data_shown as shown
from journeyman.training.data.datasets.check import RowChecks, check
from journeyman.training.data.datasets.diff import diff
from journeyman.training.data.datasets.export import FORMS, export
from journeyman.training.data.datasets.shelf import list_datasets, open_dataset
from journeyman.training.data.datasets.shown import RowFilter, row_lines, whole_row
from journeyman.training.methods.renderer import renderer_of

DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="A file, or its name or digest's start")]
ModelOption = Annotated[
    str | None, typer.Option(metavar="NAME|PATH", help="Whose tokens (default: the server's model, if it is ready)")
]

app = typer.Typer(no_args_is_help=True, help="Look at datasets, compare, check and export them")


@app.command("list")
def list_command(folder: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """List the workspace's datasets, the newest last.

    Example: journeyman data list
    """
    listed = list_datasets(find_workspace(folder))
    emit(listed, as_json, lambda: shown.show_list(listed))


@app.command("show")
def show_command(
    dataset: DatasetArgument,
    row: Annotated[int | None, typer.Option(min=1, help="This row in full, with what of it is learned")] = None,
    origin: Annotated[str | None, typer.Option(help="Only rows of this origin")] = None,
    policy: Annotated[str | None, typer.Option(help="Only replies of this policy")] = None,
    family: Annotated[str | None, typer.Option(help="Only tasks of this family")] = None,
    contains: Annotated[str | None, typer.Option(help="Only rows with this text, in large or small letters")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows that are shown; --json has all")] = 20,
    model: ModelOption = None,
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a dataset's rows, or with --row one in full: what is learned of it, in the model's tokens.

    Example: journeyman data show clerk.jsonl --contains refund
    """
    workspace = find_workspace(folder)
    known = open_dataset(workspace, dataset)
    if row is not None:
        whole = whole_row(known.path, row, renderer_of(workspace, model))
        emit(whole, as_json, lambda: shown.show_row(whole))
        return
    wanted = RowFilter(origin=origin, policy=policy, family=family, contains=contains)
    lines = list(row_lines(known.path, wanted, workspace.store))
    emit(lines, as_json, lambda: shown.show_lines(lines, limit, known.card.rows))


@app.command("diff")
def diff_command(
    first: DatasetArgument, second: DatasetArgument, folder: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Say which rows came, which went, and which changed, from one dataset to another.

    Example: journeyman data diff clerk-3f2a.jsonl clerk-9b1c.jsonl
    """
    workspace = find_workspace(folder)
    before, after = open_dataset(workspace, first), open_dataset(workspace, second)
    found = diff(before.path, after.path)
    emit(found, as_json, lambda: shown.show_diff(found))


@app.command("card")
def card_command(dataset: DatasetArgument, folder: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Show a dataset's card: what is in it, where that is from, what was refused, and what made it.

    Example: journeyman data card clerk.jsonl
    """
    known = open_dataset(find_workspace(folder), dataset)
    emit(known, as_json, lambda: shown.show_card(known))


@app.command("check")
def check_command(
    dataset: DatasetArgument, model: ModelOption = None, folder: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Look for rows that nobody should train on; exit code 1 where there are some.

    Broken rows, held-out tasks, secrets, injected orders, unclosed turns, replies without an end or with nothing to
    learn, and recorded tokens that aren't those of the text.

    Example: journeyman data check clerk.jsonl
    """
    workspace = find_workspace(folder)
    known = open_dataset(workspace, dataset)
    renderer = renderer_of(workspace, model)
    checked = check(known.path, RowChecks(workspace, renderer), tokens=renderer is not None)
    if renderer is None:
        notes.print("tokens weren't compared: the model isn't ready here; name one with --model, or pull it")
    emit(checked, as_json, lambda: shown.show_checked(checked))
    raise typer.Exit(Exit.FAILED if checked.findings else Exit.OK)


@app.command("export")
def export_command(
    dataset: DatasetArgument,
    to: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write; its card lies beside it")],
    form: Annotated[str, typer.Option("--as", help=f"Who reads it: {', '.join(FORMS)}")] = "trl",
    folder: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a dataset in the form that another program reads, with its card.

    Example: journeyman data export clerk.jsonl --as openai --out clerk-openai.jsonl
    """
    if form not in FORMS:
        raise ConfigError(f"--as {form}: there is no such form; have {', '.join(FORMS)}")
    known = open_dataset(find_workspace(folder), dataset)
    if to.resolve() == known.path.resolve():
        raise ConfigError(f"--out {to} is the dataset itself, which never changes: name another file")
    card = export(known, form, to)
    written = {"path": to, "form": form, "rows": card.rows, "digest": card.digest}
    emit(written, as_json, lambda: out.print(f"{to}: {card.rows} rows for {form}", markup=False, soft_wrap=True))
