"""Spans come back from their columns exactly, whatever their attributes hold."""

import io
import json
import math
from collections.abc import Callable
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.messages import as_json
from journeyman.traces.storage.columns import NUMBERS, SCHEMA, to_spans, to_table

Golden = Callable[[str], list[SpanRecord]]

NAMES = sorted({value for name, value in vars(a).items() if name.isupper() and isinstance(value, str)})

texts = st.text(st.characters(), max_size=8) | st.sampled_from(
    [
        "",
        "[]",
        "null",
        "[1, 2]",
        "[1,2]",
        "[01]",
        "[true]",
        "[-1e-07]",
        "[-1e-7]",
        "[1e40]",
        "[NaN]",
        "[-0.0]",
        "{}",
        "\0",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.just(2**31) | st.just(2**63),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
numbers = st.lists(st.integers(-(2**33), 2**33) | st.floats(width=32) | st.floats(), max_size=6).map(json.dumps)
spans = st.builds(
    SpanRecord,
    trace_id=st.text("0123456789abcdef", max_size=32),
    span_id=st.text("0123456789abcdef", max_size=16),
    parent_id=st.none() | st.text("0123456789abcdef", max_size=16),
    name=st.text(),
    kind=st.sampled_from(["internal", "client", "server"]),
    start_ns=st.integers(0, 2**63 - 1),
    end_ns=st.integers(0, 2**63 - 1),
    status=st.sampled_from(["ok", "error"]),
    attributes=st.dictionaries(st.sampled_from(NAMES) | texts, values, max_size=8)
    | st.dictionaries(st.sampled_from(sorted(NUMBERS.values())), numbers, max_size=3)
    | st.just({a.OPERATION: "chat"}),
)


def contents(span: SpanRecord) -> str:
    """Its form in which numbers that are not numbers equal themselves, and lists of numbers are spelled alike."""
    lists = {name: spelled(span.attributes[name]) for name in NUMBERS.values() if name in span.attributes}
    fields = span.model_dump()
    return json.dumps(fields | {"attributes": fields["attributes"] | lists}, sort_keys=True)


def spelled(value: JsonValue) -> JsonValue:
    try:
        known = json.loads(value) if isinstance(value, str) else None
    except ValueError:
        return value
    numbers = isinstance(known, list) and {int, float}.issuperset(map(type, known))
    return json.dumps(known) if numbers else value


@settings(deadline=None)
@given(st.lists(spans, max_size=4), st.booleans())
def test_spans_come_back_exactly(written: list[SpanRecord], apart: bool) -> None:
    shared: dict[str, str] = {}
    table = to_table(written, shared) if apart else to_table(written)
    file = io.BytesIO()
    pq.write_table(table, file)
    read = pq.read_table(file)
    assert [contents(span) for span in to_spans(read, shared)] == [contents(span) for span in written]


def test_what_is_recorded_as_it_should_be_lies_in_columns_alone(golden: Golden) -> None:
    table = to_table(golden("learned"))
    left = {name for text in table.column("attributes").to_pylist() for name in json.loads(text)}
    assert left.isdisjoint({a.OPERATION, a.AGENT_NAME, a.REQUEST_MODEL, a.INPUT_TOKENS, a.TOKEN_IDS, a.LOGPROBS})
    assert table.schema == SCHEMA
    assert table.column("unspeakable").null_count == len(table)


@pytest.mark.parametrize("logprob", [-1.1920928955078125e-07, -0.06921987980604172, -3e-05, -12.5, 0.0, -0.0])
def test_a_logprob_of_a_server_is_kept_as_a_number(span: SpanRecord, logprob: float) -> None:
    near = pa.scalar(logprob, pa.float32()).as_py()
    chat = span.model_copy(update={"attributes": {a.LOGPROBS: as_json([near])}})
    table = to_table([chat])
    assert table.column("logprobs").to_pylist() == [[near]]
    assert math.copysign(1, table.column("logprobs")[0].as_py()[0]) == math.copysign(1, logprob)
    assert list(to_spans(table)) == [chat]


def test_a_value_that_does_not_fit_its_column_stays_an_attribute(span: SpanRecord) -> None:
    wrong = {a.AGENT_NAME: 7, a.INPUT_TOKENS: True, a.FINISH_REASONS: ["stop", "length"], a.TOKEN_IDS: "[1,2.5]"}
    table = to_table([span.model_copy(update={"attributes": wrong})])
    assert json.loads(table.column("attributes")[0].as_py()) == wrong
    assert all(
        table.column(name)[0].as_py() is None for name in ("agent", "input_tokens", "finish_reason", "token_ids")
    )


def test_a_repeated_text_is_kept_once_by_its_digest(span: SpanRecord) -> None:
    text = "You plan. " * 30
    chat = span.model_copy(update={"attributes": {a.SYSTEM_INSTRUCTIONS: text}})
    shared: dict[str, str] = {}
    table = to_table([chat, chat], shared)
    digest = sha256(text.encode()).hexdigest()
    assert shared == {digest: text}
    assert table.column("system_digest").to_pylist() == [digest, digest]
    assert list(to_spans(table, shared)) == [chat, chat]
    missing = chat.model_copy(update={"attributes": {a.SYSTEM_INSTRUCTIONS: f"sha256:{digest}"}})
    assert list(to_spans(table)) == [missing, missing]


def test_a_short_text_stays_with_its_span(span: SpanRecord) -> None:
    chat = span.model_copy(update={"attributes": {a.SYSTEM_INSTRUCTIONS: "You plan."}})
    shared: dict[str, str] = {}
    assert list(to_spans(to_table([chat], shared))) == [chat] and shared == {}


def test_a_turn_whose_instructions_are_missing_may_not_be_training_data(golden: Golden) -> None:
    chat = next(span for span in golden("learned") if span.attributes[a.OPERATION] == "chat")
    known = {**chat.attributes, a.SYSTEM_INSTRUCTIONS: f"sha256:{'0' * 64}"}
    table = to_table([chat.model_copy(update={"attributes": known})])
    assert table.column("refusal").to_pylist() == ["text missing"]


def test_a_turn_that_may_not_be_training_data_says_so_in_its_column(golden: Golden) -> None:
    chats = [span for span in golden("learned") if span.attributes[a.OPERATION] == "chat"]
    cut = chats[0].model_copy(update={"attributes": {**chats[0].attributes, a.FINISH_REASONS: ["length"]}})
    bare = {name: value for name, value in chats[0].attributes.items() if name != a.LOGPROBS}
    compact = {**chats[0].attributes, a.TOKEN_IDS: str(chats[0].attributes[a.TOKEN_IDS]).replace(" ", "")}
    others = [cut, *(chats[0].model_copy(update={"attributes": attributes}) for attributes in (bare, compact))]
    assert to_table([chats[0], *others]).column("refusal").to_pylist() == [None, "truncated", "no logprobs", None]
