"""Samples: rows of training data for one agent, each naming the spans it came from, and the files that hold them."""

import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, JsonValue, ValidationError, model_validator
from pydantic_core import to_json

from journeyman.traces.base import Record, first_mistake, read_text
from journeyman.traces.errors import ConfigError, StoreError, TrainingError
from journeyman.traces.files import make_folder, publish
from journeyman.traces.messages import Message, ToolCall

BUFFER_BYTES = 2**20
"""A row is a kilobyte or two: so many go to the file at once."""


Kind = Literal["sft"]
"""What a row is to be learned as."""


class SFTSample(Record):
    """One reply to imitate: as text, or as the very tokens that the server sampled."""

    kind: Literal["sft"] = "sft"
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
    """The reply's text."""
    tool_calls: tuple[ToolCall, ...] | None = None
    """The reply's calls, where it has any."""
    tools: tuple[dict[str, JsonValue], ...] | None = None
    """What the server was given to be called, where it was: the definition of each."""
    prompt_form: str | None = None
    """Digest of the form that the prompt is in; None where it isn't one of ours, or from before it was recorded."""
    edited_by: str | None = None
    """Who wrote the reply in the place of the recorded one: the source of the label `edit`, the policy is `person`."""
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


class DatasetFile(NamedTuple):
    path: Path
    digest: str
    """SHA-256 over the contents."""
    rows: int


def write_samples(samples: Iterable[SFTSample], path: Path) -> str:
    """Writes JSON lines, all or nothing, and returns the dataset's digest; raises `StoreError` if the disk refuses."""
    return write_lines(map(sample_line, samples), path.parent, lambda digest: path.name).digest


def write_lines(lines: Iterable[bytes], folder: Path, name: Callable[[str], str]) -> DatasetFile:
    """The same for lines as `sample_line` gives them, one at a time, into a file that `name` names by its digest."""
    hashed, rows = sha256(), 0
    partial = folder / f".dataset-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        make_folder(folder)
        with partial.open("wb", buffering=BUFFER_BYTES) as file:
            for line in lines:
                hashed.update(line)
                file.write(line)
                rows += 1
        path = folder / name(hashed.hexdigest())
        publish(partial, path)
    except OSError as error:
        raise StoreError(f"a dataset in {folder} was not written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return DatasetFile(path, hashed.hexdigest(), rows)


def sample_line(sample: SFTSample) -> bytes:
    return sample.model_dump_json(exclude_none=True).encode() + b"\n"


def plain_line(*, ids: tuple[str, str] | None, **fields: Any) -> bytes:
    """The same of a sample's fields as plain values, which nobody checks: for many samples at once.

    `ids` are the token ids of prompt and reply, which come last, as JSON without spaces.
    """
    line = to_json(_WITHOUT_IDS | fields, inf_nan_mode="null")
    if ids is None:
        return line + b"\n"
    return b'%b,"prompt_token_ids":%b,"token_ids":%b}\n' % (line[:-1], *map(str.encode, ids))


_WITHOUT_IDS = {
    name: field.get_default() for name, field in SFTSample.model_fields.items() if field.get_default() is not None
}


def read_samples(path: Path) -> list[SFTSample]:
    """The samples of a file; raises `ConfigError` where it can't be read, `TrainingError` naming a broken line."""
    if not path.exists():
        raise ConfigError(f"{path}: there is no such dataset: `journeyman mine` writes one")
    # Not splitlines: JSON leaves the other line separators of Unicode as they are.
    lines = read_text(path).split("\n")
    return [_read_line(line, number, path) for number, line in enumerate(lines, 1) if line.strip()]


def digest_samples(samples: Sequence[SFTSample]) -> str:
    """SHA-256 over the contents that `write_samples` would write."""
    hashed = sha256()
    for sample in samples:
        hashed.update(sample_line(sample))
    return hashed.hexdigest()


def _read_line(line: str, number: int, path: Path) -> SFTSample:
    try:
        return SFTSample.model_validate_json(line)
    except ValidationError as error:
        raise TrainingError(f"{path}: line {number}: {first_mistake(error, SFTSample)}") from None
