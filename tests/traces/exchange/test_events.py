"""A label as the conventions' evaluation event."""

import pytest

from journeyman.traces import attributes as a
from journeyman.traces.exchange.events import evaluation_event
from journeyman.traces.labels import Label
from journeyman.traces.reports.check import check_event


def label(value: bool | float | str, name: str = "score", comment: str | None = None) -> Label:
    return Label(trace_id="a" * 32, span_id="b" * 16, name=name, source="anna", value=value, comment=comment, at_ns=7)


@pytest.mark.parametrize(
    ("said", "value", "word", "explanation"),
    [
        (label(True), 1.0, "pass", None),
        (label(False, comment="wrong year"), 0.0, "fail", "wrong year"),
        (label(0.25), 0.25, None, None),
        (label("partly"), None, "partly", None),
        (label("The year is 1979.", name="comment"), None, None, "The year is 1979."),
        (label("1979", name="edit", comment="it was 1997"), None, None, "1979\nit was 1997"),
    ],
)
def test_a_label_becomes_an_event_that_conforms(
    said: Label, value: float | None, word: str | None, explanation: str | None
) -> None:
    event = evaluation_event(said)
    assert (event.name, event.trace_id, event.span_id, event.at_ns) == (
        "gen_ai.evaluation.result",
        said.trace_id,
        said.span_id,
        said.at_ns,
    )
    assert event.attributes[a.EVALUATION_NAME] == said.name
    assert event.attributes.get(a.EVALUATION_VALUE) == value
    assert event.attributes.get(a.EVALUATION_LABEL) == word
    assert event.attributes.get(a.EVALUATION_EXPLANATION) == explanation
    assert event.attributes[a.LABEL_SOURCE] == "anna"
    assert check_event(event.name, event.attributes) == []


def test_the_reply_that_is_judged_can_be_named() -> None:
    assert evaluation_event(label(1.0), response_id="chatcmpl-1").attributes[a.RESPONSE_ID] == "chatcmpl-1"
