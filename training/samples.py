"""Samples: rows of training data for one agent, each naming the spans it came from, and the files that hold them."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from journeyman.traces.errors import ConfigError, StoreError, TrainingError
from journeyman.traces.messages import Message
from journeyman.traces.record import Record


class SFTSample(Record):
    """One reply to imitate: as text, or as the very tokens that the server sampled."""

    version: int = 1
    """Of this record's form."""
    agent: str
    policy: str
    """The policy that gave the reply."""
    trace_id: str
    span_ids: tuple[str, ...] = Field(min_length=1)
    """Model calls that gave exactly this row, the first one's trace being `trace_id`."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Factor on the row's loss."""
    messages: tuple[Message, ...]
    """The whole prompt, earlier turns included."""
    completion: str
    prompt_token_ids: tuple[int, ...] | None = None
    token_ids: tuple[int, ...] | None = None
    """The reply in the server's tokens, end of turn included. None for a demonstration, which is only text."""

    @model_validator(mode="after")
    def _token_ids_come_in_pairs(self) -> "SFTSample":
        if bool(self.prompt_token_ids) != bool(self.token_ids):
            raise ValueError("prompt_token_ids and token_ids are given together, or neither is")
        return self

    @property
    def count(self) -> int:
        """How often the row was seen."""
        return len(self.span_ids)


def write_samples(samples: Iterable[SFTSample], path: Path) -> str:
    """Writes JSON lines, all or nothing, and returns the dataset's digest; raises `StoreError` if the disk refuses."""
    contents = _lines(samples)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise StoreError(f"dataset {path} was not written: {error.strerror or error}") from error
    return sha256(contents).hexdigest()


def read_samples(path: Path) -> list[SFTSample]:
    """The samples of a file; raises `ConfigError` without the file, `TrainingError` naming a broken line."""
    try:
        # Not splitlines: JSON leaves the other line separators of Unicode as they are.
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such dataset: `journeyman mine` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: cannot be read: {error}") from None
    return [_read_line(line, number, path) for number, line in enumerate(lines, 1) if line.strip()]


def digest_samples(samples: Sequence[SFTSample]) -> str:
    """SHA-256 over the contents that `write_samples` would write."""
    return sha256(_lines(samples)).hexdigest()


def _lines(samples: Iterable[SFTSample]) -> bytes:
    return "".join(sample.model_dump_json(exclude_none=True) + "\n" for sample in samples).encode()


def _read_line(line: str, number: int, path: Path) -> SFTSample:
    try:
        return SFTSample.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TrainingError(f"{path}: line {number}: {where + ': ' if where else ''}{first['msg']}") from None
