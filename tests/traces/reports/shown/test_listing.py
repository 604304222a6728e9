"""The listing: many traces, one in a row."""

from collections.abc import Callable

import pytest
from rich.console import Console, RenderableType

from journeyman.traces.assemble import assemble
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.labels import Label
from journeyman.traces.reports.shown.listing import summarise, table
from journeyman.traces.trace import Trace

Golden = Callable[[str], list[SpanRecord]]


def shown(what: RenderableType, width: int = 100) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


@pytest.fixture
def learned(golden: Golden) -> Trace:
    return assemble(golden("learned"), [Label(trace_id="a" * 32, name="score", source="judge", value=0.75)])


def test_the_table_has_one_row_for_each_trace(learned: Trace, golden: Golden) -> None:
    summaries = [summarise(learned), summarise(assemble(golden("crashed")))]
    lines = shown(table(summaries, now_ns=learned.started_ns + 2 * 3600 * 10**9)).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "TRACE AGE CREW TASK STATUS SCORE AGENTS TURNS TOKENS TIME",
        "aaaaaaaa 2h atlas Which rivers run through the capital… ok 0.75 2 9 590 4.05 s",
        "cccccccc 2h ? ? unfinished - 2 8 589 3.30 s",
    ]


@pytest.mark.parametrize(("seconds", "age"), [(-5, "0s"), (59, "59s"), (60, "1m"), (86_399, "23h"), (200_000, "2d")])
def test_ages_are_short(learned: Trace, seconds: int, age: str) -> None:
    line = shown(table([summarise(learned)], now_ns=learned.started_ns + seconds * 10**9)).splitlines()[1]
    assert line.split()[1] == age
