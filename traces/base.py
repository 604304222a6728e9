"""The two bases of every noun: `Record`, what happened, and `Config`, what a user asked for."""

import codecs
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from journeyman.traces.errors import ConfigError, writable
from journeyman.traces.files import regular

Words: TypeAlias = Annotated[str, AfterValidator(writable)]
"""What somebody else's code may have said, so that it can be kept."""


class Record(BaseModel):
    """A frozen value; fields are given by keyword, derived values are properties."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Config(BaseModel):
    """What a user may write, in TOML or Python; an unknown key is an error that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


M = TypeVar("M", bound=BaseModel)

UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument"}
MISSING = {"missing", "missing_argument", "missing_keyword_only_argument"}
CONTAINERS = {dict, list, tuple, Mapping, Sequence}
WORDS = {
    "tuple_type": "write a list",
    "list_type": "write a list",
    "sequence_str": "write a list",
    "dict_type": "write a table",
    "model_type": "write a table",
}
"""Pydantic's kinds of mistakes, those whose own words are about Python in the words of TOML."""


def parse_config(config: type[M], values: dict[str, Any], origin: str, *, beside: Iterable[str] = ()) -> M:
    """`values` as a `config`; a mistake becomes a `ConfigError` of one line that names `origin` and the key.

    Keys `beside` stand in the same table and are somebody else's: one of them may be meant by an unknown key.
    """
    try:
        return config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {first_mistake(error, config, beside=beside)}") from None


def encoding_of(path: Path) -> str:
    """How a text file that a user wrote is encoded: by the byte order mark that some editors begin it with, or UTF-8.

    Raises `OSError` where it can't be read.
    """
    with regular(path).open("rb") as file:
        mark = file.read(2)
    return "utf-16" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def read_text(path: Path) -> str:
    """A text file that a user wrote; raises `ConfigError` where it can't be read, or isn't text."""
    try:
        return path.read_text(encoding=encoding_of(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text: save it as such") from None


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding=encoding_of(path)))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def first_mistake(error: ValidationError, config: type[BaseModel] | None = None, *, beside: Iterable[str] = ()) -> str:
    """One line about what was written wrong; an unknown key comes first, as it may be why another one is missing."""
    mistakes = error.errors(include_url=False, include_input=False)
    first = next((one for one in mistakes if one["type"] in UNKNOWN), mistakes[0])
    path = first["loc"]
    where = ".".join(str(part) for part in path)
    if first["type"] in UNKNOWN:
        text = unknown_key(where, [*_keys(config, path[:-1]), *(beside if len(path) == 1 else ())])
    elif first["type"] in MISSING:
        text = f"{where!r} is missing"
    else:
        said = first["msg"].removeprefix("Value error, ")
        text = (f"{where!r}: " if where else "") + WORDS.get(first["type"], said)
    return text if len(mistakes) == 1 else f"{text} (and {len(mistakes) - 1} more)"


def unknown_key(key: str, known: Sequence[str]) -> str:
    """That there is no such key, and which one may be meant: the nearest one, else any of `known`."""
    if near := get_close_matches(key.rpartition(".")[2], known, n=1):
        return f"unknown key {key!r}; did you mean {near[0]!r}?"
    return f"unknown key {key!r}" + (f"; there are: {', '.join(known)}" if known else "")


def _keys(kind: Any, path: Sequence[int | str]) -> list[str]:
    """The keys of the table at `path` in a value of that type."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
        return _keys(fields.get(str(path[0])), path[1:]) if path else list(fields)
    # A container's parts lie one deeper, what a type is one of, or annotated with, does not.
    within = path[1:] if get_origin(kind) in CONTAINERS else path
    return next((keys for part in get_args(kind) if (keys := _keys(part, within))), [])
