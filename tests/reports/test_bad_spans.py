"""Reported: one span without an end loses all the spans that are sent with it."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.exchange.receive import Receiver


class Kept:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.spans: list[SpanRecord] = []

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        self.spans.append(span)


def document(reports: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((reports / "one_bad_span" / "otlp.json").read_text(encoding="utf-8"))
    return loaded


def post(body: bytes, encoding: str = "identity") -> tuple[httpx.Response, Kept]:
    kept = Kept()
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    with Receiver(kept) as receiver:
        return httpx.post(f"{receiver.url}/v1/traces", content=body, headers=headers, trust_env=False), kept


def test_an_import_keeps_the_others(journeyman: Any, reports: Path, tmp_path: Path) -> None:
    ended = journeyman("traces", "import", reports / "one_bad_span" / "otlp.json", "-C", tmp_path)
    assert (ended.code, ended.err.count("has no usable time")) == (3, 1)
    assert "3 spans" in ended.out


@pytest.mark.parametrize(
    "flaw", [{"endTimeUnixNano": "0"}, {"spanId": "xyz"}, {"spanId": "0" * 16}, {"startTimeUnixNano": "soon"}]
)
def test_the_receiver_keeps_the_others_and_counts(reports: Path, flaw: dict[str, str]) -> None:
    sent = document(reports)
    sent["resourceSpans"][0]["scopeSpans"][0]["spans"][3] |= {"endTimeUnixNano": "1764470000010000000"} | flaw
    reply, kept = post(json.dumps(sent).encode())
    assert (reply.status_code, len(kept.spans)) == (200, 3)
    assert reply.json()["partialSuccess"]["rejectedSpans"] == "1"
    assert reply.json()["partialSuccess"]["errorMessage"]


def test_a_request_without_a_good_span_is_refused(reports: Path) -> None:
    sent = document(reports)
    spans = sent["resourceSpans"][0]["scopeSpans"][0]["spans"]
    sent["resourceSpans"][0]["scopeSpans"][0]["spans"] = spans[3:]
    reply, kept = post(json.dumps(sent).encode())
    assert (reply.status_code, kept.spans) == (400, [])


def test_deflate_is_read_as_gzip_is(reports: Path) -> None:
    body = json.dumps(document(reports)).encode()
    bare = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = {"gzip": gzip.compress(body), "deflate": zlib.compress(body)}
    packed["Deflate"] = bare.compress(body) + bare.flush()  # Without zlib's header, as some clients send it.
    for encoding, sent in packed.items():
        reply, kept = post(sent, encoding)
        assert (reply.status_code, len(kept.spans)) == (200, 3), encoding
