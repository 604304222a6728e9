"""A dataset's card: what is in it, where that is from, what was refused, and what made it. It lies beside the file."""

import json
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from time import time_ns
from typing import NamedTuple

from pydantic import JsonValue, ValidationError
from pydantic_core import from_json

from journeyman.agents.model import BASE
from journeyman.runtime.workspace import Workspace
from journeyman.traces import attributes as a
from journeyman.traces.base import Record
from journeyman.traces.capture.redact import MARK
from journeyman.traces.errors import StoreError
from journeyman.traces.files import regular, write_whole
from journeyman.traces.storage.store import TraceStore
from journeyman.training.data.datasets.rows import DatasetRow

SUFFIX = ".card.json"
NOTES = ("licence", "terms")
"""Keys of a row that say what its owner allows."""


class Lengths(Record):
    """Of texts in tokens or letters."""

    measured: int
    """Rows that have them."""
    total: int
    median: int
    p90: int
    longest: int


class Card(Record):
    version: int = 1
    """Of this record's form."""
    digest: str
    """SHA-256 of the file that it is of."""
    kind: str
    """Of its rows."""
    rows: int
    turns: int | None = None
    """Recorded turns that gave the rows, equal ones included; None where nobody counted them."""
    agents: dict[str, int]
    """Rows of each; so for the next ones."""
    origins: dict[str, int]
    policies: dict[str, int]
    families: dict[str, int]
    purposes: dict[str, int]
    runs: int
    """Recorded runs that the rows are from."""
    spans: int
    weight: float
    """Sum over the rows."""
    prompt_tokens: Lengths | None
    """Of prompts in the server's own tokens; None where no row has them."""
    reply_tokens: Lengths | None
    letters: Lengths
    """Of prompt and replies."""
    prompt_forms: tuple[str, ...]
    """Digests of the forms that prompts are in."""
    refused: dict[str, int]
    """Turns that gave no row, by reason."""
    notes: tuple[str, ...]
    """What owners and providers say of learning from it: licences and terms."""
    content: str | None
    """What was recorded of texts, as `[traces] content` said when it was made; None where nobody knows."""
    redact: tuple[str, ...] | None
    """What was blacked out before anything was recorded."""
    redacted_rows: int
    """Rows in which something is blacked out."""
    made_by: dict[str, JsonValue]
    """The options of `journeyman mine`, or of what else wrote it."""
    journeyman: str | None
    """Version that wrote it."""
    made_ns: int | None
    """Nanoseconds since 1970."""
    form: str | None = None
    """Of an export, such as `trl`; None for a dataset."""
    exported_from: str | None = None
    """Digest of the dataset that it is an export of."""


class Profile:
    """What rows tell of themselves, counted while they pass by."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.agents: Counter[str] = Counter()
        self.origins: Counter[str] = Counter()
        self.policies: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()
        self.notes: dict[str, None] = {}
        self.forms: dict[str, None] = {}
        self.rows = self.spans = self.redacted = 0
        self.weight = 0.0
        self._prompt_tokens, self._reply_tokens, self._letters = array("Q"), array("Q"), array("Q")

    def over(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The same lines, each counted."""
        for number, line in enumerate(lines, 1):
            self.add(DatasetRow(number, from_json(line)))
            yield line

    def add(self, row: DatasetRow) -> None:
        values = row.values
        self.rows += 1
        self.kinds[row.kind] += 1
        self.agents[str(values.get("agent"))] += 1
        self.origins[row.origin or "unknown"] += 1
        self.policies.update(dict.fromkeys(row.policies, 1))
        self.runs.update(row.trace_ids)
        self.spans += len(row.span_ids)
        self.weight += values.get("weight", 1.0)
        self.forms.update(dict.fromkeys([form] if (form := values.get("prompt_form")) is not None else []))
        self.notes.update({f"{name}: {values[name]}": None for name in NOTES if values.get(name)})
        if row.prompt_token_ids:
            self._prompt_tokens.append(len(row.prompt_token_ids))
        self._reply_tokens.extend(len(part.token_ids) for part in row.parts if part.token_ids)
        texts = [row.text, *(str(message.get("content")) for message in row.messages), *(p.text for p in row.parts)]
        self._letters.append(sum(map(len, texts)))
        self.redacted += any(MARK in text for text in texts)

    def card(self, digest: str, made: "Provenance", *, turns: int | None, refused: Mapping[str, int]) -> Card:
        families, purposes = _of_runs(made.store, self.runs)
        return Card(
            digest=digest,
            kind=" + ".join(sorted(self.kinds)),
            rows=self.rows,
            turns=turns,
            agents=dict(self.agents.most_common()),
            origins=dict(self.origins.most_common()),
            policies=dict(self.policies.most_common()),
            families=families,
            purposes=purposes,
            runs=len(self.runs),
            spans=self.spans,
            weight=round(self.weight, 6),
            prompt_tokens=_lengths(self._prompt_tokens),
            reply_tokens=_lengths(self._reply_tokens),
            letters=_lengths(self._letters) or Lengths(measured=0, total=0, median=0, p90=0, longest=0),
            prompt_forms=tuple(self.forms),
            refused=dict(refused),
            notes=(*self.notes, *_terms(made.store, self.runs, self.policies)),
            content=made.content,
            redact=made.redact,
            redacted_rows=self.redacted,
            made_by=dict(made.options),
            journeyman=None if made.at_ns is None else version("journeyman"),
            made_ns=made.at_ns,
        )


class Provenance(NamedTuple):
    """What a card says that the rows don't know."""

    store: TraceStore
    """Knows the families and purposes of runs, and the terms under which a teacher replied."""
    options: Mapping[str, JsonValue] = {}
    content: str | None = None
    redact: tuple[str, ...] | None = None
    at_ns: int | None = None
    """Now; None for rows that somebody else wrote before."""

    @classmethod
    def now(cls, workspace: Workspace, options: Mapping[str, JsonValue]) -> "Provenance":
        """Of a dataset that is made in this workspace."""
        traces = workspace.config.traces
        return cls(workspace.store, options, traces.content, traces.redact, time_ns())


def card_path(dataset: Path) -> Path:
    return dataset.with_name(dataset.name + SUFFIX)


def write_card(card: Card, dataset: Path) -> None:
    """Raises `StoreError` where the disk refuses."""
    path = card_path(dataset)
    try:
        write_whole(path, json.dumps(card.model_dump(mode="json"), ensure_ascii=False, indent=2) + "\n")
    except OSError as error:
        raise StoreError(f"{path} was not written: {error.strerror or error}") from error


def read_card(dataset: Path) -> Card | None:
    """The card beside a dataset, None where there is none; raises `StoreError` for a file that is no card."""
    path = card_path(dataset)
    try:
        return Card.model_validate_json(regular(path).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        raise StoreError(f"{path} isn't a card: remove it, and the dataset has none") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}; remove it, and the dataset has none") from None


def _lengths(numbers: "array[int]") -> Lengths | None:
    if not numbers:
        return None
    ordered = sorted(numbers)
    last = len(ordered) - 1
    median, p90 = (ordered[round(share * last)] for share in (0.5, 0.9))
    return Lengths(measured=len(ordered), total=sum(ordered), median=median, p90=p90, longest=ordered[-1])


def _of_runs(store: TraceStore, runs: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Rows of each family and each purpose, as far as their runs are still recorded."""
    families, purposes = Counter[str](), Counter[str]()
    if runs:
        for run in store.sql("SELECT trace_id, family, purpose FROM traces").to_pylist():
            count = runs.get(run["trace_id"], 0)
            for counter, value in ((families, run["family"]), (purposes, run["purpose"])):
                counter.update({value or "none": count} if count else {})
    return dict(families.most_common()), dict(purposes.most_common())


def _terms(store: TraceStore, runs: Collection[str], policies: Collection[str]) -> list[str]:
    """What was recorded with the replies of those policies: what their providers say of learning from them."""
    if all("@" in policy or policy == BASE for policy in policies):
        return []  # Own weights have no terms, and every span would be read to find that.
    query = f"""SELECT DISTINCT trace_id, policy, attributes ->> '$."{a.TERMS}"' AS terms FROM spans
        WHERE operation IN {a.INFERENCE} AND terms IS NOT NULL ORDER BY policy, terms"""
    found = store.sql(query).to_pylist()
    those = (one for one in found if one["trace_id"] in runs and one["policy"] in policies)
    return list(dict.fromkeys(f"terms of {one['policy']}: {one['terms']}" for one in those))
