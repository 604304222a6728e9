"""Datasets by name and digest, and those that were changed."""

from pathlib import Path

import pytest

from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError, TrainingError
from journeyman.training.data.datasets.card import card_path, read_card
from journeyman.training.data.datasets.shelf import list_datasets, open_dataset, shelve
from journeyman.training.data.samples import write_samples

from .conftest import WriteRows, sft


def test_a_dataset_is_named_by_path_by_name_and_by_the_start_of_its_digest(
    workspace: Workspace, write_rows: WriteRows
) -> None:
    path = write_rows("clerk.jsonl", sft(1))
    digest = open_dataset(workspace, path).digest
    for name in (path, "clerk.jsonl", "clerk", digest, digest[:8]):
        assert open_dataset(workspace, name).path == path


def test_a_digest_of_two_files_and_a_name_of_nothing_are_refused(workspace: Workspace, write_rows: WriteRows) -> None:
    digest = open_dataset(workspace, write_rows("one.jsonl", sft(1))).digest
    write_rows("two.jsonl", sft(1))
    with pytest.raises(ConfigError, match=r"2 datasets have a digest .*one\.jsonl, two\.jsonl\): give its name"):
        open_dataset(workspace, digest[:8])
    with pytest.raises(ConfigError, match="there is no dataset 'three': name a file"):
        open_dataset(workspace, "three")


def test_a_file_that_was_changed_is_refused_by_its_digest(workspace: Workspace, write_rows: WriteRows) -> None:
    path = write_rows("clerk.jsonl", sft(1))
    path.write_bytes(path.read_bytes().replace(b"Answer 1", b"Answer 2"))
    with pytest.raises(TrainingError, match=r"was changed after it was made .* or remove clerk\.jsonl\.card\.json"):
        open_dataset(workspace, path)
    assert [one.state for one in list_datasets(workspace)] == ["changed"]
    card_path(path).unlink()
    assert open_dataset(workspace, path).state == "no card"


def test_a_dataset_from_before_there_were_cards_is_listed_by_what_its_rows_tell(
    workspace: Workspace, write_rows: WriteRows
) -> None:
    path = write_rows("old.jsonl", sft(1, origin=None), card=False)
    path.write_bytes(path.read_bytes().replace(b'"kind":"sft",', b""))
    (listed,) = list_datasets(workspace)
    assert listed.card is not None
    assert (listed.state, listed.card.kind, listed.card.rows) == ("no card", "sft", 1)
    assert (listed.card.policies, listed.card.turns, listed.card.journeyman) == ({"teacher": 1}, None, None)


@pytest.mark.parametrize("contents", [b"[1]\n", b"{\n", b'{"messages": 1}\n', b'{"span_ids": 4}\n'])
def test_a_file_of_something_else_is_listed_with_its_fault(workspace: Workspace, contents: bytes) -> None:
    workspace.datasets.mkdir()
    (workspace.datasets / "x.jsonl").write_bytes(contents)
    (listed,) = list_datasets(workspace)
    assert listed.state == "damaged" and listed.fault is not None and "line 1" in listed.fault


def test_what_is_trained_on_is_kept_in_the_workspace_with_its_card(
    workspace: Workspace, write_rows: WriteRows, tmp_path: Path
) -> None:
    inside = write_rows("clerk.jsonl", sft(1))
    elsewhere = tmp_path / "rows.jsonl"
    inside.rename(elsewhere)
    card_path(inside).rename(card_path(elsewhere))
    kept = shelve(workspace, open_dataset(workspace, elsewhere), "clerk")
    assert kept.path == workspace.datasets / f"clerk-{kept.digest[:12]}.jsonl"
    assert read_card(kept.path) == kept.card
    assert shelve(workspace, open_dataset(workspace, elsewhere), "clerk").path == kept.path
    assert len(list_datasets(workspace)) == 1


def test_a_file_without_a_card_is_kept_without_one(workspace: Workspace, tmp_path: Path) -> None:
    write_samples([sft(1)], tmp_path / "rows.jsonl")
    kept = shelve(workspace, open_dataset(workspace, tmp_path / "rows.jsonl"), "clerk")
    assert not card_path(kept.path).exists()
