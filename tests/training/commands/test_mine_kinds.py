"""`journeyman mine --kind`: one command for every kind of rows."""

from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces.errors import ConfigError
from journeyman.training.data.samples import DocumentSample, read_samples


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "mars.md").write_text("Mars has two moons.\n\nPhobos is one.\n\nPhobos is one.")
    return tmp_path / "texts"


def test_documents_need_no_record(run: Any, texts: Path) -> None:
    told = run.json("mine", "--agent", "clerk", "--kind", "documents", "--documents", str(texts), "--licence", "CC0")
    (row,) = read_samples(Path(told["path"]), DocumentSample)
    assert (row.agent, row.licence, row.text) == ("clerk", "CC0", "Mars has two moons.\n\nPhobos is one.")
    assert (told["counts"], told["refused"]) == ({"origin": {"folder": 1}}, {"came before": 1})
    shown = run("mine", "--agent", "clerk", "--kind", "documents", "--documents", str(texts), "--licence", "CC0").output
    assert "1 rows from 2 paragraphs; 1 paragraphs refused" in shown
    assert "origin: folder 1" in shown


def test_a_folder_without_text_is_one_line(run: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    asked = ("mine", "--agent", "a", "--kind", "documents", "--documents", str(tmp_path / "empty"), "--licence", "x")
    assert str(run.error(*asked)) == "no paragraph became a sample: there is no text"


def test_options_of_documents_are_of_no_other_kind(run: Any, texts: Path) -> None:
    refused = run.error("mine", "--agent", "clerk", "--documents", str(texts))
    assert isinstance(refused, ConfigError)
    assert str(refused) == "--documents and --licence are for --kind documents: add it, or leave them out"


def test_a_kind_that_nobody_knows_is_named(run: Any) -> None:
    told = str(run.error("mine", "--agent", "clerk", "--kind", "dpo"))
    assert told == "--kind dpo: there are no such rows; have sft, preference, kto, prompts, documents"


@pytest.mark.parametrize("kind", ["sft", "preference", "kto", "prompts"])
def test_a_workspace_that_keeps_only_digests_says_so_in_the_same_line_for_every_kind(
    run: Any, files: list[str], url: str, workspace: Workspace, kind: str
) -> None:
    (workspace.root.parent / PROJECT_FILE).write_text('[traces]\ncontent = "digest"\n')
    result = run("run", *files, "--out", str(workspace.root / "out.jsonl"), "--attach", url)
    assert result.exit_code == 0, result.output
    mined = run("mine", "--agent", "worker", "--kind", kind)
    assert 'training needs the texts: set `content = "full"` in `[traces]` of journeyman.toml' in mined.stderr
    assert "content not recorded (24)" in str(mined.exception)
