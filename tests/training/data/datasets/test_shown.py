"""Rows as a person looks at them: filtered, and in full with what is learned."""

from pathlib import Path

import pytest

from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.workspace import Workspace
from journeyman.traces import attributes as a
from journeyman.traces.errors import ConfigError
from journeyman.training.data.datasets.shown import RowFilter, row_lines, whole_row
from journeyman.training.methods.renderer import ModelRenderer

from .conftest import DOCUMENT, EACH, PAIR, PROMPT, WriteRows, sft


def numbers(workspace: Workspace, path: Path, **wanted: str) -> list[int]:
    return [line.number for line in row_lines(path, RowFilter(**wanted), workspace.store)]


def test_rows_are_filtered_by_each_condition_and_by_all(workspace: Workspace, write_rows: WriteRows) -> None:
    path = write_rows("rows.jsonl", sft(1), sft(2, policy="clerk@1", origin="service"), PAIR, DOCUMENT)
    assert numbers(workspace, path) == [1, 2, 3, 4]
    assert numbers(workspace, path, policy="clerk@1") == [2, 3], "of either side of a pair"
    assert numbers(workspace, path, origin="service") == [2]
    assert numbers(workspace, path, contains="QUESTION") == [1, 2]
    assert numbers(workspace, path, contains="long ago") == [4]
    assert numbers(workspace, path, policy="clerk@1", contains="that") == [3]


def test_rows_are_filtered_by_the_family_of_their_task(workspace: Workspace, write_rows: WriteRows) -> None:
    with Recording(workspace) as recording:
        known = {a.OPERATION: "invoke_workflow", a.TASK_FAMILY: "orders"}
        with recording.tracer.span("run", parent=None, attributes=known) as run:
            pass
    path = write_rows("rows.jsonl", sft(1), sft(2, trace_id=run.trace_id))
    (line,) = row_lines(path, RowFilter(family="orders"), workspace.store)
    assert (line.number, line.family) == (2, "orders")


def test_a_row_in_full_marks_what_is_learned(write_rows: WriteRows) -> None:
    path = write_rows("rows.jsonl", *EACH.values())
    shown = {row.number: row for row in (whole_row(path, number, None) for number in range(1, 6))}
    assert [[(piece.text, piece.learned) for piece in masked.pieces] for masked in shown[1].masked] == [
        [
            ("user: Weather?", False),
            ('assistant: \nlook_up({"city":"Rome"})', False),
            ("tool: sunny", False),
            ('look_up({"city":"Rome"})', True),
        ]
    ]
    assert [(masked.side, masked.pieces[-1].text) for masked in shown[2].masked] == [
        ("chosen", "This"),
        ("rejected", "That"),
    ]
    assert [(masked.side, masked.learned) for number in (3, 4, 5) for masked in shown[number].masked] == [
        ("reply", 1),
        ("prompt", 0),
        ("document", 1),
    ]
    with pytest.raises(ConfigError, match="has no row 6: its last row is 5"):
        whole_row(path, 6, None)


def test_a_row_is_shown_in_the_tokens_that_training_shows(write_rows: WriteRows, embedded_model: Path) -> None:
    from journeyman.training.methods.rows import read_tokenizer, stops_of
    from journeyman.training.methods.rows import write_rows as write

    path = write_rows("rows.jsonl", sft(1), EACH["sft"], PROMPT)
    whole = whole_row(path, 1, ModelRenderer(embedded_model))
    (masked,) = whole.masked
    tokenizer = read_tokenizer(embedded_model)
    (trained,) = write([sft(1)], tokenizer, stops_of(embedded_model, tokenizer))
    assert [piece.token_id for piece in masked.pieces] == trained["input_ids"]
    assert [int(piece.learned) for piece in masked.pieces] == trained["completion_mask"]
    assert "".join(piece.text for piece in masked.pieces if piece.learned).startswith("Answer 1")
    unwritable = whole_row(path, 2, ModelRenderer(embedded_model))
    assert "leaves tool calls out" in (unwritable.without_tokens or "")
    assert unwritable.masked[0].learned == 1
