"""The tree: what a person sees of one run, and what of it is folded."""

import re
from collections.abc import Callable

import pytest
from rich.console import Console, RenderableType

from journeyman.traces.assemble import assemble
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.labels import Label
from journeyman.traces.messages import Message, Usage
from journeyman.traces.reports.shown.tree import tree
from journeyman.traces.trace import ToolResult, Trace, Trajectory, Turn

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


def test_the_tree_shows_who_did_what_with_times_tokens_and_policies(learned: Trace) -> None:
    text = shown(tree(learned))
    for line in [
        "atlas · ok · 4.05 s · 5 agents at work · 9 turns · 540 → 50 tokens",
        "label   score 0.75 by judge: [red]one river is missing",
        "└── orchestrator · ok · 3.95 s at +0.05 ◆",
        "    ├── orchestrator@3 · 0.80 s at +0.10 ◆ · 60 → 22 tokens",
        "    │   2 lookup Which river runs through {1}? · for each of 1",
        "    ├── lookup 2.1 · failed · 1.60 s at +2.20 ◆",
        "    │   error the server answered 503: engine is overloaded",
        "    │   │   ├── search(query=capitals of the Baltic states) · ok · 0.01 s at +1.50 ◆",
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
    assert "not training data: trajectory unfinished" in shown(tree(assemble(golden("crashed"))), width=140)
    assert "demonstration" in shown(tree(assemble(golden("taught"))))


def agent(place: int, *, status: str = "ok", turns: int = 1, tool: str = "search") -> Trajectory:
    """A branch of a fan-out at work in second `place` of the run."""
    return Trajectory(
        span_id=f"a{place}",
        agent="lookup",
        parent="boss",
        assignment=f"2.{place}",
        goal=f"goal {place}",
        status=status,
        turns=tuple(turn(place, number, tool) for number in range(turns)),
        started_ns=place * 10**9,
        ended_ns=(place + 1) * 10**9,
    )


def turn(place: int, number: int, tool: str = "search") -> Turn:
    at = place * 10**9 + number * 10**7
    return Turn(
        span_id=f"t{place}.{number}",
        agent="lookup",
        policy="base",
        served_by="base",
        messages=(),
        response=Message(role="assistant", content=f"reply {place}.{number}"),
        tool_results=(
            ToolResult(
                span_id=f"r{place}.{number}",
                tool=tool,
                arguments={},
                status="ok",
                content="",
                started_ns=at,
                ended_ns=at,
            ),
        ),
        usage=Usage(input_tokens=10),
        queue_s=0.25,
        started_ns=at,
        ended_ns=at + 10**6,
    )


def run(*branches: Trajectory, labels: tuple[Label, ...] = ()) -> Trace:
    """An orchestrator that waited only for itself, and its branches."""
    seconds = max(branch.ended_ns for branch in branches)
    boss = Trajectory(
        span_id="boss", agent="boss", parent=None, status="ok", turns=(), started_ns=0, ended_ns=seconds + 10**9
    )
    return Trace(
        trace_id="d" * 32,
        task=None,
        trajectories=(boss, *branches),
        outcome=None,
        labels=labels,
        started_ns=0,
        ended_ns=seconds + 10**9,
    )


def goals(trace: Trace, *, full: bool = False) -> list[str]:
    return re.findall(r"goal (\d+)", shown(tree(trace, full=full)))


def test_a_long_fan_out_is_folded_but_for_the_first_two() -> None:
    # All at once, so that one branch is on the critical path.
    branches = [agent(place).model_copy(update={"started_ns": 0, "ended_ns": 10**9}) for place in range(1, 13)]
    text = shown(tree(run(*branches)))
    assert re.findall(r"goal (\d+)", text) == ["1", "2"]
    assert "… 10 more like this (2.3 to 2.12) · together 1.00 s · 10 turns · 100 tokens" in text
    assert len(goals(run(*branches), full=True)) == 12


def test_what_went_wrong_or_is_labelled_is_never_folded() -> None:
    branches = [agent(place).model_copy(update={"started_ns": 0, "ended_ns": 10**9}) for place in range(1, 10)]
    branches[4] = branches[4].model_copy(update={"status": "failed"})
    label = Label(trace_id="d" * 32, span_id="a7", name="score", source="judge", value=0.0)
    assert goals(run(*branches, labels=(label,))) == ["1", "2", "5", "7"]


def test_the_branch_that_the_run_waited_for_is_never_folded() -> None:
    branches = [agent(place).model_copy(update={"started_ns": 0, "ended_ns": 10**9}) for place in range(1, 10)]
    branches[5] = branches[5].model_copy(update={"ended_ns": 3 * 10**9})
    assert goals(run(*branches)) == ["1", "2", "6"]


def test_a_fold_of_one_is_no_fold() -> None:
    branches = [agent(place).model_copy(update={"started_ns": 0, "ended_ns": 10**9}) for place in (1, 2, 3)]
    assert goals(run(*branches)) == ["1", "2", "3"]


def test_turns_that_repeat_a_tool_are_folded_and_the_last_is_shown() -> None:
    text = shown(tree(run(agent(1, turns=9))))
    assert re.findall(r"reply 1\.(\d)", text) == ["0", "1", "8"]
    assert "… 6 more like this" in text
    assert re.findall(r"reply 1\.(\d)", shown(tree(run(agent(1, turns=9)), full=True))) == [*"012345678"]


def test_the_critical_path_is_marked_and_added_up(learned: Trace) -> None:
    text = shown(tree(learned), width=160)
    assert "path ◆  lookup@8 2.1 1.50 s (37.0%) · lookup@8 1 1.00 s (24.7%) · orchestrator@3 0.80 s (19.8%)" in text
    marked = [line for line in text.splitlines() if "◆" in line]
    assert any("lookup 2.1 · failed" in line for line in marked)
    assert not any("lookup 2.2" in line for line in marked)


def test_the_server_s_account_and_the_cache_are_shown(learned: Trace) -> None:
    assert "10 → 0 tokens · queue 0.25 s" in shown(tree(run(agent(1))))
    assert "60 → 22 tokens, 32 cached" in shown(tree(learned))
