"""Importing: files that another program wrote, or another workspace, as spans and labels, one entry after another."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import JsonValue, ValidationError

from journeyman.traces import attributes as a
from journeyman.traces.base import Record, encoding_of, first_mistake
from journeyman.traces.capture.log import SPAN_VERSION, SpanRecord
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.exchange.chat_messages import finish_reason
from journeyman.traces.exchange.chatlog import conversations, looks_like_chat, read_conversation
from journeyman.traces.exchange.conversation import Imported, import_conversation
from journeyman.traces.exchange.documents import opens_list, read_members
from journeyman.traces.exchange.export import UNSPEAKABLE
from journeyman.traces.files import regular
from journeyman.traces.messages import reply_end
from journeyman.traces.trace import Purpose
from journeyman.traces.translate import translate

Format = Literal["spans", "parquet", "otlp", "chat"]
"""`spans` and `parquet` are what `journeyman traces export` writes, `otlp` is OTLP JSON, `chat` any chat log."""

BATCH = 1000
"""Rows of a Parquet file that are in memory at once."""

Read = Callable[[Any], Imported]


class Broken(Record):
    """An entry that could not be imported."""

    where: str
    """E.g. `line 3`."""
    reason: str


def detect(path: Path) -> Format:
    """The format of a file by what its first entry holds; raises `ConfigError` where it is none that is known."""
    try:
        with regular(path).open("rb") as file:
            if file.read(4) == b"PAR1":
                return "parquet"
        first, broken = _first(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if isinstance(first, dict) and not {"resourceSpans", "scopeSpans"}.isdisjoint(first):
        return "otlp"
    if isinstance(first, dict) and {"trace_id", "span_id", "start_ns"} <= first.keys():
        return "spans"
    if looks_like_chat(first):
        return "chat"
    why = f"; {broken.where}: {broken.reason}" if first is None and broken is not None else ""
    raise ConfigError(f"{path}: no format that is known ({', '.join(get_args(Format))}){why}")


def _first(path: Path) -> tuple[Any, Broken | None]:
    """The first entry that can be read, None where there is none; and the first one before it that can't."""
    broken = None
    for _, value in _values(path):
        if not isinstance(value, Broken):
            return value, broken
        broken = broken or value
    return None, broken


def read_file(
    path: Path, format: Format, *, agent: str, family: str, purpose: Purpose | None = None, as_sent: bool = False
) -> Iterator[Imported | Broken]:
    """`entries` of a file, whose runs say what they were made for: `purpose` where they don't say it themselves.

    By default, what another program recorded was for service, and of our own runs nobody knows. `as_sent` leaves the
    spans of OTLP as they were sent.
    """
    for entry in entries(path, format, agent=agent, family=family, as_sent=as_sent):
        if isinstance(entry, Broken) or as_sent:
            yield entry
        else:
            yield entry.changed(partial(_made_for, format=format, purpose=purpose))


def entries(
    path: Path, format: Format, *, agent: str, family: str, as_sent: bool = False
) -> Iterator[Imported | Broken]:
    """What a file holds, in its order, an entry at a time: a line, or a member of the list that the file is.

    A JSON file that is one document is read whole, unless it is a list or an OTLP request whose members are on lines of
    their own; every other one in bounded memory. `agent` and `family` are for conversations that name none. Raises
    `ConfigError` if the file cannot be read at all.
    """
    try:
        if format == "parquet":
            yield from _parquet(path)
            return
        now_ns = path.stat().st_mtime_ns
        for where, value in _values(path):
            if isinstance(value, Broken):
                yield value
                continue
            for place, entry in _entries(where, value, format):
                refused: list[str] = []
                try:
                    if format == "otlp":
                        spans = _otlp(entry, refused.append)
                        yield Imported(spans=spans if as_sent else tuple(map(adopted, spans)), labels=())
                    else:
                        yield _imported(entry, format, agent, family, now_ns)
                except StoreError as error:
                    refused.append(str(error))
                yield from (Broken(where=place, reason=reason) for reason in refused)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None


def _made_for(span: SpanRecord, format: Format, purpose: Purpose | None) -> SpanRecord:
    of_run = span.attributes.get(a.OPERATION) in ("invoke_workflow", "invoke_agent")
    if not of_run or a.PURPOSE in span.attributes:
        return span
    foreign = format == "chat" or a.RESOURCE in span.attributes
    told = purpose or ("service" if foreign else None)
    return span.model_copy(update={"attributes": span.attributes | {a.PURPOSE: told}}) if told else span


def adopted(span: SpanRecord) -> SpanRecord:
    """A span of another program under the names of today, so that its turns can be learned from as demonstrations.

    The model that answered counts as the policy, whatever alias was asked for (the span's name still has it), and an
    agent's work ended as its span did. A span of ours is given back as it is.
    """
    if a.RESOURCE not in span.attributes:
        return span
    from journeyman.traces.exchange.receive import normalised

    attributes = translate(normalised(span).attributes, 0)
    operation = attributes.get(a.OPERATION)
    if operation in a.INFERENCE and a.TOKEN_IDS not in attributes:
        attributes[a.DEMONSTRATION] = True
        if a.FINISH_REASONS not in attributes and (reason := reply_end(attributes.get(a.OUTPUT_MESSAGES))):
            attributes[a.FINISH_REASONS] = [reason]
        models = [attributes[name] for name in (a.RESPONSE_MODEL, a.REQUEST_MODEL) if name in attributes]
        if isinstance(reasons := attributes.get(a.FINISH_REASONS), list):
            attributes[a.FINISH_REASONS] = [finish_reason(one) if isinstance(one, str) else one for one in reasons]
        attributes |= dict.fromkeys((a.RESPONSE_MODEL, a.REQUEST_MODEL), models[0]) if models else {}
    elif operation == "invoke_agent":
        attributes.setdefault(a.STATUS, "ok" if span.status == "ok" else "failed")
    return span.model_copy(update={"attributes": attributes})


def _otlp(entry: Any, refuse: Callable[[str], None]) -> tuple[SpanRecord, ...]:
    """`refuse` is told of each span that can't be kept while the others of its entry are."""
    from journeyman.traces.exchange.otlp import from_json

    if isinstance(entry, dict) and "scopeSpans" in entry:  # A member of the request's list.
        entry = {"resourceSpans": [entry]}
    if not isinstance(entry, dict) or "resourceSpans" not in entry:
        raise StoreError("not OTLP JSON: it has no `resourceSpans`")
    return tuple(from_json(entry, refuse))


def _imported(entry: Any, format: Format, agent: str, family: str, now_ns: int) -> Imported:
    if format == "chat":
        return import_conversation(read_conversation(entry), agent=agent, family=family, now_ns=now_ns)
    try:
        span = SpanRecord.model_validate(_spoken(entry))
        if span.version < SPAN_VERSION:
            today = {"version": SPAN_VERSION, "attributes": translate(span.attributes, span.version)}
            span = span.model_copy(update=today)
        return Imported(spans=(span,), labels=())
    except ValidationError as error:
        raise StoreError(f"no span: {first_mistake(error, SpanRecord)}") from None


def _spoken(entry: Any) -> Any:
    """A span with the attributes that an export had to write as a text."""
    if not isinstance(entry, dict) or UNSPEAKABLE not in entry:
        return entry
    span = {name: value for name, value in entry.items() if name != UNSPEAKABLE}
    try:
        return span | {"attributes": span["attributes"] | json.loads(entry[UNSPEAKABLE])}
    except (ValueError, TypeError, KeyError):
        raise StoreError(f"no span: `{UNSPEAKABLE}` must be the JSON of an object") from None


def _entries(where: str, value: JsonValue, format: Format) -> Iterator[tuple[str, JsonValue]]:
    """The parts of a value that stand or fall alone, each with its place."""
    parts: list[JsonValue] = [value]
    if format == "chat":
        parts = list(conversations(value))
    elif isinstance(value, list):
        parts = value
    elif format == "otlp" and isinstance(value, dict) and isinstance(value.get("resourceSpans"), list):
        parts = [{"resourceSpans": [group]} for group in value["resourceSpans"]]  # type: ignore[union-attr]
    if len(parts) == 1:
        yield where, parts[0]
        return
    for number, part in enumerate(parts, 1):
        yield f"entry {number}" if where == _DOCUMENT else f"{where}, entry {number}", part


_DOCUMENT = "the document"


def _values(path: Path) -> Iterator[tuple[str, JsonValue | Broken]]:
    """The JSON of each line, or of each member of the list that the file is, or of the whole file, with its place."""
    if opens_list(path):
        yield from _members(path)
        return
    document = _document(path)
    if document is not None:
        yield _DOCUMENT, document
        return
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            yield f"line {number}", _parse(line, f"line {number}")


def _members(path: Path) -> Iterator[tuple[str, JsonValue | Broken]]:
    members = read_members(path)
    number = 0
    try:
        for number, member in enumerate(members, 1):
            if number == 1 and isinstance(next(conversations([member])), list):  # The list is one conversation.
                yield _DOCUMENT, [member, *members]
            else:
                yield f"entry {number}", member
        if number == 0:
            yield _DOCUMENT, _document(path)
    except (ValueError, RecursionError) as error:
        yield (where := f"entry {number + 1}"), Broken(where=where, reason=f"no JSON: {error}; nor is what follows")


def _document(path: Path) -> JsonValue:
    """What the file says as a whole, where its first line says nothing by itself; None where it is JSON lines."""
    lines = _lines(path)
    first = next((line for line in lines if line.strip()), b"{}")
    if not isinstance(_parse(first, ""), Broken) or next(lines, None) is None:
        return None
    whole = _parse(b"".join(_lines(path)), "")
    return None if isinstance(whole, Broken) else whole


def _lines(path: Path) -> Iterator[bytes]:
    """The lines in UTF-8; one that isn't is broken, and the others are not."""
    with path.open(encoding=encoding_of(path), errors="surrogateescape", newline="\n") as file:
        for line in file:
            yield line.encode("utf-8", "surrogateescape")


def _parse(text: bytes, where: str) -> JsonValue | Broken:
    try:
        value: JsonValue = json.loads(text)
    except RecursionError:
        return Broken(where=where, reason="no JSON that can be read: it is nested too deeply")
    except ValueError as error:
        return Broken(where=where, reason=f"no JSON: {error}")
    return value


def _parquet(path: Path) -> Iterator[Imported]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from journeyman.traces.storage.columns import REPEATED, SCHEMA, to_spans, with_all_columns

    try:
        with pq.ParquetFile(path) as file:
            absent = [field for field in SCHEMA if field.name not in file.schema_arrow.names]
            if lacking := [field.name for field in absent if not field.nullable]:
                raise ConfigError(f"{path}: no Parquet file of spans: it lacks the columns {', '.join(lacking)}")
            for batch in file.iter_batches(BATCH):
                table = with_all_columns(pa.Table.from_batches([batch]))
                if any(table[name].null_count < len(table) for name in REPEATED):
                    raise ConfigError(f"{path}: a segment, whose large texts lie elsewhere: use `traces export` there")
                yield Imported(spans=tuple(to_spans(table)), labels=())
    except pa.ArrowException as error:
        raise ConfigError(f"{path}: no Parquet file of spans: {' '.join(str(error).split())}") from None
