"""Wholes: lists that grew, as they were, from the spans that have their parts."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.capture.growth import GROWING, ROOM, Growth
from journeyman.traces.capture.span import SpanRecord


class Part(NamedTuple):
    """A list as a span has it."""

    text: JsonValue
    growth: Growth | None
    """None where the text is all of it."""


def part_of(span: SpanRecord | None, name: str) -> Part | None:
    return None if span is None else Part(span.attributes.get(name), span.grown.get(name))


def by_id(spans: Iterable[SpanRecord]) -> dict[str, SpanRecord]:
    """The spans of a trace in their order, each once: of those that were recorded twice, one that grew from none."""
    found: dict[str, SpanRecord] = {}
    for span in spans:
        if span.span_id not in found or not span.grown:
            found[span.span_id] = span
    return found


class Wholes:
    """The last lists are remembered, as the next ones mostly grew from them."""

    def __init__(self, find: Callable[[str, str, str], Part | None], room: int = ROOM // 4) -> None:
        """`find` gives the part that a span has, of ids of trace and span and an attribute, None where it is gone;
        `room` is in characters."""
        self._find = find
        self._room = room
        self._weight = 0
        self._known: OrderedDict[tuple[str, str, str], str] = OrderedDict()

    def span(self, span: SpanRecord) -> SpanRecord:
        """The span with whole lists; for one that grew from a span that is gone, it has a mark."""
        wholes: dict[str, JsonValue] = {}
        for name in GROWING:
            part = Part(span.attributes.get(name), span.grown.get(name))
            if part.text is not None:
                wholes[name] = self.of(span.trace_id, span.span_id, name, part)
        if not span.grown:
            return span
        known = {name: wholes.get(name) or a.DIGEST_ONLY for name in span.grown}
        return span.model_copy(update={"grown": {}, "attributes": span.attributes | known})

    def of(self, trace_id: str, span_id: str, name: str, part: Part) -> str | None:
        """The list of which a span has that part; None where it is none, or a span that it grew from is gone."""
        chain, seen = [part], set[str]()  # Of a span that was recorded twice, another record may have the rest.
        while (growth := chain[-1].growth) and (trace_id, growth.after, name) not in self._known:
            before = self._find(trace_id, growth.after, name)
            if before is None or growth.after in seen:
                return None
            chain.append(before)
            seen.add(growth.after)
        text = ""
        for new, growth in reversed(chain):
            if not isinstance(new, str):
                return None
            before_it = "" if growth is None else self._known.get((trace_id, growth.after, name), text)
            text = new if growth is None else growth.whole(new, before_it)
        self._remember((trace_id, span_id, name), text)
        return text

    def _remember(self, key: tuple[str, str, str], text: str) -> None:
        if key not in self._known:
            self._known[key] = text
            self._weight += len(text)
        while self._weight > self._room and len(self._known) > 1:
            self._weight -= len(self._known.popitem(last=False)[1])
