"""Texts of a folder, or of what a crew looks up, are packed into rows with their licence."""

from pathlib import Path
from typing import Any

import pytest

from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.data.choosing.choose import Choosing
from journeyman.training.data.corpus import Corpus, find_corpus, token_count
from journeyman.training.data.documents import DocumentMining
from journeyman.training.data.mine import mine_to_file
from journeyman.training.data.samples import DocumentSample, read_samples
from journeyman.training.data.tasks.heldout import HeldOut

SAMPLES = "no such model"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.md").write_text("# Mars\n\nMars has two moons.\n\n\nPhobos is one.\n")
    (folder / "deep" / "b.txt").write_text("Deimos is the other.\n\nPhobos is one.")
    (folder / "c.bin").write_text("no text")
    return folder


def mined(runs: Any, corpus: Corpus, folder: Path, **source: Any) -> tuple[list[DocumentSample], DocumentMining]:
    asked = runs.source(**source)._replace(corpus=corpus)
    mining = DocumentMining(asked)
    dataset = mine_to_file(mining, folder, lambda digest: "rows.jsonl", Choosing(asked))
    return ([] if dataset is None else read_samples(dataset.path, DocumentSample)), mining


def test_paragraphs_fill_a_row_and_go_on_in_the_next(runs: Any, texts: Path, tmp_path: Path) -> None:
    corpus = Corpus("folder", (texts,), "CC0", tokens=12)
    rows, mining = mined(runs, corpus, tmp_path)
    assert [row.text for row in rows] == [
        "# Mars\n\nMars has two moons.",
        "Phobos is one.\n\nDeimos is the other.",
    ]
    assert [row.sources for row in rows] == [("a.md",), ("a.md", "deep/b.txt")]
    assert {(row.licence, row.tokens, row.agent, row.origin) for row in rows} == {("CC0", None, "worker", "folder")}
    assert (mining.turns, mining.refused, mining.counts) == (4, {"came before": 1}, {"origin": {"folder": 2}})


def test_a_paragraph_longer_than_a_row_is_cut_between_words(runs: Any, tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(40)]
    (tmp_path / "long.txt").write_text(" ".join(words))
    corpus = Corpus("folder", (tmp_path / "long.txt",), "CC0", tokens=16, tokens_of=lambda text: len(text.split()))
    rows, _ = mined(runs, corpus, tmp_path)
    assert " ".join(row.text for row in rows).split() == words
    assert max(row.tokens or 0 for row in rows) <= 16


def test_text_that_asks_a_held_out_task_is_refused(runs: Any, texts: Path, tmp_path: Path) -> None:
    question = "Which are the two moons of Mars, and which one is nearer?"
    (texts / "d.md").write_text(f"Quiz of the day.\n\n{question} Answer below.")
    (texts / "e.md").write_text("Which are the two moons of Mars,\n\nand which one is nearer?")
    held_out = HeldOut({"gate": [Task(id="g", prompt=question)]}, 0.7)
    rows, mining = mined(runs, Corpus("folder", (texts,), "CC0", tokens=1024), tmp_path, held_out=held_out)
    assert not any("nearer" in row.text for row in rows)
    assert "shares a question with gate" in mining.refused


def test_a_crews_own_corpus_is_what_its_agent_looks_up(runs: Any, texts: Path, tmp_path: Path) -> None:
    crew = tmp_path / "crew.toml"
    crew.write_text(
        'name = "c"\n[workers.worker]\ntools = ["papers"]\n[workers.other]\n'
        '[tools.papers]\nuse = "retrieve"\npath = "texts"\n'
    )
    corpus = find_corpus(None, crew, "worker", "own", 1024, SAMPLES)
    rows, _ = mined(runs, corpus, tmp_path)
    assert [(row.origin, row.licence) for row in rows] == [("corpus", "own")]
    with pytest.raises(ConfigError, match="other has no tool with use = 'retrieve': name --documents FOLDER"):
        find_corpus(None, crew, "other", "own", 1024, SAMPLES)
    with pytest.raises(ConfigError, match="has no worker 'clerk'; it has: worker, other"):
        find_corpus(None, crew, "clerk", "own", 1024, SAMPLES)


def test_a_corpus_needs_texts_and_a_licence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs texts: --documents FOLDER, or --crew FILE"):
        find_corpus(None, None, "worker", "own", 1024, SAMPLES)
    with pytest.raises(ConfigError, match="needs --licence TEXT: what the owner"):
        find_corpus(tmp_path, None, "worker", " ", 1024, SAMPLES)
    with pytest.raises(ConfigError, match="there is no such folder; check the path"):
        find_corpus(tmp_path / "none", None, "worker", "own", 1024, SAMPLES)


def test_tokens_are_the_base_models_where_its_tokenizer_is_at_hand(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"Mars": 0, "has": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    count = token_count(str(tmp_path))
    assert count is not None and count("Mars has moons") == 3
    assert token_count(str(tmp_path / "none")) is None
