"""Exports are read by the programs that they are for."""

import json
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.training.data.datasets.card import read_card
from journeyman.training.data.datasets.export import FORMS, Form, export
from journeyman.training.data.datasets.shelf import open_dataset

from .conftest import DOCUMENT, EACH, HISTORY, PAIR, PROMPT, THUMB, WriteRows, sft

pytestmark = pytest.mark.filterwarnings("ignore")

CALLS = EACH["sft"]


def loaded(path: Path, form: str = "json") -> list[dict[str, Any]]:
    from datasets import load_dataset  # type: ignore[import-untyped]

    return list(load_dataset(form, data_files=str(path), split="train", cache_dir=str(path.parent / "cache")))


def exported(workspace: Workspace, path: Path, form: Form) -> Path:
    to = workspace.root / f"out.{form}"
    export(open_dataset(workspace, path), form, to)
    return to


def test_trl_reads_each_kind_as_the_type_it_is_for(workspace: Workspace, write_rows: WriteRows) -> None:
    from trl.data_utils import is_conversational

    shapes = {"sft": {"prompt", "completion", "tools"}, "preference": {"prompt", "chosen", "rejected"}}
    shapes |= {"kto": {"prompt", "completion", "label"}, "prompts": {"prompt"}}
    for kind, keys in shapes.items():
        (row,) = loaded(exported(workspace, write_rows(f"{kind}.jsonl", EACH[kind]), "trl"))
        assert set(row) == keys and is_conversational(row), kind
    (text,) = loaded(exported(workspace, write_rows("documents.jsonl", DOCUMENT), "trl"))
    assert text == {"text": "Long ago."}


def test_trl_renders_an_export_to_the_tokens_that_we_train_on(
    workspace: Workspace, write_rows: WriteRows, embedded_model: Path
) -> None:
    from trl.data_utils import apply_chat_template

    from journeyman.training.methods.rows import read_tokenizer, stops_of
    from journeyman.training.methods.rows import write_rows as write

    tokenizer = read_tokenizer(embedded_model)
    (row,) = loaded(exported(workspace, write_rows("sft.jsonl", sft(1)), "trl"))
    theirs = apply_chat_template(row, tokenizer)
    (ours,) = write([sft(1)], tokenizer, stops_of(embedded_model, tokenizer))
    text = str(tokenizer.decode(ours["input_ids"]))
    assert f"{theirs['prompt']}{theirs['completion']}" == text + "\n", (
        "after the end of the turn, which no server sends"
    )


def test_calls_whose_arguments_differ_come_back_as_they_were(workspace: Workspace, write_rows: WriteRows) -> None:
    path = write_rows("rows.jsonl", CALLS, sft(2), sft(3, messages=HISTORY))
    first, second, third = loaded(exported(workspace, path, "trl"))
    (call,) = first["completion"][0]["tool_calls"]
    assert call["function"] == {"name": "look_up", "arguments": {"city": "Rome"}}
    assert json.loads(first["tools"])[0]["function"]["name"] == "look_up"
    assert second["completion"] == [{"role": "assistant", "content": "Answer 2"}]
    assert third["prompt"][2] == {"role": "tool", "content": "sunny", "tool_call_id": "c1"}


def test_openai_gets_chats_of_which_only_the_reply_has_weight(workspace: Workspace, write_rows: WriteRows) -> None:
    path = exported(workspace, write_rows("rows.jsonl", CALLS), "openai")
    row = json.loads(path.read_text())
    assert set(row) == {"messages", "tools"}
    user, called, result, reply = row["messages"]
    assert (user, result["role"]) == ({"role": "user", "content": "Weather?"}, "tool")
    assert called["weight"] == 0 and "weight" not in reply
    assert reply["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"city":"Rome"}'}}
    ]
    assert row["tools"][0]["type"] == "function" and row["tools"][0]["function"]["name"] == "look_up"


def test_openai_gets_pairs_as_two_outputs_of_one_input(workspace: Workspace, write_rows: WriteRows) -> None:
    row = json.loads(exported(workspace, write_rows("rows.jsonl", PAIR), "openai").read_text())
    assert row["preferred_output"] == [{"role": "assistant", "content": "This"}]
    assert row["non_preferred_output"] == [{"role": "assistant", "content": "That"}]
    assert [message["role"] for message in row["input"]["messages"]] == ["system", "user"]


@pytest.mark.parametrize("sample", [THUMB, PROMPT, DOCUMENT])
def test_openai_has_no_form_for_the_other_kinds(workspace: Workspace, write_rows: WriteRows, sample: Any) -> None:
    with pytest.raises(ConfigError, match=f"no form for rows of kind {sample.kind}: choose another --as"):
        exported(workspace, write_rows("rows.jsonl", sample), "openai")


def test_datasets_and_parquet_have_the_same_columns_where_they_came_from_included(
    workspace: Workspace, write_rows: WriteRows
) -> None:
    path = write_rows("rows.jsonl", *EACH.values())
    lines = loaded(exported(workspace, path, "datasets"))
    columns = loaded(exported(workspace, path, "parquet"), "parquet")
    assert lines == columns
    sample, pair, thumb, prompt, document = columns
    assert sample["span_ids"] == [f"{1:016x}"] and sample["prompt"][2]["tool_call_id"] == "c1"
    assert (pair["chosen"], pair["rejected"], thumb["label"]) == ("This", "That", False)
    assert (prompt["completion"], document["text"]) == (None, "Long ago.")


@pytest.mark.parametrize("form", FORMS)
def test_an_export_has_a_card_and_is_no_dataset(workspace: Workspace, write_rows: WriteRows, form: Form) -> None:
    dataset = open_dataset(workspace, write_rows("rows.jsonl", sft(1)))
    to = exported(workspace, dataset.path, form)
    card = read_card(to)
    assert card is not None and (card.form, card.exported_from, card.rows) == (form, dataset.digest, 1)
    with pytest.raises(ConfigError, match=f"an export for {form}: name the dataset, {dataset.digest[:12]}"):
        open_dataset(workspace, to)


def test_a_disk_that_refuses_leaves_nothing(workspace: Workspace, write_rows: WriteRows) -> None:
    dataset = open_dataset(workspace, write_rows("rows.jsonl", sft(1)))
    (workspace.root / "file").write_text("")
    with pytest.raises(StoreError, match=r"was not written: .*; name another --out"):
        export(dataset, "trl", workspace.root / "file" / "out.jsonl")
