"""Pairs come of what really branched, share their prompt token for token, and say what they are."""

import json
from typing import Any

import pytest

from journeyman.training.data.samples import PreferenceSample, Side, sample_line

MOONS = "2 moons"


def said(pair: PreferenceSample) -> tuple[str, str, str, float]:
    return pair.origin, pair.chosen.completion, pair.rejected.completion, pair.margin


def ids(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def test_alternatives_sampled_of_one_prompt(runs: Any, chat: Any, mine: Any, tmp_path: Any) -> None:
    bad, _ = runs.run(chat("9 moons"), score=0.25)
    good, (span,) = runs.run(chat(MOONS), score=1.0)
    ((pair,), mining) = mine("preference")
    assert said(pair) == ("sampled", MOONS, "9 moons", 0.75)
    assert (pair.trace_id, pair.chosen.span_ids, pair.rejected.trace_id) == (good, (span,), bad)
    assert set(pair.span_ids) == {*pair.chosen.span_ids, *pair.rejected.span_ids}
    assert (pair.prompt_token_ids, pair.chosen.token_ids) == (ids("how many moons has Mars?"), ids(MOONS))
    assert (mining.counts, mining.turns, mining.refused) == ({"origin": {"sampled": 1}}, 2, {})
    assert (tmp_path / "rows.jsonl").read_bytes() == sample_line(pair)


def test_the_best_stands_against_the_worst_and_each_reply_in_one_pair(runs: Any, chat: Any, mine: Any) -> None:
    for reply, score in (("a", 0.0), ("b", 0.25), ("c", 0.75), ("d", 1.0), ("e", 0.5), ("d", 0.5)):
        runs.run(chat(reply), score=score)
    pairs, mining = mine("preference")
    assert {said(pair) for pair in pairs} == {("sampled", "c", "a", 0.75), ("sampled", "d", "b", 0.5)} or {
        said(pair) for pair in pairs
    } == {("sampled", "d", "a", 0.75), ("sampled", "c", "b", 0.5)}
    assert mining.refused == {"no partner left with another outcome": 1}


def test_the_same_task_under_two_policies(runs: Any, chat: Any, mine: Any) -> None:
    runs.run(chat(MOONS, policy="worker@2"), score=1.0)
    runs.run(chat("9 moons", policy="worker@1"), score=0.0)
    ((pair,), _) = mine("preference")
    assert (said(pair)[0], pair.chosen.policy, pair.rejected.policy) == ("policies", "worker@2", "worker@1")
    assert mine("preference", policy=("worker@1",))[0] == []
    assert len(mine("preference", policy=("worker@2",))[0]) == 1


def test_rankings_of_a_judge_by_label_and_by_the_crews_own(runs: Any, chat: Any, mine: Any) -> None:
    runs.run(chat(MOONS), score=0.9, source_type="llm_judge")
    runs.run(chat("9 moons"), score=0.2, source_type="llm_judge")
    runs.run(chat("red", "what colour?"), verdicts=[False, True])
    runs.run(chat("blue", "what colour?"), verdicts=[True, False])
    pairs, mining = mine("preference")
    assert [said(pair)[:3] for pair in pairs] == [("judge", MOONS, "9 moons"), ("judge", "red", "blue")]
    assert mining.counts == {"origin": {"judge": 2}}


def test_a_label_of_the_call_itself_counts_before_that_of_its_run(runs: Any, chat: Any, mine: Any) -> None:
    first, (span,) = runs.run(chat(MOONS), score=0.0)
    runs.run(chat("9 moons"), score=0.5)
    runs.label(first, "score", 1.0, span)
    ((pair,), _) = mine("preference")
    assert said(pair) == ("sampled", MOONS, "9 moons", 0.5)


@pytest.mark.parametrize(
    "accepted",
    [
        ("q\n\nYour last reply was not usable: no JSON",),
        ("q", "bad", "Your answer was not accepted: too long"),
    ],
)
def test_a_refused_reply_and_the_one_accepted_after_the_complaint(
    runs: Any, chat: Any, mine: Any, accepted: tuple[str, ...]
) -> None:
    runs.run(chat("bad", "q", failed=True), chat("good", *accepted))
    ((pair,), mining) = mine("preference")
    assert said(pair) == ("complaint", "good", "bad", 1.0)
    assert [message.content for message in pair.messages] == ["q"]
    assert (pair.prompt_token_ids, pair.chosen.token_ids) == (ids("q"), ids("good"))
    assert (mining.turns, mining.refused) == (2, {})


def test_each_refused_reply_is_paired_at_its_own_prompt(runs: Any, chat: Any, mine: Any) -> None:
    prompts = ["q", "q\n\nno", "q\n\nno\n\nno again"]
    replies = zip(("a", "b", "c"), prompts, (True, True, False), strict=True)
    runs.run(*(chat(reply, prompt, failed=failed) for reply, prompt, failed in replies))
    pairs, _ = mine("preference")
    assert [(pair.rejected.completion, pair.messages[0].content) for pair in pairs] == [("a", "q"), ("b", "q\n\nno")]
    assert {pair.chosen.completion for pair in pairs} == {"c"}


def test_a_refused_reply_that_no_accepted_one_answers_is_refused(runs: Any, chat: Any, mine: Any) -> None:
    runs.run(chat("bad", "q", failed=True), chat("good", "another question"))
    runs.run(chat("bad", "q", failed=True))
    runs.run(chat("bad", "q", failed=True, LOGPROBS=None), chat("good", "q\n\nno"))
    runs.run(chat("bad", "q", failed=True), chat("bad", "q\n\nno"))
    runs.run(chat("bad", "q", failed=True), chat("good", "q\n\nno", RESPONSE_MODEL="other"))
    rows, mining = mine("preference")
    assert rows == []
    assert mining.refused == {
        "an accepted reply to another prompt than the refused one's": 2,
        "reply not usable": 2,
        "no logprobs": 2,
        "both sides say the same": 2,
        "served by another policy": 1,
    }


def test_a_fork_and_its_original(runs: Any, chat: Any, mine: Any) -> None:
    original, _ = runs.run(chat("9 moons"), score=0.0)
    runs.run(chat(MOONS), score=1.0, purpose="replay", replay_of=original)
    ((pair,), mining) = mine("preference")
    assert (said(pair), mining.refused) == (("fork", MOONS, "9 moons", 1.0), {})


def test_a_fork_stands_beside_its_own_original_alone(runs: Any, chat: Any, mine: Any) -> None:
    original, _ = runs.run(chat("9 moons"), score=0.0)
    runs.run(chat("8 moons"), score=0.5)
    runs.run(chat("7 moons"), score=0.0, purpose="replay", replay_of=original)
    pairs, mining = mine("preference")
    assert [said(pair) for pair in pairs] == [("sampled", "8 moons", "9 moons", 0.5)]
    assert mining.refused == {"outcomes equal": 1}


@pytest.mark.parametrize("purpose", ["gate", "evaluation", "shadow", "replay"])
def test_a_fork_of_what_nobody_learns_from_is_no_side(runs: Any, chat: Any, mine: Any, purpose: str) -> None:
    original, _ = runs.run(chat("9 moons"), score=0.0, purpose=purpose)
    runs.run(chat(MOONS), score=1.0, purpose="replay", replay_of=original)
    rows, mining = mine("preference")
    assert (rows, mining.refused) == ([], {f"made for {purpose}": 2})


def test_a_fork_whose_original_is_gone_is_no_side(runs: Any, chat: Any, mine: Any) -> None:
    runs.run(chat("9 moons"), score=0.0)
    runs.run(chat(MOONS), score=1.0, purpose="replay", replay_of="f" * 32)
    rows, mining = mine("preference")
    assert (rows, mining.refused) == ([], {"run unfinished": 1, "no other reply to its prompt": 1})


def test_a_persons_edit_and_what_it_replaced(runs: Any, chat: Any, mine: Any) -> None:
    trace_id, (span,) = runs.run(chat("9 moons"), score=0.0, status="failed")
    runs.label(trace_id, "edit", MOONS, span, source_type="human")
    ((pair,), mining) = mine("preference")
    assert said(pair) == ("person", MOONS, "9 moons", 1.0)
    assert pair.chosen == Side(policy="person", trace_id=trace_id, span_ids=(span,), edited_by="ann", completion=MOONS)
    assert (pair.rejected.token_ids, pair.prompt_token_ids) == (ids("9 moons"), ids("how many moons has Mars?"))
    assert (mining.edited.turns, mining.refused) == (1, {})


def test_of_edits_that_contradict_each_other_the_newest_counts_and_both_are_shown(
    runs: Any, chat: Any, mine: Any
) -> None:
    trace_id, (span,) = runs.run(chat("9 moons"))
    for number, text in enumerate(("3 moons", MOONS)):
        runs.label(trace_id, "edit", text, span, source=f"p{number}", source_type="human", at_ns=number)
    ((pair,), mining) = mine("preference")
    ((shown,),) = (mining.superseded,)
    assert (pair.chosen.completion, shown.counts.value, shown.superseded.value) == (MOONS, MOONS, "3 moons")


def test_an_edit_that_makes_no_pair_is_refused(runs: Any, chat: Any, mine: Any) -> None:
    for reply, changes in ((MOONS, {}), ("9", {"LOGPROBS": None}), ("9", {"failed": True, "TOKEN_IDS": None})):
        trace_id, (span,) = runs.run(chat(reply, **changes))
        runs.label(trace_id, "edit", MOONS, span, source_type="human")
    rows, mining = mine("preference")
    assert (rows, mining.edited.turns) == ([], 0)
    assert mining.edited.refused == {"both sides say the same": 1, "no logprobs": 1, "no token ids": 1}


def test_outcomes_that_are_equal_or_unknown_make_no_pair(runs: Any, chat: Any, mine: Any) -> None:
    runs.run(chat(MOONS), score=1.0)
    runs.run(chat("two"), score=1.0)
    runs.run(chat("red", "what colour?"), score=1.0)
    runs.run(chat("blue", "what colour?"))
    runs.run(chat("x", "alone?"), score=0.0)
    rows, mining = mine("preference")
    assert (rows, mining.refused) == (
        [],
        {"outcomes equal": 3, "no label score": 1, "no other reply to its prompt": 1},
    )


def test_the_better_reply_is_worth_imitating(runs: Any, chat: Any, mine: Any) -> None:
    runs.run(chat(MOONS), score=1.0, status="failed")
    runs.run(chat("two"), score=0.5)
    runs.run(chat("nine"), score=0.0, status="failed")
    pairs, mining = mine("preference")
    assert [said(pair)[1:3] for pair in pairs] == [("two", "nine")]
    assert mining.refused == {"trajectory failed": 1}
    assert mine("preference", min_score=0.75)[0] == []


def test_a_reply_that_is_not_the_json_that_was_asked_for_is_never_chosen(runs: Any, chat: Any, mine: Any) -> None:
    runs.run(chat("two", OUTPUT_TYPE="json"), score=1.0)
    runs.run(chat('{"answer": "2"}', OUTPUT_TYPE="json"), score=0.5)
    runs.run(chat("nine", OUTPUT_TYPE="json"), score=0.0)
    pairs, mining = mine("preference")
    assert [said(pair)[1:3] for pair in pairs] == [('{"answer": "2"}', "nine")]
    assert mining.refused == {"a reply that isn't the JSON that was asked for": 1}


def test_a_run_of_a_gate_is_never_a_side(runs: Any, chat: Any, mine: Any) -> None:
    runs.run(chat(MOONS), score=1.0, purpose="gate")
    runs.run(chat("9 moons"), score=0.0)
    rows, mining = mine("preference")
    assert (rows, mining.refused) == ([], {"made for gate": 1, "no other reply to its prompt": 1})


def test_a_demonstration_is_no_side_beside_what_a_server_sampled(runs: Any, chat: Any, mine: Any) -> None:
    """Only its text is known, so nobody can say that the prompts are the same, token for token."""
    bare = dict.fromkeys(["PROMPT_TOKEN_IDS", "TOKEN_IDS", "LOGPROBS"])
    runs.run(chat(MOONS, policy="teacher", DEMONSTRATION=True, **bare), score=1.0, purpose="teach")
    runs.run(chat("9 moons"), score=0.0)
    assert mine("preference")[1].refused == {"no other reply to its prompt": 2}
    runs.run(chat("8 moons", policy="teacher", DEMONSTRATION=True, **bare), score=0.0, purpose="teach")
    ((pair,), _) = mine("preference")
    assert (said(pair)[:3], pair.prompt_token_ids) == (("sampled", MOONS, "8 moons"), None)


def test_where_only_digests_were_recorded_nothing_pairs(runs: Any, chat: Any, mine: Any) -> None:
    runs.run(chat(MOONS, CONTENT="digest"), score=1.0)
    runs.run(chat("9 moons", CONTENT="digest"), score=0.0)
    rows, mining = mine("preference")
    assert (rows, mining.refused) == ([], {"content not recorded": 2})


def test_calls_of_tools_are_told_apart(runs: Any, chat: Any, mine: Any) -> None:
    def calling(query: str) -> str:
        call = {"type": "tool_call", "id": "c", "name": "search", "arguments": {"query": query}}
        return json.dumps([{"role": "assistant", "parts": [call]}])

    runs.run(chat("", OUTPUT_MESSAGES=calling("Mars"), TOKEN_IDS="[7]", LOGPROBS="[0.0]"), score=1.0)
    runs.run(chat("", OUTPUT_MESSAGES=calling("Moon"), TOKEN_IDS="[8]", LOGPROBS="[0.0]"), score=0.0)
    ((pair,), _) = mine("preference")
    assert [side.tool_calls[0].arguments for side in (pair.chosen, pair.rejected)] == [
        {"query": "Mars"},
        {"query": "Moon"},
    ]
