"""Columns: spans as an Arrow table, exactly; what queries and training ask for has a column, the rest is JSON text."""

import json
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import pyarrow as pa
from pydantic import JsonValue, TypeAdapter
from pydantic_core import from_json, to_json

from journeyman.traces import attributes as a
from journeyman.traces.assemble import turn_refusal, withheld
from journeyman.traces.capture.growth import Growth
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.capture.texts import is_large
from journeyman.traces.messages import as_json
from journeyman.traces.storage.arrays import NumberLists, to_array, to_list

TEXTS = {
    "operation": a.OPERATION,
    "agent": a.AGENT_NAME,
    "policy": a.REQUEST_MODEL,
    "served_by": a.RESPONSE_MODEL,
    "response_id": a.RESPONSE_ID,
    "adapter_digest": a.ADAPTER_DIGEST,
    "workflow": a.WORKFLOW_NAME,
    "task_id": a.TASK_ID,
    "family": a.TASK_FAMILY,
    "session": a.CONVERSATION_ID,
    "user": a.USER_ID,
    "purpose": a.PURPOSE,
    "task_set": a.TASK_SET,
    "prompt_form": a.PROMPT_FORM,
    "run_status": a.STATUS,
    "assignment": a.ASSIGNMENT_ID,
    "tool": a.TOOL_NAME,
    "error_type": a.ERROR_TYPE,
    "input_messages": a.INPUT_MESSAGES,
    "output_messages": a.OUTPUT_MESSAGES,
}
"""Column and attribute of what is text."""

COUNTS = {"input_tokens": a.INPUT_TOKENS, "output_tokens": a.OUTPUT_TOKENS, "cached_tokens": a.CACHED_TOKENS}

SECONDS = {"queue_s": a.ENGINE_QUEUE, "prefill_s": a.ENGINE_PREFILL, "decode_s": a.ENGINE_DECODE}

NUMBERS = {"prompt_token_ids": a.PROMPT_TOKEN_IDS, "token_ids": a.TOKEN_IDS, "logprobs": a.LOGPROBS}
"""JSON text of many numbers, kept as numbers where these are 32 bits wide; it comes back without spaces."""

REPEATED = {"system_digest": a.SYSTEM_INSTRUCTIONS, "tools_digest": a.TOOL_DEFINITIONS}
"""Large texts that many spans share: a column holds the SHA-256, the text lies elsewhere once."""

SCHEMA = pa.schema(
    [
        pa.field("version", pa.int32(), nullable=False),
        *(pa.field(name, pa.string(), nullable=False) for name in ("trace_id", "span_id")),
        pa.field("parent_id", pa.string()),
        *(pa.field(name, pa.string(), nullable=False) for name in ("name", "kind")),
        *(pa.field(name, pa.int64(), nullable=False) for name in ("start_ns", "end_ns")),
        pa.field("status", pa.string(), nullable=False),
        *(pa.field(name, pa.string()) for name in TEXTS if not name.endswith("_messages")),
        pa.field("finish_reason", pa.string()),
        *(pa.field(name, pa.int64()) for name in COUNTS),
        pa.field("demonstration", pa.bool_()),
        pa.field("refusal", pa.string()),
        *(pa.field(name, pa.float64()) for name in SECONDS),
        *(pa.field(name, pa.string()) for name in REPEATED),
        *(pa.field(name, pa.string()) for name in TEXTS if name.endswith("_messages")),
        *(pa.field(name, pa.list_(pa.int32())) for name in ("prompt_token_ids", "token_ids")),
        pa.field("logprobs", pa.list_(pa.float32())),
        pa.field("attributes", pa.string(), nullable=False),
        pa.field("unspeakable", pa.string()),
        pa.field("grown", pa.string()),
    ]
)
"""`refusal` is why a model call alone may not be training data, null for other spans and where it may. `attributes` is
a JSON object of what has no column or does not fit one, `unspeakable` what strict JSON has no form for: numbers that
are not finite, half surrogate pairs. `grown` is a JSON object by attribute: how lists of which a span has the new part
grew from those of an earlier span (`Growth`)."""

_FIELDS = ("version", "trace_id", "span_id", "parent_id", "name", "kind", "start_ns", "end_ns", "status")
_GROWN = TypeAdapter(dict[str, Growth])
_STRICT = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def to_table(spans: Sequence[SpanRecord], texts: MutableMapping[str, str] | None = None) -> pa.Table:
    """One row for each span, in the order given.

    Into `texts` go the large repeated texts, by SHA-256; without it they stay in the column `attributes`, so that the
    table says everything by itself.
    """
    columns = _Columns(len(spans), texts)
    for row, span in enumerate(spans):
        columns.fill(row, span)
    return columns.table(spans)


def with_all_columns(table: pa.Table) -> pa.Table:
    """The table with every column of today: of one that there was not yet when it was written, all is null."""
    for field in SCHEMA:
        if field.name not in table.schema.names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select([*SCHEMA.names, *(name for name in table.schema.names if name not in SCHEMA.names)])


def to_spans(table: pa.Table, texts: Mapping[str, str] | None = None) -> Iterator[SpanRecord]:
    """The spans that `to_table` was given, from the same `texts`; of one that is missing comes the digest."""
    for batch in table.to_batches(max_chunksize=2048):
        yield from _spans(batch, {} if texts is None else texts)


class _Slot(NamedTuple):
    """Where the values of one attribute go, and what of a value is kept there: None for what does not fit."""

    values: list[Any]
    fit: Callable[[Any], Any]


class _Columns:
    """Columns that are being filled, row by row."""

    def __init__(self, rows: int, texts: MutableMapping[str, str] | None) -> None:
        self._texts = texts
        self._digests: dict[str, str] = {}
        self._lists: dict[str, list[Any]] = {
            name: [None] * rows for name in SCHEMA.names if name not in _FIELDS and name not in NUMBERS
        }
        self._numbers = {name: NumberLists(rows, SCHEMA.field(name).type) for name in NUMBERS}
        self._text_lists = {attribute: self._lists[name] for name, attribute in TEXTS.items()}
        self._slots: dict[str, _Slot] = {
            **{attribute: self._slot(name, _count) for name, attribute in COUNTS.items()},
            **{attribute: self._slot(name, _seconds) for name, attribute in SECONDS.items()},
            **{attribute: self._slot(name, self._digest) for name, attribute in REPEATED.items()},
            a.DEMONSTRATION: self._slot("demonstration", lambda value: value if isinstance(value, bool) else None),
            a.FINISH_REASONS: self._slot("finish_reason", _only),
        }
        self._arrays = {attribute: self._numbers[name] for name, attribute in NUMBERS.items()}

    def fill(self, row: int, span: SpanRecord) -> None:
        rest: dict[str, JsonValue] = {}
        for name, value in span.attributes.items():
            if (texts := self._text_lists.get(name)) is not None:
                if isinstance(value, str) and (value.isascii() or _speakable(value)):
                    texts[row] = value
                    continue
            elif slot := self._slots.get(name):
                kept = slot.fit(value)
                if kept is not None:
                    slot.values[row] = kept
                    continue
            elif (numbers := self._arrays.get(name)) and numbers.keep(row, value):
                continue
            rest[name] = value
        lists = self._lists
        lists["attributes"][row], lists["unspeakable"][row] = json_texts(rest)
        lists["grown"][row] = to_json(span.grown).decode() if span.grown else None
        if lists["operation"][row] in a.INFERENCE:
            lists["refusal"][row] = self._refusal(row, span)

    def table(self, spans: Sequence[SpanRecord]) -> pa.Table:
        fields = [vars(span) for span in spans]
        columns = {name: [values[name] for values in fields] for name in _FIELDS} | self._lists
        arrays = {name: to_array(values, SCHEMA.field(name).type) for name, values in columns.items()}
        arrays |= {name: numbers.array() for name, numbers in self._numbers.items()}
        return pa.Table.from_arrays([arrays[name] for name in SCHEMA.names], schema=SCHEMA)

    def _slot(self, name: str, fit: Callable[[Any], Any]) -> _Slot:
        return _Slot(self._lists[name], fit)

    def _digest(self, value: JsonValue) -> str | None:
        text = _text(value)
        if text is None or self._texts is None or not is_large(text):
            return None
        digest = self._digests.get(text)
        if digest is None:
            digest = self._digests[text] = sha256(text.encode()).hexdigest()
            self._texts.setdefault(digest, text)
        return digest

    def _refusal(self, row: int, span: SpanRecord) -> str | None:
        known = span.attributes
        return turn_refusal(
            withheld=withheld(known),
            answered=_answered(known.get(a.OUTPUT_MESSAGES)),
            failed=span.status == "error",
            finish_reason=_first(known.get(a.FINISH_REASONS)),
            policy=_text(known.get(a.REQUEST_MODEL)) or "",
            served_by=_text(known.get(a.RESPONSE_MODEL)),
            adapter_digest=_text(known.get(a.ADAPTER_DIGEST)),
            weights=_text(known.get(a.WEIGHTS)),
            demonstration=known.get(a.DEMONSTRATION) is True,
            prompted=a.PROMPT_TOKEN_IDS in span.grown
            or bool(self._numbers["prompt_token_ids"].read(row, known.get(a.PROMPT_TOKEN_IDS))),
            token_ids=self._numbers["token_ids"].read(row, known.get(a.TOKEN_IDS)),
            logprobs=self._numbers["logprobs"].read(row, known.get(a.LOGPROBS)),
        )


def _text(value: JsonValue) -> str | None:
    return value if isinstance(value, str) and (value.isascii() or _speakable(value)) else None


def _speakable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _count(value: JsonValue) -> int | None:
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def _seconds(value: JsonValue) -> float | None:
    return value if isinstance(value, float) else None


def _only(value: JsonValue) -> str | None:
    """The text in a list of one."""
    return _text(value[0]) if isinstance(value, list) and len(value) == 1 else None


def _first(value: JsonValue) -> str | None:
    return str(value[0]) if isinstance(value, list) and value else None


def _answered(messages: JsonValue) -> bool:
    return messages.strip() not in ("", "[]", "null") if isinstance(messages, str) else bool(messages)


def read_grown(text: str | None) -> dict[str, Growth]:
    """What the column `grown` says."""
    return {} if text is None else _GROWN.validate_json(text)


def json_texts(rest: dict[str, JsonValue]) -> tuple[str, str | None]:
    """What strict JSON can say, as such; and what it has no form for, in ASCII with `NaN` and `Infinity`."""
    try:
        text = to_json(rest, inf_nan_mode="constants").decode()
    except ValueError:
        return _split(rest)
    return _split(rest) if "NaN" in text or "Infinity" in text else (text, None)


def _split(rest: dict[str, JsonValue]) -> tuple[str, str | None]:
    odd = {name: value for name, value in rest.items() if not _is_strict(name, value)}
    strict = {name: value for name, value in rest.items() if name not in odd}
    return to_json(strict).decode(), json.dumps(odd) if odd else None


def _is_strict(name: str, value: JsonValue) -> bool:
    try:
        return _speakable(_STRICT({name: value}))
    except ValueError:
        return False


def _spans(batch: pa.RecordBatch, texts: Mapping[str, str]) -> Iterator[SpanRecord]:
    values = {name: to_list(batch.column(name)) for name in SCHEMA.names if batch.column(name).null_count < len(batch)}
    kept = {name: attribute for name, attribute in _ATTRIBUTES.items() if name in values}
    for row in range(len(batch)):
        attributes: dict[str, JsonValue] = from_json(values["attributes"][row])
        for name, attribute in kept.items():
            value = values[name][row]
            if value is not None:
                attributes[attribute] = _RESTORED[name](value) if name in _RESTORED else value
        for name, attribute in REPEATED.items():
            if name in values and (digest := values[name][row]):
                attributes[attribute] = texts.get(digest, a.DIGEST_ONLY + digest)
        if "unspeakable" in values and (odd := values["unspeakable"][row]):
            attributes |= json.loads(odd)
        fields: dict[str, Any] = {name: values[name][row] if name in values else None for name in _FIELDS}
        grown = read_grown(values["grown"][row]) if "grown" in values else {}
        yield SpanRecord.model_construct(attributes=attributes, grown=grown, **fields)


_ATTRIBUTES = TEXTS | COUNTS | SECONDS | NUMBERS | {"demonstration": a.DEMONSTRATION, "finish_reason": a.FINISH_REASONS}
_RESTORED: dict[str, Callable[[Any], JsonValue]] = dict.fromkeys(NUMBERS, lambda numbers: as_json(numbers.tolist())) | {
    "finish_reason": lambda reason: [reason]
}
