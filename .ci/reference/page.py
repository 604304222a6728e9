"""The page: what stands before, between and after its tables."""

from collections.abc import Iterator
from pathlib import Path

from journeyman.runtime import variables
from journeyman.runtime.console import Exit
from reference.commands import commands
from reference.keys import files
from reference.names import names
from reference.source import described, meanings, source, table, texts_below

PAGE = Path(__file__).parents[2] / "REFERENCE.md"

HEAD = """\
# Reference

`make reference` writes this page from the code: a description is changed in the docstring that it comes from.

- [crew.toml](#crewtoml): who does the work, with which tools, and what holds them in
- [journeyman.toml](#journeymantoml): the server, the record, kept runs, models elsewhere
- [recipe.toml](#recipetoml): how an adapter is trained
- [Commands](#commands) and [exit codes](#exit-codes)
- [Environment variables](#environment-variables)
- [Python](#python): what `journeyman.runtime` and `journeyman.agents` offer

The pages of [agents/](agents/README.md), [runtime/](runtime/README.md), [traces/](traces/README.md) and
[training/](training/README.md) show each file whole.
A default of `None` means that the key is left out. An unknown key is an error that names the nearest known one."""

OTHERS = """\
A key whose name ends with `_env` names a variable of yours that holds a secret. So do `env` and `headers` of the `mcp`
tool. Libraries read their own, such as `PGPASSWORD` (Postgres) and `AWS_ACCESS_KEY_ID` (segments on S3)."""


def page() -> str:
    shown: dict[type, str] = {}
    parts = [HEAD, *files(shown), *commands(), *_exit_codes(), *_variables(), *names(shown)]
    return "\n\n".join(parts) + "\n"


def _exit_codes() -> Iterator[str]:
    told = meanings(Exit)
    yield "## Exit codes"
    yield table(
        ("exit code", "meaning"), ((str(code.value), described(told.get(code.name), code.name)) for code in Exit)
    )


def _variables() -> Iterator[str]:
    told = texts_below(source(variables.__name__))
    read = {name: value for name, value in vars(variables).items() if name.isupper()}
    yield "## Environment variables"
    yield table(("variable", "meaning"), ((f"`{read[name]}`", described(told.get(name), name)) for name in read))
    yield OTHERS
