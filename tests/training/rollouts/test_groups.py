"""Turns are compared with those that differ in nothing but the draw; what can't be compared is counted, not learned."""

from typing import Any

import pytest

from journeyman.training.rollouts.groups import Grouped, Rewarded, turn_rows

VERSIONS = {"lookup@3.0": 0}


def grouped(*runs: tuple[str, Any, float], **more: Any) -> Grouped:
    """Of runs, each with its task and what all its turns came to."""
    rollouts = [Rewarded(task, trace, {turn.span_id: reward for turn in trace.turns}) for task, trace, reward in runs]
    return turn_rows(rollouts, "lookup", **({"versions": VERSIONS} | more))


def test_a_row_has_the_server_s_own_tokens_and_logprobs(turn: Any, run: Any) -> None:
    rows, counts = grouped(("q", run("a", turn("x", reply=(7, 8, 9))), 1.0), ("q", run("b", turn("y")), 0.0))
    assert [row.span_id for row in rows] == ["x", "y"]
    assert (rows[0].prompt_ids, rows[0].completion_ids, rows[0].old_logprobs) == ((1, 2, 3), (7, 8, 9), (-0.5,) * 3)
    assert (rows[0].trace_id, rows[0].reward, rows[0].version) == ("a", 1.0, 0)
    assert (counts.turns, counts.rows, counts.groups, counts.flat) == (2, 2, 1, 0)


def test_advantages_of_a_group_add_up_to_nothing(turn: Any, run: Any) -> None:
    rows, _ = grouped(*(("q", run(f"r{n}", turn(f"s{n}")), reward) for n, reward in enumerate((1.0, 0.0, 0.0, 0.2))))
    assert sum(row.advantage for row in rows) == pytest.approx(0.0)
    assert rows[0].advantage > 0 > rows[1].advantage


def test_tasks_are_never_compared_with_each_other(turn: Any, run: Any) -> None:
    runs = [("easy", 1.0), ("easy", 0.8), ("hard", 0.2), ("hard", 0.0)]
    rows, counts = grouped(*((task, run(f"r{n}", turn(f"s{n}")), reward) for n, (task, reward) in enumerate(runs)))
    assert counts.groups == 2
    assert [row.advantage > 0 for row in rows] == [True, False, True, False]


def test_a_flat_group_is_dropped_and_counted(turn: Any, run: Any) -> None:
    runs = [("flat", 0.5), ("flat", 0.5), ("told", 1.0), ("told", 0.0)]
    rows, counts = grouped(*((task, run(f"r{n}", turn(f"s{n}")), reward) for n, (task, reward) in enumerate(runs)))
    assert {row.span_id for row in rows} == {"s2", "s3"}
    assert (counts.groups, counts.flat, counts.flat_share) == (2, 1, 0.5)


def test_turns_that_were_shown_the_same_are_a_group_and_the_others_of_the_role_another(turn: Any, run: Any) -> None:
    runs = [
        ("q", run("a", turn("a1"), turn("a2", at=2, prompt=(1, 2, 3, 7))), 1.0),
        ("q", run("b", turn("b1"), turn("b2", at=2, prompt=(1, 2, 3, 7))), 0.0),
        ("q", run("c", turn("c1"), turn("c2", at=2, prompt=(1, 2, 3, 8))), 1.0),
        ("q", run("d", turn("d1"), turn("d2", at=2, prompt=(1, 2, 3, 9))), 0.0),
    ]
    rows, counts = grouped(*runs)
    groups: dict[str, set[str]] = {}
    for row in rows:
        groups.setdefault(row.group, set()).add(row.span_id)
    assert sorted(map(sorted, groups.values())) == [["a1", "b1", "c1", "d1"], ["a2", "b2"], ["c2", "d2"]]
    assert counts.alone == 0


def test_a_turn_without_another_to_compare_it_with_is_counted_alone(turn: Any, run: Any) -> None:
    rows, counts = grouped(
        ("q", run("a", turn("a1"), turn("a2", at=2, prompt=(4,))), 1.0), ("q", run("b", turn("b1")), 0.0)
    )
    assert {row.span_id for row in rows} == {"a1", "b1"}
    assert counts.alone == 1


def test_an_answer_to_a_complaint_has_a_role_of_its_own(turn: Any, run: Any) -> None:
    runs = [
        ("q", run("a", turn("a1", error="not usable"), turn("a2", at=2, prompt=(1,))), 1.0),
        ("q", run("b", turn("b1"), turn("b2", at=2, prompt=(2,))), 0.0),
        ("q", run("c", turn("c1"), turn("c2", at=2, prompt=(3,))), 0.5),
    ]
    rows, counts = grouped(*runs)
    assert {row.span_id: row.role for row in rows if row.span_id.endswith("2")} == {"b2": "turn 2", "c2": "turn 2"}
    assert counts.alone == 1


def test_a_reply_that_could_not_be_used_is_learned_from(turn: Any, run: Any) -> None:
    rows, _ = grouped(("q", run("a", turn("x", error="not usable")), 0.0), ("q", run("b", turn("y")), 1.0))
    assert rows[0].advantage < 0


def test_a_reply_that_was_cut_off_counts_in_the_mean_and_is_not_learned_from(turn: Any, run: Any) -> None:
    runs = (("q", run("a", turn("x", finish_reason="length")), 0.0), ("q", run("b", turn("y")), 1.0))
    rows, counts = grouped(*runs)
    assert ([row.span_id for row in rows], counts.masked) == (["y"], 1)
    rows, counts = grouped(*runs, mask_truncated=False)
    assert ([row.truncated for row in rows], counts.masked) == ([True, False], 0)


def test_a_turn_that_is_too_long_is_not_learned_from(turn: Any, run: Any) -> None:
    runs = (("q", run("a", turn("x", prompt=range(90))), 0.0), ("q", run("b", turn("y", prompt=range(90))), 1.0))
    assert grouped(*runs, longest=92).counts.masked == 0
    assert grouped(*runs, longest=91).counts.masked == 2


@pytest.mark.parametrize(
    "more, reason",
    [
        ({"logprobs": None}, "no logprobs"),
        ({"logprobs": (-0.5,)}, "token ids and logprobs differ in number"),
        ({"token_ids": None}, "no token ids"),
        ({"response": None, "error": "timeout"}, "call failed"),
        ({"served_by": "base"}, "served by another policy"),
        ({"policy": "base", "served_by": "base"}, "asked of another policy"),
        ({"adapter_digest": None}, "no adapter digest"),
        ({"withheld": "redacted"}, "redacted"),
    ],
)
def test_what_the_learner_s_weights_did_not_sample_is_refused_and_counted(
    more: dict[str, Any], reason: str, turn: Any, run: Any
) -> None:
    rows, counts = grouped(("q", run("a", turn("x", **more)), 0.0), ("q", run("b", turn("y")), 1.0))
    assert (rows, counts.refused, counts.turns) == ((), {reason: 1}, 2)


def test_another_agent_s_turns_are_nobody_s_rows(turn: Any, run: Any) -> None:
    _, counts = grouped(("q", run("a", turn("x", agent="writer")), 0.0), ("q", run("b", turn("y")), 1.0))
    assert counts.turns == 1


def test_advantages_are_divided_by_the_deviation_of_all_the_agent_s_turns(turn: Any, run: Any) -> None:
    runs = [("wide", 1.0), ("wide", 0.0), ("near", 0.6), ("near", 0.5)]
    made = [(task, run(f"r{n}", turn(f"s{n}")), reward) for n, (task, reward) in enumerate(runs)]
    by_agent = [row.advantage for row in grouped(*made).rows]
    assert sum(one**2 for one in by_agent) / 4 == pytest.approx(1.0, rel=1e-2)
    assert by_agent[0] == pytest.approx(10 * by_agent[2])
    by_group = [row.advantage for row in grouped(*made, scale="group").rows]
    assert by_group[0] == pytest.approx(by_group[2], rel=1e-2)
    assert [row.advantage for row in grouped(*made, scale="none").rows] == pytest.approx([0.5, -0.5, 0.05, -0.05])
