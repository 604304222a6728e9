"""The two bases of every noun: `Record`, what happened, and `Config`, what a user asked for."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from journeyman.traces.errors import ConfigError


class Record(BaseModel):
    """A frozen value; fields are given by keyword, derived values are properties."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Config(BaseModel):
    """What a user may write, in TOML or Python; an unknown key is an error that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


M = TypeVar("M", bound=BaseModel)

UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument"}
MISSING = {"missing", "missing_argument", "missing_keyword_only_argument"}
WORDS = {
    "tuple_type": "write a list",
    "list_type": "write a list",
    "sequence_str": "write a list",
    "dict_type": "write a table",
    "model_type": "write a table",
}
"""Pydantic's kinds of mistakes, those whose own words are about Python in the words of TOML."""


def parse_config(config: type[M], values: dict[str, Any], origin: str) -> M:
    """`values` as a `config`; a mistake becomes a `ConfigError` of one line that names `origin` and the key."""
    try:
        return config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {first_mistake(error)}") from None


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def first_mistake(error: ValidationError) -> str:
    """One line about what was written wrong; an unknown key comes first, as it may be why another one is missing."""
    mistakes = error.errors(include_url=False, include_input=False)
    first = next((one for one in mistakes if one["type"] in UNKNOWN), mistakes[0])
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] in UNKNOWN:
        text = f"unknown key {where!r}"
    elif first["type"] in MISSING:
        text = f"{where!r} is missing"
    else:
        said = first["msg"].removeprefix("Value error, ")
        text = (f"{where!r}: " if where else "") + WORDS.get(first["type"], said)
    return text if len(mistakes) == 1 else f"{text} (and {len(mistakes) - 1} more)"
