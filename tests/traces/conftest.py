"""Golden runs, and a span to vary.

`learned` went well but for one worker, `taught` was scripted by a teacher, `crashed` was killed on its way.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from journeyman.traces.log import LogReader, SpanRecord

DATA = Path(__file__).parent.parent / "data"
TRACE_IDS = {"learned": "a" * 32, "taught": "b" * 32, "crashed": "c" * 32}

Golden = Callable[[str], list[SpanRecord]]


@pytest.fixture(scope="session")
def golden() -> Golden:
    """Gives the spans of a golden run, in the order in which they were written."""
    spans = list(LogReader(DATA / "spans"))
    return lambda name: [span for span in spans if span.trace_id == TRACE_IDS[name]]


@pytest.fixture
def span() -> SpanRecord:
    return SpanRecord(
        trace_id="f" * 32,
        span_id="1" * 16,
        parent_id=None,
        name="invoke_agent lookup",
        kind="internal",
        start_ns=1,
        end_ns=2,
        status="ok",
        attributes={
            "gen_ai.operation.name": "invoke_agent",
            "journeyman.goal": "Wo liegt Köln?\n",
            "n": [1, 2.5, None],
        },
    )
