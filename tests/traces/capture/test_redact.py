"""Redaction: what it must find and what it must leave, measured on a corpus, and what it costs."""

import json
import re
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from journeyman.traces.base import Record
from journeyman.traces.capture.patterns import PATTERNS
from journeyman.traces.capture.redact import Redactor
from journeyman.traces.errors import ConfigError

ALL = Redactor(PATTERNS)


class Case(Record):
    """A text of the corpus; `kind` and `secret` are None where nothing may be taken out."""

    text: str
    kind: str | None
    secret: str | None


CORPUS = [
    Case.model_validate_json(line)
    for line in (Path(__file__).parents[2] / "data" / "redaction.jsonl").read_text(encoding="utf-8").split("\n")
    if line
]


def redacted(text: str, redactor: Redactor = ALL) -> str:
    return redactor.redact(text, set())


def found_in(text: str, redactor: Redactor = ALL) -> set[str]:
    found: set[str] = set()
    redactor.redact(text, found)
    return found


def test_the_corpus_is_found_whole_and_nothing_else() -> None:
    secrets = [case for case in CORPUS if case.secret is not None]
    harmless = [case for case in CORPUS if case.secret is None]
    assert len(secrets) > 80
    assert len(harmless) > 70
    hits = [
        case for case in secrets if str(case.secret) not in redacted(case.text) and found_in(case.text) == {case.kind}
    ]
    false = [case for case in harmless if redacted(case.text) != case.text]
    assert [case.text for case in secrets if case not in hits] == []
    assert [case.text for case in false] == []
    recall, precision = len(hits) / len(secrets), len(hits) / (len(hits) + len(false))
    assert (recall, precision) == (1.0, 1.0)


@pytest.mark.parametrize("case", [case for case in CORPUS if case.secret is not None], ids=lambda case: case.text[:40])
def test_the_glance_misses_nothing_also_in_json_within_json(case: Case) -> None:
    assert ALL.suspects(case.text)
    once = json.dumps([{"parts": [{"content": case.text}]}], ensure_ascii=False)
    twice = json.dumps({"arguments": once}, ensure_ascii=True)
    for text in (once, twice, json.dumps(case.text).replace("/", "\\/")):
        assert ALL.suspects(text)


def test_the_rest_of_a_text_stays() -> None:
    assert redacted("mail ann@example.com or bob@example.org.") == "mail [redacted:email] or [redacted:email]."
    assert redacted("postgres://app:s3cret@db/orders") == "postgres://app:[redacted:key]@db/orders"
    assert redacted("password=hunter2&x=1") == "password=[redacted:key]&x=1"


def test_what_was_redacted_stays_as_it_is() -> None:
    for case in CORPUS:
        assert redacted(redacted(case.text)) == redacted(case.text)


def test_json_stays_json_whatever_stands_in_it() -> None:
    for case in CORPUS:
        nested = json.dumps({"reply": json.dumps({"answer": case.text}), "n": [1, None, case.text]}, ensure_ascii=False)
        kept = json.loads(redacted(nested))
        assert isinstance(json.loads(kept["reply"])["answer"], str)
        assert kept["n"][:2] == [1, None]
        if case.secret is not None:
            assert json.dumps(case.secret)[1:-1] not in redacted(nested)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([case.text for case in CORPUS]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["password", "key", "n"]), inner),
    max_leaves=12,
)


@given(value=JSON)
def test_whatever_json_holds_it_stays_json_and_what_holds_nothing_stays_the_same(value: JsonValue) -> None:
    text = json.dumps(value, ensure_ascii=False)
    found: set[str] = set()
    kept = ALL.redact(text, found)
    assert type(json.loads(kept)) is type(value) or found
    assert found or kept == text
    assert ALL.suspects(text) or not found


def test_the_name_of_a_value_tells_what_it_is() -> None:
    value = {"password": "open sesame", "tokens": 5, "login": {"clientSecret": "mellon"}, "token": "Paris"}
    kept = json.loads(redacted(json.dumps(value)))
    assert kept == {
        "password": "[redacted:key]",
        "tokens": 5,
        "login": {"clientSecret": "[redacted:key]"},
        "token": "Paris",
    }


def test_a_number_in_json_can_be_a_card() -> None:
    assert json.loads(redacted('{"card": 4242424242424242, "n": 4242424242424241}')) == {
        "card": "[redacted:card]",
        "n": 4242424242424241,
    }


def test_only_what_was_asked_for_is_taken_out() -> None:
    text = "ann@example.com has password=hunter2"
    assert redacted(text, Redactor(["email"])) == "[redacted:email] has password=hunter2"
    assert redacted(text, Redactor(["keys"])) == "ann@example.com has password=[redacted:key]"
    assert redacted(text, Redactor([])) == text


def shout(text: str) -> str:
    return re.sub("quiet", "[redacted:quiet]", text)


def test_functions_of_ones_own_run_too_by_name_or_as_they_are() -> None:
    for redactor in (Redactor(["keys", shout]), Redactor(["keys", f"{__name__}:shout"])):
        assert redactor.suspects("anything")
        assert found_in('["be quiet", "password=hunter2"]', redactor) == {"shout", "key"}
        assert json.loads(redacted('["be quiet"]', redactor)) == ["be [redacted:quiet]"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mail", "unknown name 'mail'; have keys, email, card, phone, or module:function"),
        ("nowhere.at.all:function", "No module named 'nowhere'"),
        ("json:nothing", "has no attribute 'nothing'"),
        ("json:__doc__", "is a str, not a function"),
    ],
)
def test_a_name_of_nothing_is_a_config_error(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Redactor([name])


def test_counted_tokens_are_no_reason_to_look_closer_and_named_ones_are() -> None:
    counted = {"usage": {"input_tokens": 12, "output_tokens": 3, "cached_tokens": 0}}
    assert not ALL.suspects(json.dumps(counted)) and not ALL.suspects(json.dumps(json.dumps(counted)))
    for name in ("access_tokens", "bot_token", "input_token", "output_tokens_key"):
        assert ALL.suspects(json.dumps({name: "a7Kq"}))


def test_a_text_without_secrets_costs_microseconds() -> None:
    text = "The Seine runs through Paris; it is 777 km long. The author names a key and two tokens. " * 24
    assert len(text) > 2000
    redactor = Redactor()
    seconds = []
    for _ in range(200):
        started = perf_counter()
        assert not redactor.suspects(text)
        seconds.append(perf_counter() - started)
    assert min(seconds) < 50e-6
