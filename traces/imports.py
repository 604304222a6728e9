"""Imports: what a user names as `module:attribute`, such as a tool, a check or a scorer."""

import importlib
from typing import Any

from journeyman.traces.errors import ConfigError


def imported(name: str, what: str) -> Any:
    """What `name` stands for; raises `ConfigError`, which begins with `what` it was to be, where it cannot be had."""
    module, _, attribute = name.partition(":")
    if not (module and attribute):
        raise ConfigError(f'{what} {name!r}: write "module:attribute"')
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{what} {name!r} cannot be imported: {error}") from None
    except Exception as error:  # Of the module's own code, or of a name such as "..".
        raise ConfigError(f"{what} {name!r} cannot be imported: {type(error).__name__}: {error}") from error
