"""OTLP: a span goes out and comes back the same, in protobuf and in JSON."""

import json
import subprocess
import sys
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.errors import StoreError
from journeyman.traces.exchange.otlp import from_json, from_otlp, parse_json, parse_protobuf, to_json, to_otlp

texts = st.text(st.characters(exclude_categories=["Cs"]))
integers = st.integers(-(2**63), 2**63 - 1)
values = st.recursive(
    st.none() | st.booleans() | integers | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
nanos = st.integers(1, 2**63 - 1)
spans = st.builds(
    SpanRecord,
    trace_id=st.binary(min_size=16, max_size=16).filter(any).map(bytes.hex),
    span_id=st.binary(min_size=8, max_size=8).filter(any).map(bytes.hex),
    parent_id=st.none() | st.binary(min_size=8, max_size=8).filter(any).map(bytes.hex),
    name=texts,
    kind=st.sampled_from(["internal", "client", "server"]),
    start_ns=nanos,
    end_ns=nanos,
    status=st.sampled_from(["ok", "error"]),
    attributes=st.dictionaries(texts, values, max_size=6),
)


def span(**changes: Any) -> SpanRecord:
    given: dict[str, Any] = {
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
        "parent_id": None,
        "name": "chat base",
        "kind": "client",
        "start_ns": 1_700_000_000_000_000_001,
        "end_ns": 1_700_000_000_000_000_002,
        "status": "ok",
        "attributes": {a.OPERATION: "chat", a.INPUT_TOKENS: 3, a.FINISH_REASONS: ["stop"]},
    }
    return SpanRecord(**given | changes)


@settings(deadline=None, max_examples=50)
@given(st.lists(spans, max_size=4))
def test_a_span_comes_back_from_the_wire_as_it_was(sent: list[SpanRecord]) -> None:
    assert list(from_otlp(parse_protobuf(to_otlp(sent).SerializeToString()))) == sent


@settings(deadline=None, max_examples=50)
@given(st.lists(spans, max_size=4))
def test_a_span_comes_back_from_a_file_as_it_was(sent: list[SpanRecord]) -> None:
    assert list(from_json(json.loads(json.dumps(to_json(sent))))) == sent


def test_a_file_has_ids_in_hex_and_long_numbers_as_text() -> None:
    (group,) = to_json([span(parent_id="00f067aa0ba902b7")])["resourceSpans"]
    (found,) = group["scopeSpans"][0]["spans"]
    assert (found["traceId"], found["spanId"]) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert found["parentSpanId"] == "00f067aa0ba902b7"
    assert found["startTimeUnixNano"] == "1700000000000000001"
    assert found["kind"] == 3
    assert {"key": a.INPUT_TOKENS, "value": {"intValue": "3"}} in found["attributes"]
    assert group["resource"]["attributes"] == [{"key": "service.name", "value": {"stringValue": "journeyman"}}]


def test_a_file_that_protobuf_wrote_has_its_ids_in_base64() -> None:
    assert list(from_json(MessageToDict(to_otlp([span()])))) == [span()]


def test_the_message_of_an_error_is_the_status_message() -> None:
    (group,) = to_json([span(status="error", attributes={a.ERROR: "no such adapter"})])["resourceSpans"]
    assert group["scopeSpans"][0]["spans"][0]["status"] == {"message": "no such adapter", "code": 2}


FOREIGN = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
            "scopeSpans": [
                {
                    "spans": [
                        {
                            "traceId": "5B8EFFF798038103D269B633813FC60C",
                            "spanId": "EEE19B7EC3C1B174",
                            "name": "checkout",
                            "kind": "SPAN_KIND_SERVER",
                            "startTimeUnixNano": 1544712660000000000,
                            "endTimeUnixNano": "1544712661000000000",
                            "status": {"code": 2, "message": "card refused"},
                            "events": [
                                {
                                    "name": "exception",
                                    "timeUnixNano": "1544712660500000000",
                                    "attributes": [{"key": "exception.type", "value": {"stringValue": "Refused"}}],
                                }
                            ],
                            "links": [{"traceId": "5b8efff798038103d269b633813fc60d", "spanId": "eee19b7ec3c1b175"}],
                            "somethingNew": True,
                        }
                    ]
                }
            ],
        }
    ]
}


def test_what_another_service_sends_is_kept_and_goes_out_as_it_came() -> None:
    (came,) = from_json(FOREIGN)
    assert (came.trace_id, came.kind, came.status) == ("5b8efff798038103d269b633813fc60c", "server", "error")
    assert came.attributes[a.ERROR] == "card refused"
    assert json.loads(str(came.attributes[a.RESOURCE])) == {"service.name": "shop"}
    assert json.loads(str(came.attributes[a.EVENTS]))[0]["attributes"] == {"exception.type": "Refused"}
    (sent,) = parse_json(to_json([came, came])).resource_spans
    (wanted,) = parse_json(FOREIGN).resource_spans
    assert sent.resource == wanted.resource
    assert sent.scope_spans[0].spans[1].events == wanted.scope_spans[0].spans[0].events
    assert sent.scope_spans[0].spans[1].links == wanted.scope_spans[0].spans[0].links


def test_what_protobuf_cannot_hold_is_text() -> None:
    (back,) = from_otlp(to_otlp([span(attributes={"big": 2**70, "half": "\ud83d"})]))
    assert back.attributes == {"big": str(2**70), "half": "?"}


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"resourceSpans": 3}, "not OTLP JSON"),
        ({"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "zz"}]}]}]}, "not OTLP JSON"),
        ({"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "x"}]}]}]}, "'x' has no usable id"),
    ],
)
def test_a_document_that_is_no_otlp_is_refused(document: dict[str, Any], complaint: str) -> None:
    with pytest.raises(StoreError, match=complaint):
        list(from_json(document))


def test_a_span_that_has_not_ended_is_refused() -> None:
    request = to_otlp([span()])
    request.resource_spans[0].scope_spans[0].spans[0].end_time_unix_nano = 0
    with pytest.raises(StoreError, match="no usable time"):
        list(from_otlp(request))


def test_an_id_of_another_kind_cannot_go_out() -> None:
    with pytest.raises(StoreError, match="wants 32 hex digits"):
        to_otlp([span(trace_id="run-7")])


def test_a_body_that_is_no_protobuf_is_refused() -> None:
    with pytest.raises(StoreError, match="not an OTLP trace request"):
        parse_protobuf(b"\xff\xff\xff")


def test_without_the_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['opentelemetry.proto'] = None; import journeyman.traces.exchange.otlp"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'ConfigError: OTLP needs opentelemetry-proto: pip install "journeyman[otlp]"' in shown.stderr


def test_an_empty_request_has_no_spans() -> None:
    assert list(from_otlp(ExportTraceServiceRequest())) == []
