"""The `journeyman` command: finds the command groups, and turns errors into one line and an exit code."""

import os
import sys
from importlib.metadata import entry_points, version
from typing import Annotated

import typer

from journeyman.runtime.console import Exit, notes
from journeyman.traces.errors import JourneymanError

GROUP = "journeyman.commands"

PANELS = {
    "Set up": ["doctor", "model", "server", "demo"],
    "1. Run": ["run"],
    "2. Record": ["traces"],
    "3. Learn": ["mine", "train"],
    "4. Prove": ["evaluate", "gate"],
    "5. Serve": ["adapters"],
}
"""The map of the loop that `journeyman --help` shows; commands of other packages come under "More"."""

app = typer.Typer(
    name="journeyman",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A crew of agents that learns from its own work: run tasks, record every step, mine the record, "
    "train an adapter for each agent, prove that it is better, and swap it into the live server.",
    epilog="Exit codes: 0 ok, 1 failed, 2 usage, 3 partial, 4 needs input, 5 out of budget.",
)


@app.callback(invoke_without_command=True)
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error")] = False,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version")] = False,
) -> None:
    if show_version:
        typer.echo(version("journeyman"))
        raise typer.Exit


def build() -> typer.Typer:
    """The application with every command that an installed package offers under `journeyman.commands`."""
    offered = {entry.name: entry for entry in entry_points(group=GROUP)}
    ordered = [(panel, name) for panel, names in PANELS.items() for name in names if name in offered]
    known = {name for _, name in ordered}
    ordered += [("More", name) for name in sorted(offered.keys() - known)]
    for panel, name in ordered:
        command = offered[name].load()
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel)(command)
    return app


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    debug = "--debug" in sys.argv
    try:
        build()(standalone_mode=True)
    except JourneymanError as error:
        if debug:
            raise
        notes.print(f"[red]error[/red]: {error}", markup=True, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        notes.print("interrupted: run the same command again to pick up where it was")
        sys.exit(Exit.FAILED)
