"""Datasets: files of training rows, how a user names one, and what their rows say of where they came from."""

import json
import re
from collections.abc import Iterator
from hashlib import file_digest
from pathlib import Path
from typing import Any

from journeyman.traces.base import Record
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.files import regular

SUFFIX = ".jsonl"
SIDES = ("chosen", "rejected")
"""Keys of a row that compares two replies: each names its own spans."""
UNSAID = ("prompts", "documents")
"""Kinds of rows in which nobody replies."""
SHORTEST = 4
"""Hex digits of a digest that name a dataset."""


class Side(Record):
    """What a row has of one reply: most rows have one, a preference has two."""

    trace_id: str
    span_ids: tuple[str, ...]
    policy: str | None
    """What sampled it."""
    demonstration: bool = False
    """Whether it is a reply in text alone, which nobody sampled."""


class Row(Record):
    """What a dataset's row says of where it came from."""

    number: int
    """Of its line, from 1."""
    sides: tuple[Side, ...]

    def is_from(self, trace_ids: frozenset[str], span_ids: frozenset[str]) -> bool:
        return any(side.trace_id in trace_ids or not span_ids.isdisjoint(side.span_ids) for side in self.sides)


class Dataset(Record):
    """A file of training rows."""

    path: Path
    digest: str
    rows: tuple[Row, ...]


def dataset_files(folder: Path) -> list[Path]:
    """Those of a workspace's folder, by name."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def digest_file(path: Path) -> str:
    """SHA-256 over a file, in memory that doesn't grow with it; raises `ConfigError` where it can't be read."""
    try:
        with regular(path).open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such dataset: `journeyman mine` writes one") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def find_dataset(folder: Path, name: str) -> Path:
    """The file that is meant by a path, by a name in the workspace's `folder`, or by a digest or its start.

    Raises `ConfigError` for a name of nothing or of several.
    """
    for path in (Path(name), folder / name, folder / f"{name}{SUFFIX}"):
        if path.is_file():
            return path
    if re.fullmatch(rf"[0-9a-f]{{{SHORTEST},64}}", name):
        meant = [path for path in dataset_files(folder) if digest_file(path).startswith(name)]
        if len(meant) == 1:
            return meant[0]
        if meant:
            some = ", ".join(path.name for path in meant[:4])
            raise ConfigError(f"{len(meant)} datasets have a digest that starts with {name} ({some}): give its name")
    raise ConfigError(
        f"there is no dataset {name!r}: name a file, or what `journeyman data list` shows; `journeyman mine` writes one"
    )


def read_dataset(path: Path) -> Dataset:
    """A file's rows as far as lineage needs them; lines that are no rows are passed over."""
    digest = digest_file(path)
    return Dataset(path=path, digest=digest, rows=tuple(_rows(path)))


def split_row(name: str) -> tuple[str, int] | None:
    """`DATASET:ROW` as both; None for another name."""
    dataset, colon, number = name.rpartition(":")
    return (dataset, int(number)) if colon and dataset and number.isascii() and number.isdecimal() else None


def _rows(path: Path) -> Iterator[Row]:
    with regular(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield Row(number=number, sides=tuple(_sides(json.loads(line))))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # Training says which line of a dataset is broken.


def _sides(row: dict[str, Any]) -> Iterator[Side]:
    sides = [row[name] for name in SIDES if isinstance(row.get(name), dict)]
    for side in sides or [row]:
        yield Side(
            trace_id=side["trace_id"],
            span_ids=side["span_ids"],
            policy=side.get("policy"),
            demonstration=row.get("kind") not in UNSAID and not side.get("token_ids"),
        )


def row_of(dataset: Dataset, number: int) -> Row:
    """Raises `StoreError` where there is none, or it names no spans."""
    for row in dataset.rows:
        if row.number == number:
            return row
    raise StoreError(f"{dataset.path.name} has no row {number} that names spans: it has {len(dataset.rows)} that do")
