"""Prompts that sometimes succeed are worth sampling; what always or never does is left out and counted."""

from typing import Any

from journeyman.training.data.samples import sample_line


def test_a_prompt_has_its_rate_over_all_runs(runs: Any, chat: Any, mine: Any, tmp_path: Any) -> None:
    for score in (1.0, 0.0, 0.5, 1.0):
        runs.run(chat("2"), score=score)
    ((row,), mining) = mine("prompts")
    assert (row.success_rate, row.tries, len(row.span_ids), mining.turns) == (0.5, 4, 4, 4)
    assert (row.reward, row.scorer, row.prompt_token_ids) == (
        "score",
        "m:f",
        tuple(map(ord, "how many moons has Mars?")),
    )
    assert (tmp_path / "rows.jsonl").read_bytes() == sample_line(row)


def test_what_always_or_never_succeeds_is_left_out_and_counted(runs: Any, chat: Any, mine: Any) -> None:
    for text, score in (("a", 1.0), ("b", 0.0), ("a", 1.0), ("b", 0.5)):
        runs.run(chat("x", text), score=score)
    rows, mining = mine("prompts")
    assert (rows, mining.refused, mining.counts) == ([], {"always succeeds": 2, "never succeeds": 2}, {"origin": {}})


def test_one_try_decides_nothing(runs: Any, chat: Any, mine: Any) -> None:
    runs.run(chat("x", "b"), chat("y", "b"), score=0.0)
    ((row,), _) = mine("prompts")
    assert (row.success_rate, row.tries, len(row.span_ids)) == (0.0, 1, 2)


def test_an_agent_that_is_asked_the_task_has_it_with_its_reference(runs: Any, chat: Any, mine: Any) -> None:
    runs.run(chat("look"), chat("2", "part of it"), score=1.0)
    rows, mining = mine("prompts")
    assert [(row.origin, row.task and row.task.reference) for row in rows] == [("task", "2"), ("recorded", None)]
    assert mining.counts == {"origin": {"task": 1, "recorded": 1}}


def test_a_reply_need_not_be_fit_for_its_prompt_to_be(runs: Any, chat: Any, mine: Any) -> None:
    runs.run(chat("2", failed=True, PROMPT_TOKEN_IDS=None), score=0.0, status="failed")
    runs.run(chat("2"), score=1.0)
    ((row,), _) = mine("prompts")
    assert (row.success_rate, row.tries) == (0.5, 2)


def test_a_prompt_that_says_nothing_of_the_agent_itself_is_refused(runs: Any, chat: Any, mine: Any) -> None:
    runs.run(chat("2"))
    runs.run(chat("2"), score="fine")
    runs.run(chat("2", DEMONSTRATION=True, policy="teacher"), score=1.0)
    runs.run(chat("2", REDACTED="email"), score=1.0)
    runs.run(chat("2"), score=1.0, purpose="evaluation")
    rows, mining = mine("prompts")
    assert (rows, mining.refused) == (
        [],
        {
            "no label score": 1,
            "label score is no number": 1,
            "a demonstration: it tells nothing of the agent's own success": 1,
            "redacted": 1,
            "made for evaluation": 1,
        },
    )
