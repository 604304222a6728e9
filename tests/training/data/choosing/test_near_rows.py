"""Of rows that are nearly the same one stays, whichever stood first."""

import json
from hashlib import sha256
from random import Random

from journeyman.training.data.choosing.entries import Entry, RunOf
from journeyman.training.data.choosing.near_rows import NearRows
from journeyman.training.data.choosing.row import Row
from journeyman.training.data.choosing.sketch import sketch

LONG = "The customer of the north asked on Monday when the parcel with the two lamps would arrive in Leeds. "
ANSWER = "It left the store on Friday and arrives on Tuesday before noon."


def row(number: int, *told: str, completion: str = ANSWER) -> Entry:
    messages = [{"role": "system", "content": LONG}, *({"role": "user", "content": text} for text in told)]
    read = Row(json.dumps({"messages": messages, "completion": completion}).encode())
    order = sha256(read.digest).digest()[:8]
    return Entry(
        number=number,
        order=order,
        origin=None,
        policy=None,
        sampled=False,
        trace_id=None,
        run=RunOf(),
        score=None,
        sketch=sketch(read),
    )


def test_a_row_with_one_other_word_is_near_and_one_of_another_question_is_not() -> None:
    rows = [row(0, LONG * 2), row(1, LONG * 2 + "Thanks!"), row(2, "Who painted the moons of Mars in 1911?")]
    left_out = NearRows(0.9)(rows).left_out
    assert len(left_out.keys() & {0, 1}) == 1
    assert left_out.keys() <= {0, 1}
    assert {*left_out.values()} == {"near another row"}


def test_rows_of_one_task_that_were_told_something_else_last_are_not_near() -> None:
    rows = [row(0, LONG, "found: 3 lamps", completion="call b"), row(1, LONG, "error 17 of b", completion="give up")]
    assert NearRows(0.9)(rows).left_out == {}


def test_which_row_stays_does_not_depend_on_their_order() -> None:
    rows = [row(number, LONG * 3 + f"Case {number // 4}-{number}.") for number in range(12)]
    first = NearRows(0.8)(rows).left_out
    Random(1).shuffle(rows)
    assert first
    assert NearRows(0.8)(rows).left_out.keys() == first.keys()
