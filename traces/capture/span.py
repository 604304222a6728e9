"""A finished span, and the line of the log that holds it."""

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field, JsonValue
from pydantic_core import PydanticSerializationError, from_json, to_json

from journeyman.traces import attributes as a
from journeyman.traces.base import Record
from journeyman.traces.capture.growth import Growth, Growths
from journeyman.traces.capture.texts import REPEATED, Texts, is_large
from journeyman.traces.translate import translate

SPAN_VERSION = 3
"""1: messages are `{"role", "content"}`; 2: they are in the conventions' parts; 3: a list may have grown."""

# How the JSON of a span begins that has texts elsewhere: their digests by attribute.
_REFERENCES = b'{"texts":'

_PACKED = b"z"
_PACKED_BYTES = 4096
"""A line of more bytes is packed (zlib, in base 64), which takes less than half the room and a tenth of a
millisecond."""


class SpanRecord(Record):
    """A finished span as it is on the disk."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    version: int = Field(default=SPAN_VERSION, ge=1, le=SPAN_VERSION)
    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    """`internal`, `client` for a call to a server, or `server` for the server's own account of it."""
    start_ns: int
    end_ns: int
    status: Literal["ok", "error"]
    attributes: dict[str, JsonValue]
    grown: dict[str, Growth] = Field(default_factory=dict)
    """How attributes of which the span has only a new part grew from those of an earlier span."""


def shrunk(span: SpanRecord, growths: Growths) -> SpanRecord:
    """The span without what of its lists an earlier one has; the very same one where there is nothing of the kind."""
    if span.attributes.get(a.OPERATION) == "invoke_agent":
        growths.forget(span.trace_id, span.span_id)
    if span.grown or not (found := growths.of(span.trace_id, span.parent_id, span.span_id, span.attributes)):
        return span
    new = {name: new for name, (_, new) in found.items()}
    grown = {name: growth for name, (growth, _) in found.items()}
    return SpanRecord.model_construct(
        **{**vars(span), "version": SPAN_VERSION, "attributes": span.attributes | new, "grown": grown}
    )


def format_line(span: SpanRecord, texts: Texts) -> bytes:
    """The line of a span, whose large repeated texts are durable in `texts` by then."""
    references = {
        name: texts.keep(text)
        for name in REPEATED
        if isinstance(text := span.attributes.get(name), str) and is_large(text)
    }
    fields = {**vars(span)}  # Not the model: to copy it without its texts and to write it takes half as long again.
    if not span.grown:
        del fields["grown"]
    if references:
        rest = {name: value for name, value in span.attributes.items() if name not in references}
        content = b"%s%s,%s" % (_REFERENCES, to_json(references), _json(fields | {"attributes": rest})[1:])
    else:
        content = _json(fields)
    if len(content) > _PACKED_BYTES:
        content = _PACKED + b64encode(zlib.compress(content, 1))
    return b"%08x %s\n" % (zlib.crc32(content), content)


def utc_day(start_ns: int) -> str:
    """The partition of a span, e.g. `2026-11-23`."""
    return str(datetime.fromtimestamp(start_ns // 10**9, UTC).date())


def parse_line(
    line: bytes, texts: Mapping[str, str]
) -> tuple[SpanRecord | None, Literal["", "torn", "corrupt", "refused", "texts"]]:
    """The span of a line and what is wrong with it; of a text that is missing the span has the digest."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None, "corrupt" if line.endswith(b"\n") else "torn"
    references: dict[str, str] = {}
    try:
        if text.startswith(_PACKED):
            text = zlib.decompress(b64decode(text[len(_PACKED) :]))
        if text.startswith(_REFERENCES):
            end = text.index(b"}") + 1
            references = from_json(text[len(_REFERENCES) : end])
            text = b"{" + text[end + 1 :]
        span = SpanRecord.model_validate_json(text)
    except (ValueError, zlib.error):
        return None, "refused"
    flaw: Literal["", "texts"] = ""
    for name, digest in references.items():
        repeated = texts.get(digest)
        if repeated is None:
            flaw = "texts"
        span.attributes[name] = a.DIGEST_ONLY + digest if repeated is None else repeated
    if span.version < SPAN_VERSION:
        today = {"version": SPAN_VERSION, "attributes": translate(span.attributes, span.version)}
        span = span.model_copy(update=today)
    return span, flaw


def _json(fields: dict[str, Any]) -> bytes:
    try:
        return to_json(fields, inf_nan_mode="constants")
    except PydanticSerializationError:
        # A model can write half a surrogate pair as a JSON escape; it has no UTF-8 form, and must not cost us the span.
        return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")
