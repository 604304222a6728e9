"""Prompt columns: the prompts of rows of the view `turns`, whole, where the record has only what they grew by."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic_core import from_json

from journeyman.traces import attributes as a
from journeyman.traces.capture.growth import LARGE
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.capture.wholes import Part, Wholes, part_of
from journeyman.traces.messages import as_json
from journeyman.traces.storage.columns import read_grown

_PROMPTS = {
    "input_messages": a.INPUT_MESSAGES,
    "prompt_token_ids": a.PROMPT_TOKEN_IDS,
    "prompt_token_ids_json": a.PROMPT_TOKEN_IDS,
}
_TRACES = 4
"""So many traces are remembered from which a row grew that isn't asked for."""


class GrownColumns:
    """Rows in the order in which the calls began: mostly each grew from the one before it."""

    def __init__(self, columns: Sequence[str], earlier: Callable[[str], Mapping[str, SpanRecord]]) -> None:
        """`earlier` gives the model calls of a trace by span id."""
        self._prompts = {place: _PROMPTS[name] for place, name in enumerate(columns) if name in _PROMPTS}
        self.asked = [*columns, "grown"] if self._prompts else [*columns]
        """The columns to ask for."""
        self._earlier = earlier
        self._traces: OrderedDict[str, Mapping[str, SpanRecord]] = OrderedDict()
        self._wholes = Wholes(self._find)

    def whole(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """Of a row of trace id, span id and the columns asked for, those that were wanted."""
        if not self._prompts:
            return row[2:]
        trace_id, span_id, *values, grown = row
        growths = read_grown(grown)
        for place, name in self._prompts.items():
            value = values[place]
            if value is None or (name not in growths and len(value) < LARGE):
                continue
            text = value if isinstance(value, str) else as_json(value.tolist())
            text = self._wholes.of(trace_id, span_id, name, Part(text, growths.get(name))) or a.DIGEST_ONLY
            if name in growths:
                values[place] = (
                    text
                    if isinstance(value, str)
                    else np.array(from_json(text) if text.startswith("[") else [], np.int32)
                )
        return tuple(values)

    def _find(self, trace_id: str, span_id: str, name: str) -> Part | None:
        if trace_id not in self._traces:
            self._traces[trace_id] = self._earlier(trace_id)
            if len(self._traces) > _TRACES:
                self._traces.popitem(last=False)
        return part_of(self._traces[trace_id].get(span_id), name)
