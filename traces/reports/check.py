"""The conformance checker: what is not as the GenAI conventions want it, on spans, metrics and events; offline."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, TypeAlias

from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.base import Record
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.conventions import Levels, SpanConvention, conventions
from journeyman.traces.reports.shapes import is_type, misfits

Severity = Literal["error", "warning"]

RULES: dict[str, Severity] = {
    "operation": "error",  # gen_ai attributes without an operation, or with one that the conventions do not know
    "required": "error",  # a required attribute is missing
    "type": "error",  # an attribute, a unit or an instrument is of another type
    "shape": "error",  # messages, tool definitions, arguments or results have another form
    "value": "error",  # a value contradicts another one, or misspells a well-known one
    "error": "error",  # a failure without `error.type`, or the other way round
    "kind": "warning",
    "name": "warning",
    "unknown": "warning",  # an attribute, metric or event that the conventions do not know
    "deprecated": "warning",  # one that they know under another name by now
    "conversation": "warning",  # the spans of a trace disagree on their conversation
}
"""Rules and their severity: `error` where the conventions say must or required, `warning` where they say should."""

Flaw: TypeAlias = tuple[str, str]
"""A rule, and in words what breaks it."""

_PLACEHOLDER = re.compile(r"\{([^}]+)\}")


class Finding(Record):
    trace_id: str | None = None
    span_id: str | None = None
    """None, like the trace id, for a metric or an event."""
    subject: str
    """Name of the span, metric or event."""
    rule: str
    severity: Severity
    message: str


def check(spans: Iterable[SpanRecord]) -> list[Finding]:
    """Findings over spans of any number of traces, in their order; none where all conforms."""
    known = list(spans)
    talks = _conversations(known)
    return [
        _finding(span.name, flaw).model_copy(update={"trace_id": span.trace_id, "span_id": span.span_id})
        for span in known
        for flaw in (*_span(span), *_conversation(span, talks[span.trace_id]))
    ]


def check_metric(name: str, unit: str, instrument: str, attributes: Mapping[str, JsonValue]) -> list[Finding]:
    """Findings for a metric and the attributes of one of its points; `instrument` is `histogram` or `counter`."""
    return [_finding(name, flaw) for flaw in _metric(name, unit, instrument, attributes)]


def check_event(name: str, attributes: Mapping[str, JsonValue]) -> list[Finding]:
    """Findings for an event: a log record that has a name."""
    event = conventions().events.get(name)
    if event is None:
        return [_finding(name, ("unknown", "it is no event of the conventions"))]
    return [_finding(name, flaw) for flaw in (*_required(event, attributes), *_attributes(attributes))]


def _finding(subject: str, flaw: Flaw) -> Finding:
    rule, message = flaw
    return Finding(subject=subject, rule=rule, severity=RULES[rule], message=message)


def _span(span: SpanRecord) -> Iterator[Flaw]:
    yield from _attributes(span.attributes)
    operation = span.attributes.get(a.OPERATION)
    if operation is None:
        # A server's own account of a call has no operation: the conventions describe the client's side.
        if span.kind != "server" and any(name.startswith("gen_ai.") for name in span.attributes):
            yield "operation", f"it has gen_ai attributes and no {a.OPERATION}"
        return
    convention = conventions().span(str(operation), span.kind)
    if convention is None:
        yield "operation", f"{operation!r} is no operation of the conventions"
        return
    yield from _form(span, convention)
    yield from _required(convention, span.attributes)
    yield from _consistency(span)


def _form(span: SpanRecord, convention: SpanConvention) -> Iterator[Flaw]:
    if span.kind not in convention.kinds:
        yield "kind", f"its kind is {span.kind!r}, not {' or '.join(map(repr, convention.kinds))}"
    name = _PLACEHOLDER.sub(lambda found: str(span.attributes.get(found[1], "")), convention.name).strip()
    if span.name != name:
        yield "name", f"its name is {span.name!r}, not {name!r}"


def _consistency(span: SpanRecord) -> Iterator[Flaw]:
    if span.status == "error" and a.ERROR_TYPE not in span.attributes:
        yield "error", f"it failed and has no {a.ERROR_TYPE}"
    if span.status != "error" and a.ERROR_TYPE in span.attributes:
        yield "error", f"it has {a.ERROR_TYPE} and did not fail"
    if "server.address" in span.attributes and "server.port" not in span.attributes:
        yield "required", "server.port is missing beside server.address"
    counts = {name: value for name, value in span.attributes.items() if type(value) is int}
    for name, count in counts.items():
        total = "gen_ai.usage." + name.rpartition(".")[2]
        if name.startswith("gen_ai.usage.") and count > counts.get(total, count):
            yield "value", f"{name} is {count}, but it is part of {total}, which is {counts[total]}"


def _metric(name: str, unit: str, instrument: str, attributes: Mapping[str, JsonValue]) -> Iterator[Flaw]:
    table = conventions()
    metric = table.metrics.get(name) or table.older_metrics.get(name)
    if metric is None:
        yield "unknown", "it is no metric of the conventions"
        return
    if unit != metric.unit:
        yield "type", f"its unit is {unit!r}, not {metric.unit!r}"
    if instrument != metric.instrument:
        yield "type", f"it is a {instrument}, not a {metric.instrument}"
    yield from _required(metric, attributes)
    # Each attribute splits a metric into one more set of series: there should be no others.
    yield from (("unknown", f"{name} is not for it") for name in sorted(attributes.keys() - metric.attributes))
    # An attribute of an older metric is of its age.
    yield from (flaw for flaw in _attributes(attributes) if flaw[0] != "deprecated" or name in table.metrics)


def _required(convention: Levels, attributes: Mapping[str, JsonValue]) -> Iterator[Flaw]:
    yield from (("required", f"{name} is missing") for name in sorted(convention.required - attributes.keys()))


def _attributes(attributes: Mapping[str, JsonValue]) -> Iterator[Flaw]:
    table = conventions()
    for name, value in attributes.items():
        kind = table.type_of(name)
        if name in table.renamed:
            today = table.renamed[name]
            yield "deprecated", f"{name} is deprecated" + (f": it is {today} now" if today else "")
        elif kind is None:
            if name.startswith("gen_ai."):
                yield "unknown", f"{name} is no attribute of the conventions"
        elif name in table.shapes:
            yield from (("shape", f"{name}: {misfit}") for misfit in misfits(table.shapes[name], value))
        elif not is_type(kind, value):
            yield "type", f"{name} is {type(value).__name__} {value!r:.40}, not {kind}"
        else:
            yield from _values(name, value if isinstance(value, list) else [value])


def _values(name: str, values: Iterable[JsonValue]) -> Iterator[Flaw]:
    """A well-known value in another spelling; any other value is allowed, because the lists are open."""
    known = {_folded(value): value for value in conventions().values.get(name, ())}
    for value in values:
        meant = known.get(_folded(str(value)), value)
        if value != meant:
            yield "value", f"{name} is {value!r}; the well-known value is {meant!r}"


def _folded(value: str) -> str:
    return re.sub(r"[^a-z0-9]", "", value.lower())


def _conversations(spans: Iterable[SpanRecord]) -> dict[str, set[JsonValue]]:
    talks: dict[str, set[JsonValue]] = defaultdict(set)
    for span in spans:
        talks[span.trace_id] |= {span.attributes[a.CONVERSATION_ID]} if a.CONVERSATION_ID in span.attributes else set()
    return talks


def _conversation(span: SpanRecord, talks: set[JsonValue]) -> Iterator[Flaw]:
    convention = conventions().span(str(span.attributes.get(a.OPERATION)), span.kind)
    known = span.attributes.get(a.CONVERSATION_ID)
    if convention is None or a.CONVERSATION_ID not in convention.conditional:
        return
    if talks and known is None:
        yield "conversation", f"other spans of its trace have a {a.CONVERSATION_ID}, it has none"
    elif len(talks) > 1:
        yield "conversation", f"its {a.CONVERSATION_ID} is {known!r}, that of other spans of its trace is not"
