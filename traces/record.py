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


def parse_config(config: type[M], values: dict[str, Any], origin: str) -> M:
    """`values` as a `config`; a mistake becomes a `ConfigError` of one line that names `origin` and the key."""
    try:
        return config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_first_mistake(error)}") from None


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def _first_mistake(error: ValidationError) -> str:
    mistakes = error.errors(include_url=False, include_input=False)
    first = mistakes[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        text = f"unknown key {where!r}"
    elif first["type"] == "missing":
        text = f"{where!r} is missing"
    else:
        text = (f"{where!r}: " if where else "") + first["msg"].removeprefix("Value error, ")
    return text if len(mistakes) == 1 else f"{text} (and {len(mistakes) - 1} more)"
