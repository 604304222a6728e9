"""Imports: what a user names as `module:attribute`, such as a tool, a check or a scorer."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from journeyman.traces.errors import ConfigError, in_one_line


def imported(name: str, what: str) -> Any:
    """What `name` stands for; raises `ConfigError`, which begins with `what` it was to be, where it cannot be had.

    A module that is not installed may lie in the current folder.
    """
    module, _, attribute = name.partition(":")
    if not (module and attribute):
        raise ConfigError(f'{what} {name!r}: write "module:attribute"')
    try:
        with _found(module):
            return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{what} {name!r} cannot be imported: {error}") from None
    except Exception as error:  # Of the module's own code, or of a name such as "..".
        raise ConfigError(f"{what} {name!r} cannot be imported: {in_one_line(error)}") from error


@contextmanager
def _found(module: str) -> Iterator[None]:
    """The current folder is looked into for that module only: an agent may write there, and what else a library would
    like to import, and does without, must not be found in what it wrote."""
    package = module.partition(".")[0]
    if not package or find_spec(package) is not None:
        yield
        return
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)
