"""A card is written with its dataset, and says what is in it."""

from pathlib import Path

import pytest

from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces import attributes as a
from journeyman.traces.errors import StoreError, TrainingError
from journeyman.training.data.datasets.card import Lengths, Profile, Provenance, card_path, read_card, write_card
from journeyman.training.data.datasets.rows import read_rows
from journeyman.training.data.samples import DatasetFile, sample_line, write_lines, write_samples

from .conftest import DOCUMENT, EACH, PAIR, sft


def profile_of(path: Path) -> Profile:
    profile = Profile()
    for row in read_rows(path):
        profile.add(row)
    return profile


def test_a_card_counts_what_its_rows_are(workspace: Workspace, tmp_path: Path) -> None:
    (workspace.root.parent / PROJECT_FILE).write_text('[traces]\nredact = ["keys", "email"]\n')
    path = tmp_path / "rows.jsonl"
    tokens = {"prompt_token_ids": (1, 2, 3), "token_ids": (4, 5), "weight": 0.5, "prompt_form": "f" * 16}
    digest = write_samples([sft(1), sft(2, policy="clerk@1", origin="service", **tokens)], path)
    made = Provenance.now(workspace, {"min_score": 0.5})
    card = profile_of(path).card(digest, made, turns=3, refused={"empty reply": 4})
    assert (card.kind, card.rows, card.turns, card.runs, card.spans, card.weight) == ("sft", 2, 3, 2, 2, 1.5)
    assert card.agents == {"clerk": 2}
    assert card.origins == {"teacher": 1, "service": 1} and card.policies == {"teacher": 1, "clerk@1": 1}
    assert card.prompt_tokens == Lengths(measured=1, total=3, median=3, p90=3, longest=3)
    assert card.reply_tokens is not None and card.reply_tokens.total == 2
    assert (card.refused, card.made_by) == ({"empty reply": 4}, {"min_score": 0.5})
    assert (card.content, card.redact, card.prompt_forms) == ("full", ("keys", "email"), ("f" * 16,))
    assert card.journeyman is not None and card.made_ns is not None
    write_card(card, path)
    assert read_card(path) == card


@pytest.mark.parametrize("kind", EACH)
def test_every_kind_of_row_has_a_card(workspace: Workspace, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rows.jsonl"
    digest = write_samples([EACH[kind]], path)
    card = profile_of(path).card(digest, Provenance(workspace.store), turns=1, refused={})
    assert (card.kind, card.rows, card.agents) == (kind, 1, {"clerk": 1})


def test_a_pair_counts_both_its_sides(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    digest = write_samples([PAIR], path)
    card = profile_of(path).card(digest, Provenance(workspace.store), turns=2, refused={})
    assert (card.policies, card.runs, card.spans) == ({"person": 1, "clerk@1": 1}, 2, 2)


def test_licences_and_terms_of_the_policies_are_noted(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    recording = Recording(workspace)
    with recording.tracer.span("run", parent=None, attributes={a.OPERATION: "invoke_workflow"}) as run:
        for policy, terms in (("teacher", "no competing models"), ("other", "none")):
            said = {a.OPERATION: "chat", a.REQUEST_MODEL: policy, a.TERMS: terms}
            with recording.tracer.span("chat", parent=run, attributes=said):
                pass
    recording.close()
    digest = write_samples([DOCUMENT, sft(1, trace_id=run.trace_id)], path)
    card = profile_of(path).card(digest, Provenance(workspace.store), turns=1, refused={})
    assert card.notes == ("licence: CC0", "terms of teacher: no competing models")


def test_a_kill_between_card_and_dataset_leaves_no_dataset_without_its_card(tmp_path: Path) -> None:
    def killed(file: DatasetFile) -> None:
        card_path(file.path).write_text("card")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lines([sample_line(sft(1))], tmp_path, lambda digest: "rows.jsonl", killed)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl.card.json"]


def test_another_dataset_never_takes_the_name_of_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_samples([sft(1)], path)
    write_samples([sft(1)], path)
    with pytest.raises(TrainingError, match="another dataset, and a dataset never changes: choose another name"):
        write_samples([sft(2)], path)


def test_a_file_that_is_no_card_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    card_path(path).write_text("[]")
    with pytest.raises(StoreError, match=r"rows\.jsonl\.card\.json isn't a card: remove it"):
        read_card(path)
