"""Which rows came, went and changed."""

from journeyman.training.data.datasets.diff import ChangedRow, diff
from journeyman.training.data.samples import Side

from .conftest import DOCUMENT, PAIR, WriteRows, sft


def test_rows_that_came_went_changed_and_moved_are_told_apart(write_rows: WriteRows) -> None:
    before = write_rows("a.jsonl", sft(1), sft(2), sft(3))
    after = write_rows("b.jsonl", sft(4), sft(2, weight=2.0), sft(1))
    found = diff(before, after)
    assert (found.same, found.came, found.went) == (1, (1,), (3,))
    assert found.changed == (ChangedRow(before=2, after=2, fields=("weight",)),)


def test_a_row_that_is_there_twice_counts_twice(write_rows: WriteRows) -> None:
    found = diff(write_rows("a.jsonl", sft(1), sft(1), sft(2)), write_rows("b.jsonl", sft(1)))
    assert (found.same, found.went, found.came, found.changed) == (1, (2, 3), (), ())


def test_pairs_are_the_same_by_both_sides_and_documents_by_their_source(write_rows: WriteRows) -> None:
    other = Side(policy="clerk@1", trace_id="3" * 32, span_ids=("3" * 16,), completion="Those")
    before = write_rows("a.jsonl", PAIR, DOCUMENT)
    after = write_rows(
        "b.jsonl",
        PAIR.model_copy(update={"rejected": other}),
        DOCUMENT.model_copy(update={"text": "Longer ago."}),
    )
    found = diff(before, after)
    assert (found.came, found.went) == ((1,), (1,))
    assert found.changed == (ChangedRow(before=2, after=2, fields=("text",)),)
