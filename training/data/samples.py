"""Samples: rows of training data for one agent, each naming the spans it came from, and the files that hold them."""

import os
import secrets
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar, overload

from pydantic import Field, JsonValue, ValidationError, model_validator
from pydantic_core import from_json, to_json

from journeyman.runtime.adapters.datasets import digest_file
from journeyman.traces.base import Record, first_mistake, read_text
from journeyman.traces.errors import ConfigError, StoreError, TrainingError
from journeyman.traces.files import make_folder, publish
from journeyman.traces.messages import Message, ToolCall
from journeyman.traces.trace import Task

S = TypeVar("S", bound="Sample")

BUFFER_BYTES = 2**20
"""A row is a kilobyte or two: so many go to the file at once."""

Kind = Literal["sft", "preference", "kto", "prompts", "documents", "rollouts"]
"""What a row is to be learned as."""

SFTOrigin = Literal["service", "teacher", "rollout", "person", "unknown"]
"""Who gave the reply: the crew in service, a teacher, the crew as it explored in training, a person who corrected it;
`unknown` where nothing says why the run was made."""

PreferenceOrigin = Literal["sampled", "complaint", "fork", "person", "policies", "judge"]
"""What branched: several replies of one policy to one prompt, a reply that was refused and the one that was accepted
after the complaint, a replay and the run that it left, a person's edit, replies of two policies to one prompt. `judge`:
a model's judgement tells the sides apart."""

KTOOrigin = Literal["thumbs", "outcome"]
"""What says whether the reply was good: somebody's thumb, or the score of its run."""

PromptOrigin = Literal["task", "recorded"]
"""Whether the agent was asked a task itself, or its part of one."""

DocumentOrigin = Literal["folder", "corpus"]
"""Files of a folder, or what a tool of the crew searches in."""


class Sample(Record):
    """What every row begins with."""

    kind: Kind
    version: int = 1
    """Of this record's form."""
    agent: str
    """The one that learns from it."""

    @property
    @abstractmethod
    def source(self) -> str:
        """What rows have in common that are held out together: their run, or their first file."""


class ReplySample(Sample):
    """One reply to learn from: as text, or as the very tokens that the server sampled."""

    policy: str
    """The policy that gave the reply."""
    trace_id: str
    span_ids: tuple[str, ...] = Field(min_length=1)
    """Model calls that gave exactly this row, the first one's trace being `trace_id`."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Factor on the row's loss."""
    origin: str | None = None
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
    prompt_token_ids: tuple[int, ...] | None = None
    token_ids: tuple[int, ...] | None = None
    """The reply in the server's tokens, end of turn included. None for a demonstration, which is only text."""

    @model_validator(mode="after")
    def _token_ids_come_in_pairs(self) -> Self:
        if bool(self.prompt_token_ids) != bool(self.token_ids):
            raise ValueError("prompt_token_ids and token_ids are given together, or neither is")
        return self

    @property
    def source(self) -> str:
        return self.trace_id

    @property
    def count(self) -> int:
        """How often the row was seen."""
        return len(self.span_ids)


class SFTSample(ReplySample):
    """One reply to imitate."""

    kind: Literal["sft"] = "sft"
    origin: SFTOrigin | None = None
    """None in a file from before rows said it."""
    edited_by: str | None = None
    """Who wrote the reply in the place of the recorded one: the source of the label `edit`, the policy is `person`."""


class KTOSample(ReplySample):
    """One reply, and whether it was good."""

    kind: Literal["kto"] = "kto"
    origin: KTOOrigin
    label: bool


class Side(Record):
    """One of the two replies of a pair."""

    policy: str
    trace_id: str
    span_ids: tuple[str, ...] = Field(min_length=1)
    """Model calls that gave exactly this reply to exactly this prompt; of a person's edit the one that it corrects."""
    edited_by: str | None = None
    completion: str
    tool_calls: tuple[ToolCall, ...] | None = None
    token_ids: tuple[int, ...] | None = None
    """The reply in the server's tokens, where it sampled them. The one that came after a complaint was sampled behind
    that complaint, not behind the pair's prompt."""


class PreferenceSample(Sample):
    """Two replies to one and the same prompt, of which one is better."""

    kind: Literal["preference"] = "preference"
    origin: PreferenceOrigin
    margin: float = Field(gt=0, allow_inf_nan=False)
    """How much better: the difference of their mean outcomes; 1 where a reply was refused, or a person replaced it."""
    trace_id: str
    """The chosen side's."""
    span_ids: tuple[str, ...] = Field(min_length=1)
    """Those of both sides."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    tools: tuple[dict[str, JsonValue], ...] | None = None
    prompt_form: str | None = None
    messages: tuple[Message, ...]
    """The prompt of both sides."""
    prompt_token_ids: tuple[int, ...] | None = None
    """The same in the server's tokens, where it sampled a side of it."""
    chosen: Side
    rejected: Side

    @property
    def source(self) -> str:
        return self.trace_id

    @model_validator(mode="after")
    def _the_sides_differ(self) -> Self:
        if all(getattr(self.chosen, name) == getattr(self.rejected, name) for name in ("completion", "tool_calls")):
            raise ValueError("the sides of a pair must differ")
        if bool(self.prompt_token_ids) != bool(self.chosen.token_ids or self.rejected.token_ids):
            raise ValueError("prompt_token_ids and a side's token_ids are given together, or neither is")
        return self


class PromptSample(Sample):
    """A prompt to sample replies of, whose success varies."""

    kind: Literal["prompts"] = "prompts"
    origin: PromptOrigin
    trace_id: str
    span_ids: tuple[str, ...] = Field(min_length=1)
    """Model calls that were asked exactly this, the first one's trace being `trace_id`."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    reward: str
    """The label that says what a run was worth."""
    scorer: str
    """Who stated it in the newest of those runs: the source of the label, such as a function `module:name`."""
    success_rate: float = Field(ge=0, le=1)
    """Share of the tries that succeeded."""
    tries: int = Field(ge=1)
    """Runs in which it was asked, and that were scored."""
    messages: tuple[Message, ...]
    tools: tuple[dict[str, JsonValue], ...] | None = None
    prompt_form: str | None = None
    task: Task | None = None
    """The task that the agent was asked, of origin `task`: with the reference that a scorer needs."""
    prompt_token_ids: tuple[int, ...] | None = None

    @property
    def source(self) -> str:
        return self.trace_id


class DocumentSample(Sample):
    """Text to go on pre-training with: as many passages as fit into one row."""

    kind: Literal["documents"] = "documents"
    origin: DocumentOrigin
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    sources: tuple[str, ...] = Field(min_length=1)
    """Files that the text is from."""
    licence: str = Field(min_length=1)
    """What its owner allows, as the one who mined it wrote."""
    tokens: int | None = None
    """Of the base model; None where its tokenizer wasn't at hand."""
    text: str = Field(min_length=1)

    @property
    def source(self) -> str:
        return self.sources[0]


class RolloutSample(Sample):
    """One turn that GRPO learned from while it was sampled: what lineage and deletions find it by."""

    kind: Literal["rollouts"] = "rollouts"
    policy: str
    """The weights that gave the reply, such as `lookup@3.7`: those after step 7 of the training of `lookup@3`."""
    trace_id: str
    span_ids: tuple[str, ...] = Field(min_length=1, max_length=1)
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    group: str
    """Turns of one group were compared with each other."""
    role: str
    reward: float = Field(ge=0, le=1)
    advantage: float = Field(allow_inf_nan=False)
    """How much better than the mean of its group, as it was scaled."""
    prompt_form: str | None = None
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Natural-log probability of each of `token_ids`, as the server sampled it."""

    @property
    def source(self) -> str:
        return self.trace_id


RECORDS: Mapping[str, type[Sample]] = {
    "sft": SFTSample,
    "preference": PreferenceSample,
    "kto": KTOSample,
    "prompts": PromptSample,
    "documents": DocumentSample,
    "rollouts": RolloutSample,
}

AnySample = SFTSample | PreferenceSample | KTOSample | PromptSample | DocumentSample | RolloutSample


class DatasetFile(NamedTuple):
    path: Path
    digest: str
    """SHA-256 over the contents."""
    rows: int


def write_samples(samples: Iterable[Sample], path: Path) -> str:
    """Writes JSON lines, all or nothing, and returns the dataset's digest; raises `StoreError` if the disk refuses."""
    return write_lines(map(sample_line, samples), path.parent, lambda digest: path.name).digest


def write_lines(
    lines: Iterable[bytes],
    folder: Path,
    name: Callable[[str], str],
    beside: Callable[[DatasetFile], None] = lambda dataset: None,
) -> DatasetFile:
    """The same for lines as `sample_line` gives them, one at a time, into a file that `name` names by its digest.

    `beside` writes what belongs beside the file, just before that gets its name: a kill leaves no file without it.
    Raises `TrainingError` where another dataset has the name, for a dataset never changes.
    """
    hashed, rows = sha256(), 0
    partial = folder / f".dataset-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        make_folder(folder)
        with partial.open("wb", buffering=BUFFER_BYTES) as file:
            for line in lines:
                hashed.update(line)
                file.write(line)
                rows += 1
        dataset = DatasetFile(folder / name(hashed.hexdigest()), hashed.hexdigest(), rows)
        _check_new(dataset)
        beside(dataset)
        publish(partial, dataset.path)
    except OSError as error:
        raise StoreError(f"a dataset in {folder} was not written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return dataset


def dataset_file_name(agent: str, digest: str) -> str:
    """In the workspace."""
    return f"{agent}-{digest[:12]}.jsonl"


def _check_new(dataset: DatasetFile) -> None:
    if dataset.path.exists() and digest_file(dataset.path) != dataset.digest:
        raise TrainingError(
            f"{dataset.path} is another dataset, and a dataset never changes: choose another name for it"
        )


def sample_line(sample: Sample) -> bytes:
    return sample.model_dump_json(exclude_none=True).encode() + b"\n"


def plain_line(record: type[Sample], *, written: Mapping[str, str | bytes | None], **fields: Any) -> bytes:
    """The same of the fields of a `record` as plain values, which nobody checks: for many samples at once.

    `written` are fields that stand next to each other and are JSON without spaces already. What is None has no value.
    """
    values = _defaults(record) | fields
    known = {name: values[name] for name in record.model_fields if values.get(name) is not None}
    raw = [
        b'"%b":%b' % (name.encode(), value.encode() if isinstance(value, str) else value)
        for name, value in written.items()
        if value is not None
    ]
    if not raw:
        return to_json(known, inf_nan_mode="null") + b"\n"
    behind = {name: known.pop(name) for name in _behind(record, next(iter(written))) if name in known}
    ends = [to_json(part, inf_nan_mode="null")[1:-1] for part in (known, behind) if part]
    return b"{%b}\n" % b",".join([*ends[:1], *raw, *ends[1:]])


def with_spans(line: bytes, span_ids: Sequence[str]) -> bytes:
    """The line with all its spans in the place of the first. No text can hold the key: there its quotes are escaped."""
    # Parsed and dumped instead, in as many lines, a merged row costs 40 µs (8 kB) to 340 µs (69 kB); this 2 to 10 µs.
    if len(span_ids) == 1:
        return line
    return line.replace(b'"span_ids":["%s"]' % span_ids[0].encode(), b'"span_ids":' + to_json(span_ids), 1)


def weighed(line: bytes, weight: float) -> bytes:
    """The line with a weight in the place of 1."""
    return line if weight == 1.0 else line.replace(b'"weight":1.0', b'"weight":' + to_json(weight), 1)


@cache
def _defaults(record: type[Sample]) -> dict[str, Any]:
    return {name: field.default for name, field in record.model_fields.items() if not field.is_required()}


@cache
def _behind(record: type[Sample], name: str) -> tuple[str, ...]:
    """The fields that come after one."""
    names = tuple(record.model_fields)
    return names[names.index(name) + 1 :]


@overload
def read_samples(path: Path) -> list[AnySample]: ...
@overload
def read_samples(path: Path, record: type[S], *also: type[S]) -> list[S]: ...
def read_samples(path: Path, record: type[Sample] = Sample, *also: type[Sample]) -> list[Any]:
    """The samples of a file, all of one kind.

    Raises `ConfigError` where it can't be read, `TrainingError` naming a broken line, or where they are neither of
    `record` nor of `also`.
    """
    if not path.exists():
        raise ConfigError(f"{path}: there is no such dataset: `journeyman mine` writes one")
    # Not splitlines: JSON leaves the other line separators of Unicode as they are.
    lines = read_text(path).split("\n")
    samples = [_read_line(line, number, path) for number, line in enumerate(lines, 1) if line.strip()]
    kinds = list(dict.fromkeys(sample.kind for sample in samples))
    if len(kinds) > 1:
        raise TrainingError(f"{path} holds rows of several kinds, {', '.join(kinds)}: mine each into its own file")
    if samples and not isinstance(samples[0], (record, *also)):
        (wanted,) = (kind for kind, known in RECORDS.items() if known is record)
        raise TrainingError(f"{path} holds rows of kind {kinds[0]}, not {wanted}: mine some with --kind {wanted}")
    return samples


def prompt_forms(samples: Sequence[Sample]) -> frozenset[str]:
    """Digests of the forms that the samples' prompts are in, where they say it."""
    forms = (getattr(sample, "prompt_form", None) for sample in samples)  # A document is in no prompt.
    return frozenset(form for form in forms if form is not None)


def digest_samples(samples: Sequence[Sample]) -> str:
    """SHA-256 over the contents that `write_samples` would write."""
    hashed = sha256()
    for sample in samples:
        hashed.update(sample_line(sample))
    return hashed.hexdigest()


def _read_line(line: str, number: int, path: Path) -> Sample:
    record = SFTSample if (kind := _kind(line)) is None else RECORDS.get(kind)
    if record is None:
        raise TrainingError(f"{path}: line {number}: there are no rows of kind {kind!r}; have {', '.join(RECORDS)}")
    try:
        return record.model_validate_json(line)
    except ValidationError as error:
        raise TrainingError(f"{path}: line {number}: {first_mistake(error, record)}") from None


def _kind(line: str) -> str | None:
    """None for a row from before there were kinds, and for what is no row."""
    try:
        row = from_json(line)
    except ValueError:
        return None
    kind = row.get("kind") if isinstance(row, dict) else None
    return kind if isinstance(kind, str) else None
