"""A row is read as far as choosing needs it, of whatever kind it is."""

import json
from typing import Any

from journeyman.training.data.choosing.row import Row


def line(**values: Any) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


ASKED = [{"role": "system", "content": "Answer."}, {"role": "user", "content": 'what is "token_ids":[1,2] for?'}]
SIDES: dict[str, Any] = {
    "chosen": {"policy": "worker@2", "trace_id": "b", "span_ids": ["2"], "completion": "yes", "token_ids": [4, 5, 6]},
    "rejected": {"policy": "base", "trace_id": "c", "span_ids": ["3"], "completion": "no"},
}


def test_of_token_ids_there_is_their_number() -> None:
    row = Row(line(messages=ASKED, completion="x", prompt_token_ids=[1, 2, 3], token_ids=[4]))
    assert (row.tokens, row.sampled) == (4, True)
    assert [message["content"] for message in row.asked] == ['what is "token_ids":[1,2] for?']


def test_without_tokens_the_length_is_estimated_from_the_letters() -> None:
    row = Row(line(messages=[{"role": "user", "content": "x" * 300}], completion="y" * 30))
    assert (row.tokens, row.sampled) == (110, False)


def test_a_pair_is_its_better_side_and_holds_what_both_say() -> None:
    row = Row(line(kind="preference", trace_id="b", messages=ASKED, prompt_token_ids=[1, 2], **SIDES))
    assert (row.policy, row.sampled, row.trace_ids, row.tokens) == ("worker@2", True, ["b", "b", "c"], 5)
    assert {"yes", "no"} <= set(row.texts())


def test_a_document_is_all_to_be_read() -> None:
    row = Row(line(kind="documents", origin="folder", text="Io is a moon."))
    assert (row.told, row.trace_id, row.trace_ids) == (["Io is a moon."], None, [])


def test_rows_that_say_the_same_have_one_digest_whatever_runs_they_are_from() -> None:
    first = line(trace_id="a", span_ids=["1"], weight=1.0, messages=ASKED, completion="x")
    again = line(trace_id="b", span_ids=["2", "3"], weight=2.0, messages=ASKED, completion="x")
    assert Row(first).digest == Row(again).digest != Row(line(messages=ASKED, completion="y")).digest
    other = {**SIDES, "rejected": SIDES["rejected"] | {"span_ids": ["9"]}}
    assert Row(line(messages=ASKED, **SIDES)).digest == Row(line(messages=ASKED, **other)).digest
