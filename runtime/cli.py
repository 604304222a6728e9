"""The `journeyman` command: finds the command groups, and turns errors into one line and an exit code."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from journeyman.runtime import variables
from journeyman.runtime.console import Exit, notes
from journeyman.traces.errors import ConfigError, JourneymanError, in_one_line, writable

GROUP = "journeyman.commands"
UNEXPECTED = "this should not happen"

PANELS = {
    "Set up": ["doctor", "model", "server", "demo"],
    "1. Run": ["run", "runs", "mcp", "memory"],
    "2. Record": ["traces", "label", "replay"],
    "3. Learn": ["tasks", "teach", "mine", "data", "train", "trainings", "train-router"],
    "4. Prove": ["evaluate", "gate"],
    "5. Serve": ["adapters"],
}
"""The map of the loop that `journeyman --help` shows; commands of other packages come under "More"."""


class Map(TyperGroup):
    """Lists commands and groups in the order of the loop; typer would list all commands before all groups."""

    def list_commands(self, ctx: Any) -> list[str]:
        known = [name for names in PANELS.values() for name in names if name in self.commands]
        return known + sorted(set(self.commands) - set(known))


app = typer.Typer(
    name="journeyman",
    cls=Map,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A crew of agents that learns from its own work: run tasks, record every step, mine the record, "
    "train an adapter for each agent, prove that it is better, and swap it into the live server.",
    epilog="Exit codes: 0 ok, 1 failed, 2 usage, 3 partial, 4 needs input, 5 out of budget, 130 interrupted.",
)


@app.callback(invoke_without_command=True)
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error")] = False,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version")] = False,
) -> None:
    if show_version:
        typer.echo(version("journeyman"))
        raise typer.Exit


def build(arguments: Sequence[str] = ()) -> typer.Typer:
    """The application with every command that an installed package offers under `journeyman.commands`.

    Where the arguments name one of them, only that one: the others would take longer to import than it to run.
    """
    app.registered_commands, app.registered_groups = [], []  # Those of an earlier call in this process.
    panels = {name: panel for panel, names in PANELS.items() for name in names}
    named = next((argument for argument in arguments if not argument.startswith("-")), "")
    entries = entry_points(group=GROUP)
    for entry in entries.select(name=named) or entries:
        command, panel = entry.load(), panels.get(entry.name, "More")
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=entry.name, rich_help_panel=panel)
        else:
            app.command(entry.name, rich_help_panel=panel)(command)
    return app


def main() -> None:
    os.environ.setdefault(variables.OFFLINE, "1")
    try:
        _check_readable(sys.argv[1:])
        code = build(sys.argv[1:])(standalone_mode=False)
    except (JourneymanError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        _complain(_said(error))
        code = error.exit_code if isinstance(error, JourneymanError) else Exit.FAILED
    except typer.TyperException as error:
        code = _misused(error)
    except typer.Abort:
        _complain("not confirmed: nothing was done")
        code = Exit.FAILED
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except Exception as error:  # A fault of ours, or of a library: a page of its lines helps nobody who works here.
        if "--debug" in sys.argv:
            raise
        _complain(f"{UNEXPECTED}: {writable(in_one_line(error))} (--debug shows where; please report it)")
        code = Exit.FAILED
    if code == Exit.INTERRUPTED:
        _complain("interrupted: run the same command again to pick up where it was")
    sys.exit(code if isinstance(code, int) else Exit.OK)


def _check_readable(arguments: Sequence[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{argument!r} is not valid UTF-8, which every text and name here has to be") from None


def _said(error: JourneymanError | OSError) -> str:
    """A file that cannot be used is told like any other error, wherever it turned up."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be used: {error.strerror}"
    return str(error)


def _misused(error: typer.TyperException) -> int:
    """A command line that can't be understood: one line, or the help where nothing was asked."""
    message = error.format_message()
    if message.count("\n") > 1:
        typer.echo(message, err=True)
    elif message.strip():  # Else nothing was asked, and the help was printed already.
        _complain(f"{message.strip()} (see --help)")
    return Exit.USAGE


def _complain(message: str) -> None:
    message = " ".join(message.splitlines())  # A path may hold a line break.
    notes.print("error: ", style="red", end="")
    notes.print(message, markup=False, soft_wrap=True)
