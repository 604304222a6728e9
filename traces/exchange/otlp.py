"""OTLP: spans in OpenTelemetry's wire format and back, as protobuf and as the JSON that files hold.

Values keep their JSON types. What a `SpanRecord` has no field for travels as attributes: the resource of another
service, events and links come in as JSON text, and go out as what they were.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.exchange.events import evaluation_event
from journeyman.traces.labels import Label

try:
    from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
    )
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
    from opentelemetry.proto.trace.v1 import trace_pb2
except ImportError:
    raise ConfigError('OTLP needs opentelemetry-proto: pip install "journeyman[otlp]"') from None

SERVICE = "journeyman"
"""`service.name` and scope of our own spans."""

_LARGEST = 2**63
_OURS = ""
_FOREIGN = (a.RESOURCE, a.EVENTS, a.LINKS)
_ID_KEYS = ("traceId", "spanId", "parentSpanId")

_KINDS = {
    "unspecified": trace_pb2.Span.SPAN_KIND_UNSPECIFIED,
    "internal": trace_pb2.Span.SPAN_KIND_INTERNAL,
    "server": trace_pb2.Span.SPAN_KIND_SERVER,
    "client": trace_pb2.Span.SPAN_KIND_CLIENT,
    "producer": trace_pb2.Span.SPAN_KIND_PRODUCER,
    "consumer": trace_pb2.Span.SPAN_KIND_CONSUMER,
}
_KIND_NAMES = {number: name for name, number in _KINDS.items()}


def to_otlp(spans: Iterable[SpanRecord]) -> ExportTraceServiceRequest:
    """One request with all the spans, grouped by the service that they are of.

    Raises `StoreError` for an id that is no OpenTelemetry id. An integer beyond 64 bits goes out as text.
    """
    request = ExportTraceServiceRequest()
    services: dict[str, trace_pb2.ScopeSpans] = {}
    for span in spans:
        service = str(span.attributes.get(a.RESOURCE, _OURS))
        if service not in services:
            group = request.resource_spans.add()
            group.resource.attributes.extend(_key_values(_json(span, a.RESOURCE) or {"service.name": SERVICE}))
            services[service] = group.scope_spans.add()
            services[service].scope.name = SERVICE if service == _OURS else ""
        _encode(span, services[service].spans.add())
    return request


Refuse = Callable[[str], None]
"""Is told why a span can't be kept; the others are."""


def raise_refusal(reason: str) -> None:
    raise StoreError(reason)


def from_otlp(request: ExportTraceServiceRequest, refuse: Refuse = raise_refusal) -> Iterator[SpanRecord]:
    """The spans of a request, less those that have no usable id or time: `refuse` is told of each."""
    for group in request.resource_spans:
        resource = _mapping(group.resource.attributes)
        ours = resource.get("service.name") == SERVICE or not resource
        foreign = {} if ours else {a.RESOURCE: _text(resource)}
        for scope in group.scope_spans:
            for span in scope.spans:
                try:
                    yield _decode(span, foreign)
                except StoreError as error:
                    refuse(str(error))


def to_json(spans: Iterable[SpanRecord]) -> dict[str, Any]:
    """OTLP JSON: ids in hex, nanoseconds and integers as strings, enumerations as numbers."""
    document: dict[str, Any] = MessageToDict(to_otlp(spans), use_integers_for_enums=True)
    return _with_ids(document, lambda text: base64.b64decode(text).hex())


def from_json(document: Mapping[str, Any], refuse: Refuse = raise_refusal) -> Iterator[SpanRecord]:
    """The spans of an OTLP JSON document, like `from_otlp`; raises `StoreError` where it is not one."""
    try:
        request = parse_json(document)
    except StoreError as error:
        yield from _one_by_one(document, error, refuse)
    else:
        yield from from_otlp(request, refuse)


def _one_by_one(document: Mapping[str, Any], error: StoreError, refuse: Refuse) -> Iterator[SpanRecord]:
    """The spans of a document that can't be read as a whole, each read alone."""
    try:
        alone = [
            {"resourceSpans": [group | {"scopeSpans": [scope | {"spans": [span]}]}]}
            for group in document["resourceSpans"]
            for scope in group["scopeSpans"]
            for span in scope["spans"]
        ]
    except (KeyError, TypeError):
        raise error from None
    for one in alone:
        try:
            request = parse_json(one)
        except StoreError as unreadable:
            refuse(str(unreadable))
        else:
            yield from from_otlp(request, refuse)


def parse_json(document: Mapping[str, Any]) -> ExportTraceServiceRequest:
    """An OTLP JSON document as the request it stands for; what OTLP does not know is left out, as it asks."""
    request = ExportTraceServiceRequest()
    try:
        ids_encoded = _with_ids(dict(document), _base64)
        ParseDict(ids_encoded, request, ignore_unknown_fields=True)
    except (ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"not OTLP JSON: {_line(error)}") from None
    return request


def parse_protobuf(body: bytes) -> ExportTraceServiceRequest:
    """Raises `StoreError` where `body` is no request."""
    try:
        return ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise StoreError(f"not an OTLP trace request: {_line(error)}") from None


def partial_success(refused: Sequence[str], *, is_json: bool) -> bytes:
    """The reply to a request whose spans were kept, less so many that were `refused` for those reasons."""
    response = ExportTraceServiceResponse()
    if refused:
        response.partial_success.rejected_spans = len(refused)
        response.partial_success.error_message = _utf8(refused[0])
    return json.dumps(MessageToDict(response)).encode() if is_json else response.SerializeToString()


def refused_spans(reply: bytes) -> int:
    """How many spans an endpoint says that it did not take, in its reply to a request that it answered with 200."""
    try:
        return int(ExportTraceServiceResponse.FromString(reply).partial_success.rejected_spans)
    except DecodeError:
        return 0  # What is no OTLP reply, e.g. a proxy's page, refuses nothing.


def log_request(label: Label) -> ExportLogsServiceRequest:
    """The label as a `gen_ai.evaluation.result` event on the span, or the trace, that it is of."""
    event = evaluation_event(label)
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add()
    group.resource.attributes.extend(_key_values({"service.name": SERVICE}))
    scope = group.scope_logs.add()
    scope.scope.name = SERVICE
    scope.log_records.add(
        event_name=event.name,
        time_unix_nano=event.at_ns,
        trace_id=_id(event.trace_id, 16),
        span_id=b"" if event.span_id is None else _id(event.span_id, 8),
        attributes=_key_values(event.attributes),
    )
    return request


def any_value(value: JsonValue) -> AnyValue:
    """A JSON value in OTLP's own form."""
    if value is None:
        return AnyValue()
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value) if -_LARGEST <= value < _LARGEST else AnyValue(string_value=str(value))
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=map(any_value, value)))
    if isinstance(value, dict):
        return AnyValue(kvlist_value=KeyValueList(values=_key_values(value)))
    return AnyValue(string_value=_utf8(value))


def _encode(span: SpanRecord, message: trace_pb2.Span) -> None:
    failed = span.status == "error"
    message.trace_id = _id(span.trace_id, 16)
    message.span_id = _id(span.span_id, 8)
    message.parent_span_id = b"" if span.parent_id is None else _id(span.parent_id, 8)
    message.name = _utf8(span.name)
    message.kind = _KINDS.get(span.kind, trace_pb2.Span.SPAN_KIND_UNSPECIFIED)
    message.start_time_unix_nano, message.end_time_unix_nano = span.start_ns, span.end_ns
    message.status.code = trace_pb2.Status.STATUS_CODE_ERROR if failed else trace_pb2.Status.STATUS_CODE_OK
    message.status.message = _utf8(str(span.attributes.get(a.ERROR, ""))) if failed else ""
    for event in _json(span, a.EVENTS) or ():
        pairs = _key_values(event["attributes"])
        message.events.add(name=event["name"], time_unix_nano=event["at_ns"], attributes=pairs)
    for link in _json(span, a.LINKS) or ():
        pairs = _key_values(link["attributes"])
        message.links.add(trace_id=_id(link["trace_id"], 16), span_id=_id(link["span_id"], 8), attributes=pairs)
    message.attributes.extend(_key_values({k: v for k, v in span.attributes.items() if k not in _FOREIGN}))


def _decode(span: trace_pb2.Span, foreign: Mapping[str, str]) -> SpanRecord:
    shown = repr(span.name[:80])
    usable = any(span.trace_id) and any(span.span_id)
    if not usable or (len(span.trace_id), len(span.span_id)) != (16, 8) or len(span.parent_span_id) not in (0, 8):
        raise StoreError(f"span {shown} has no usable id: a trace's is 16 bytes, a span's 8, and not all of them 0")
    if not (0 < span.start_time_unix_nano < _LARGEST and 0 < span.end_time_unix_nano < _LARGEST):
        raise StoreError(f"span {shown} has no usable time: nanoseconds since 1970, of its start and its end")
    attributes = _mapping(span.attributes)
    failed = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    if failed and span.status.message:
        attributes.setdefault(a.ERROR, span.status.message)
    if span.events:
        attributes[a.EVENTS] = _text([_event(event) for event in span.events])
    if span.links:
        attributes[a.LINKS] = _text([_link(link) for link in span.links])
    return SpanRecord(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() if any(span.parent_span_id) else None,
        name=span.name,
        kind=_KIND_NAMES.get(span.kind, "unspecified"),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        status="error" if failed else "ok",
        attributes={**attributes, **foreign},
    )


def _event(event: trace_pb2.Span.Event) -> dict[str, JsonValue]:
    return {"name": event.name, "at_ns": event.time_unix_nano, "attributes": _mapping(event.attributes)}


def _link(link: trace_pb2.Span.Link) -> dict[str, JsonValue]:
    return {
        "trace_id": link.trace_id.hex(),
        "span_id": link.span_id.hex(),
        "attributes": _mapping(link.attributes),
    }


def _json(span: SpanRecord, name: str) -> Any:
    text = span.attributes.get(name)
    try:
        return None if text is None else json.loads(str(text))
    except ValueError:
        raise StoreError(f"span {span.span_id} has an unusable {name}: not JSON") from None


def _key_values(values: Mapping[str, JsonValue]) -> list[KeyValue]:
    return [KeyValue(key=_utf8(name), value=any_value(value)) for name, value in values.items()]


def _mapping(pairs: Iterable[KeyValue]) -> dict[str, JsonValue]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> JsonValue:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_value(entry) for entry in value.array_value.values]
        case "kvlist_value":
            return _mapping(value.kvlist_value.values)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case plain:
            scalar: JsonValue = getattr(value, plain)
            return scalar


def _id(text: str, size: int) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != size:
        raise StoreError(f"{text!r} isn't an OpenTelemetry id: it wants {2 * size} hex digits")
    return found


def _base64(text: str) -> str:
    """The id in protobuf's form, in which it stands already where the JSON was written by protobuf: with a `=`."""
    return text if text.endswith("=") else base64.b64encode(bytes.fromhex(text)).decode()


def _with_ids(document: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The document with every id changed: protobuf's JSON has them in base64, OTLP's in hex."""

    def visit(node: Any) -> Any:
        if isinstance(node, list):
            return [visit(entry) for entry in node]
        if not isinstance(node, dict):
            return node
        return {
            key: change(value) if key in _ID_KEYS and isinstance(value, str) else visit(value)
            for key, value in node.items()
        }

    changed: dict[str, Any] = visit(document)
    return changed


def _text(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False)


def _utf8(text: str) -> str:
    """Half a surrogate pair, which a model can write, has no form in protobuf."""
    return text.encode("utf-8", "replace").decode()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
