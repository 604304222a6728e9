"""Reports: what a person sees of many traces, and of one."""

from collections.abc import Callable

import pytest
from rich.console import Console, RenderableType

from journeyman.traces.assemble import assemble
from journeyman.traces.labels import Label
from journeyman.traces.log import SpanRecord
from journeyman.traces.messages import Message
from journeyman.traces.report import summarise, table, tree
from journeyman.traces.trace import Trace

Golden = Callable[[str], list[SpanRecord]]


def shown(what: RenderableType, width: int = 100) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


@pytest.fixture
def learned(golden: Golden) -> Trace:
    labels = [
        Label(trace_id="a" * 32, name="score", source="judge", value=0.75, comment="[red]one river is missing"),
        Label(trace_id="a" * 32, span_id=golden("learned")[2].span_id, name="score", source="judge", value=True),
    ]
    return assemble(golden("learned"), labels)


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


def test_the_tree_shows_who_did_what_with_times_tokens_and_policies(learned: Trace) -> None:
    text = shown(tree(learned))
    for line in [
        "atlas · ok · 4.05 s · 5 agents at work · 9 turns · 540 → 50 tokens",
        "label   score 0.75 by judge: [red]one river is missing",
        "└── orchestrator · ok · 3.95 s at +0.05",
        "    ├── orchestrator@3 · 0.80 s at +0.10 · 60 → 22 tokens",
        "    │   2 lookup Which river runs through {1}? · for each of 1",
        "    ├── lookup 2.1 · failed · 1.60 s at +2.20",
        "    │   error the server answered 503: engine is overloaded",
        "    │   │   ├── search(query=capitals of the Baltic states) · ok · 0.01 s at +1.50",
        "    │   │   └── label score True by judge",
    ]:
        assert line in text.replace(" \n", "\n")
    assert "You look things up." not in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_whole_text_is_shown_only_in_full(learned: Trace) -> None:
    first, *others = learned.trajectories
    long = first.turns[0].model_copy(update={"response": Message(role="assistant", content="word " * 200 + "the last")})
    trace = learned.model_copy(update={"trajectories": (first.model_copy(update={"turns": (long,)}), *others)})
    assert "the last" not in shown(tree(trace))
    assert "word…" in shown(tree(trace))
    assert "the last" in shown(tree(trace, full=True))


@pytest.mark.parametrize("full", [True, False])
def test_a_text_cannot_take_over_the_terminal(learned: Trace, full: bool) -> None:
    first, *others = learned.trajectories
    odd = first.turns[0].model_copy(update={"response": Message(role="assistant", content="a\x1b[2Jb")})
    trace = learned.model_copy(update={"trajectories": (first.model_copy(update={"turns": (odd,)}), *others)})
    text = shown(tree(trace, full=full))
    assert "a\ufffd[2Jb" in text
    assert "\x1b" not in text


def test_in_full_each_turn_shows_what_its_prompt_added(learned: Trace) -> None:
    text = shown(tree(learned, full=True))
    assert text.count("system You look things up.") == 4
    assert text.count("user search: Riga lies on the Daugava. [3]") == 1


def test_a_turn_that_cannot_be_learned_from_says_why(golden: Golden) -> None:
    assert "not training data: trajectory unfinished" in shown(tree(assemble(golden("crashed"))))
    assert "demonstration" in shown(tree(assemble(golden("taught"))))
