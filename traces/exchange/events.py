"""Events of the GenAI conventions: a label as `gen_ai.evaluation.result`, a log record beside the span it is of."""

from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.base import Record
from journeyman.traces.labels import Label

EVALUATION = "gen_ai.evaluation.result"

FREE_TEXT = ("comment", "edit")
"""Names of labels whose value is somebody's own words, not one of few."""


class Event(Record):
    name: str
    trace_id: str
    span_id: str | None
    """None where it is of the whole trace."""
    at_ns: int
    attributes: dict[str, JsonValue]


def evaluation_event(label: Label, *, response_id: str | None = None) -> Event:
    """The event for a label; `response_id` is the id of the reply that it is of, where that is known.

    A yes or no is `pass` or `fail` with the value 1 or 0, a number the value, a word the label.
    """
    attributes: dict[str, JsonValue | None] = {
        a.EVALUATION_NAME: label.name,
        a.EVALUATION_EXPLANATION: label.comment,
        a.RESPONSE_ID: response_id,
        a.LABEL_SOURCE: label.source,
        a.LABEL_SOURCE_TYPE: label.source_type,
        a.LABEL_VERSION: label.version,
    }
    match label.value:
        case bool(yes):
            attributes |= {a.EVALUATION_VALUE: float(yes), a.EVALUATION_LABEL: "pass" if yes else "fail"}
        case str(text) if label.name in FREE_TEXT:
            attributes[a.EVALUATION_EXPLANATION] = text if label.comment is None else f"{text}\n{label.comment}"
        case str(word):
            attributes[a.EVALUATION_LABEL] = word
        case number:
            attributes[a.EVALUATION_VALUE] = float(number)
    return Event(
        name=EVALUATION,
        trace_id=label.trace_id,
        span_id=label.span_id,
        at_ns=label.at_ns,
        attributes={name: value for name, value in attributes.items() if value is not None},
    )
