"""The check of a dataset: rows that nobody should train on, each with why."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from journeyman.agents.guards.injections import injection
from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import Record, first_mistake
from journeyman.traces.capture.redact import Redactor
from journeyman.traces.errors import TrainingError
from journeyman.traces.messages import as_json
from journeyman.training.data.datasets.rows import DatasetRow, Part, Renderer, read_rows
from journeyman.training.data.samples import RECORDS
from journeyman.training.data.tasks.heldout import HeldOut

Fault = Literal[
    "no row", "held out", "secret", "injection", "unclosed turn", "empty mask", "no end of turn", "drift", "unwritable"
]
"""`no row`: it isn't what its kind must be. `held out`: from a task of gate, test or vault, or near one.
`secret`: a key, or what `[traces] redact` names. `injection`: a text that gives orders to a model.
`unclosed turn`: a call without its result, a thought without its end, or a prompt that ends with a reply.
`empty mask`: nothing is learned. `no end of turn`: the model would learn to go on.
`drift`: the recorded tokens aren't those of the text. `unwritable`: the model's template can't write it."""

THOUGHT = ("<think>", "</think>")

_injection = lru_cache(maxsize=4096)(injection)
"""Rows of one run share their first messages, and this is the slowest check."""


class Finding(Record):
    row: int
    fault: Fault
    said: str
    """More of it, without the text."""


class Checked(Record):
    rows: int
    counts: dict[str, int]
    """Rows of each fault."""
    findings: tuple[Finding, ...]
    tokens: bool
    """Whether recorded tokens were compared, for which the model's tokenizer must be at hand."""


class RowChecks:
    """What is looked for in each row."""

    def __init__(self, workspace: Workspace, renderer: Renderer | None) -> None:
        self._held_out = HeldOut.of(workspace)
        self._runs = self._held_out.runs(workspace.store)
        self._redactor = Redactor(dict.fromkeys(("keys", *workspace.config.traces.redact)))
        self._renderer = renderer

    def findings(self, row: DatasetRow) -> Iterator[Finding]:
        """At most one of each fault."""
        if (mistake := _mistake(row)) is not None:
            yield Finding(row=row.number, fault="no row", said=mistake)
            return
        known = set[str]()
        for fault, said in chain(self._of_texts(row), self._of_parts(row)):
            if fault not in known:
                known.add(fault)
                yield Finding(row=row.number, fault=fault, said=said)

    def _of_texts(self, row: DatasetRow) -> Iterator[tuple[Fault, str]]:
        if (reason := self._contamination(row)) is not None:
            yield "held out", reason
        for where, text in _texts(row):
            found = set[str]()
            if self._redactor.suspects(text):
                self._redactor.redact(text, found)
            yield from (("secret", f"{kind} in {where}") for kind in sorted(found))
            if where != "instructions" and (does := _injection(text)) is not None:
                yield "injection", f"{where} {does}"

    def _contamination(self, row: DatasetRow) -> str | None:
        of_runs = (self._runs[trace_id] for trace_id in row.trace_ids if trace_id in self._runs)
        document = [{"role": "user", "content": row.text}] if row.text else []
        asked = self._held_out.messages([*row.messages, *document])
        return next(of_runs, None) or asked or self._held_out.texts(text for _, text in _texts(row))

    def _of_parts(self, row: DatasetRow) -> Iterator[tuple[Fault, str]]:
        if (reason := _unclosed(row)) is not None:
            yield "unclosed turn", reason
        for part in row.parts:
            if not part.text.strip() and not part.calls:
                yield "empty mask", f"the {part.side} is empty"
            if part.text.count(THOUGHT[0]) > part.text.count(THOUGHT[1]):
                yield "unclosed turn", f"the {part.side} begins a thought and doesn't end it"
            if self._renderer is not None:
                yield from _of_tokens(row, part, self._renderer)


def check(dataset: Path, checks: RowChecks, *, tokens: bool) -> Checked:
    findings, rows = list[Finding](), 0
    for row in read_rows(dataset):
        rows += 1
        findings += checks.findings(row)
    counts = Counter(finding.fault for finding in findings)
    return Checked(rows=rows, counts=dict(counts.most_common()), findings=tuple(findings), tokens=tokens)


def _mistake(row: DatasetRow) -> str | None:
    record = RECORDS.get(row.kind)
    if record is None:
        return f"there are no rows of kind {row.kind!r}; have {', '.join(RECORDS)}"
    try:
        # As JSON: there a list is a tuple, too.
        record.model_validate_json(as_json(row.values))
    except ValidationError as error:
        return first_mistake(error, record)
    return None


def _texts(row: DatasetRow) -> Iterator[tuple[str, str]]:
    """Each text, and where it stands."""
    for message in row.messages:
        role = message["role"]
        yield "instructions" if role == "system" else f"a message of the {role}", message["content"]
        yield from _arguments(f"a message of the {role}", message.get("tool_calls") or ())
    for part in row.parts:
        yield f"the {part.side}", part.text
        yield from _arguments(f"the {part.side}", part.calls)
    if row.text:
        yield "the document", row.text
    if (task := row.values.get("task")) is not None:
        yield "the task", as_json(task)


def _arguments(where: str, calls: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    return ((where, as_json(call["arguments"])) for call in calls if call.get("arguments"))


def _unclosed(row: DatasetRow) -> str | None:
    """What of the prompt isn't over where the reply begins."""
    called: Sequence[str] = ()
    for message in row.messages:
        if message["role"] == "tool":
            called = [one for one in called if one != message.get("tool_call_id")]
        elif called:
            return f"call {called[0]} has no result"
        else:
            called = [call["id"] for call in message.get("tool_calls") or ()]
    if called:
        return f"call {called[0]} has no result"
    return "the prompt ends with a reply" if row.messages and row.messages[-1]["role"] == "assistant" else None


def _of_tokens(row: DatasetRow, part: Part, renderer: Renderer) -> Iterator[tuple[Fault, str]]:
    try:
        again = renderer.again(row, part)
    except TrainingError as error:
        if not part.token_ids:
            yield "unwritable", str(error)
        return
    if not part.token_ids:
        return
    if part.token_ids[-1] not in renderer.stops:
        yield "no end of turn", f"the {part.side} ends with {renderer.text(part.token_ids[-1:])!r}"
    if all(token in renderer.stops for token in part.token_ids):
        yield "empty mask", f"the {part.side} is only its end"
    for what, recorded, now in zip(
        ("prompt", part.side), (row.prompt_token_ids or [], part.token_ids), again, strict=True
    ):
        if recorded and (at := _apart(recorded, now)) is not None:
            yield "drift", f"the {what} from token {at + 1} of {len(recorded)}"


def _apart(recorded: Sequence[int], now: Sequence[int]) -> int | None:
    """Where they begin to differ."""
    if list(recorded) == list(now):
        return None
    pairs = zip(recorded, now, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(recorded), len(now)))
