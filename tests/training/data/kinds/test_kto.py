"""KTO: each reply with whether it was good, by the newest thumb or by what its run was worth."""

from typing import Any

from journeyman.training.data.samples import KTOSample, sample_line


def test_a_score_makes_a_reply_good_or_bad(runs: Any, chat: Any, mine: Any) -> None:
    runs.run(chat("2"), score=1.0)
    runs.run(chat("9"), score=0.5)
    rows, mining = mine("kto")
    assert [(row.completion, row.label, row.origin) for row in rows] == [
        ("2", True, "outcome"),
        ("9", False, "outcome"),
    ]
    assert mining.counts == {"origin": {"outcome": 2}, "label": {"good": 1, "bad": 1}}


def test_the_threshold_is_the_least_score(runs: Any, chat: Any, mine: Any) -> None:
    runs.run(chat("9"), score=0.5)
    ((row,), _) = mine("kto", min_score=0.5)
    assert row.label


def test_a_thumb_counts_before_a_score_and_one_of_the_call_before_one_of_the_run(
    runs: Any, chat: Any, mine: Any
) -> None:
    trace_id, (first, _) = runs.run(chat("look"), chat("2", "q"), score=1.0)
    runs.label(trace_id, "thumbs", False, source_type="human")
    runs.label(trace_id, "thumbs", True, first, source_type="human")
    rows, _ = mine("kto")
    assert [(row.completion, row.label, row.origin) for row in rows] == [
        ("look", True, "thumbs"),
        ("2", False, "thumbs"),
    ]


def test_of_thumbs_that_contradict_each_other_the_newest_counts_and_both_are_shown(
    runs: Any, chat: Any, mine: Any
) -> None:
    trace_id, _ = runs.run(chat("2"))
    runs.label(trace_id, "thumbs", True, at_ns=1)
    runs.label(trace_id, "thumbs", False, source="bob", at_ns=2)
    ((row,), mining) = mine("kto")
    assert not row.label
    ((newer, older),) = [(pair.counts.source, pair.superseded.source) for pair in mining.superseded]
    assert (newer, older) == ("bob", "ann")


def test_the_same_reply_can_be_good_and_bad(runs: Any, chat: Any, mine: Any) -> None:
    for score in (1.0, 0.0, 1.0):
        runs.run(chat("2"), score=score)
    rows, mining = mine("kto")
    assert ([(row.label, row.count) for row in rows], mining.turns) == ([(True, 2), (False, 1)], 3)


def test_work_that_failed_can_only_be_a_bad_example(runs: Any, chat: Any, mine: Any) -> None:
    runs.run(chat("2"), score=1.0, status="failed")
    runs.run(chat("9"), score=0.0, status="failed")
    runs.run(chat("8"), score=0.0, status=None)
    rows, mining = mine("kto")
    assert [row.completion for row in rows] == ["9"]
    assert mining.refused == {"trajectory failed": 1, "trajectory unfinished": 1}


def test_what_nobody_judged_is_refused(runs: Any, chat: Any, mine: Any) -> None:
    runs.run(chat("2"))
    runs.run(chat("3"), score="good")
    trace_id, _ = runs.run(chat("4"))
    runs.label(trace_id, "thumbs", "up")
    trace_id, (span,) = runs.run(chat("5"), score=1.0)
    runs.label(trace_id, "edit", "2", span, source_type="human")
    rows, mining = mine("kto")
    assert (rows, mining.refused) == (
        [],
        {
            "no thumb and no label score": 1,
            "label score is no number": 1,
            "a thumb that is neither up nor down": 1,
            "corrected by a person": 1,
        },
    )


def test_a_reply_that_breaks_the_capture_contract_is_refused_whoever_liked_it(runs: Any, chat: Any, mine: Any) -> None:
    trace_id, _ = runs.run(chat("2", LOGPROBS=None), chat("3", failed=True), purpose="service")
    runs.label(trace_id, "thumbs", False)
    runs.run(chat("4"), score=1.0, purpose="gate")
    rows, mining = mine("kto")
    assert (rows, mining.refused) == ([], {"no logprobs": 1, "reply not usable": 1, "made for gate": 1})


def test_a_line_is_what_its_row_would_be_written_as(runs: Any, chat: Any, mine: Any, tmp_path: Any) -> None:
    for text in ("2", "2", '"span_ids":["x"]'):
        runs.run(chat(text), score=1.0)
    rows, _ = mine("kto")
    assert all(isinstance(row, KTOSample) for row in rows)
    assert (tmp_path / "rows.jsonl").read_bytes() == b"".join(map(sample_line, rows))
