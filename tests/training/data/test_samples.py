"""Datasets come back as they were written, whole or not at all."""

import resource
from pathlib import Path

import pytest
from pydantic import ValidationError

from journeyman.traces.errors import ConfigError, StoreError, TrainingError
from journeyman.traces.messages import Message
from journeyman.training.data.samples import SFTSample, digest_samples, read_samples, write_samples

# Python's splitlines would break a row at the line separators of Unicode, which JSON leaves as they are.
TEXT = SFTSample(
    agent="worker",
    policy="teacher",
    trace_id="t1",
    span_ids=("s1", "s2"),
    messages=(Message(role="user", content="zwölf\u2028\x85plus\nfour?"),),
    completion='{"answer": "16"}',
)
TOKENS = TEXT.model_copy(update={"prompt_token_ids": (1, 2), "token_ids": (3, 4), "weight": 0.5, "span_ids": ("s3",)})


def test_samples_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    digest = write_samples([TEXT, TOKENS], path)
    assert read_samples(path) == [TEXT, TOKENS]
    assert digest == digest_samples([TEXT, TOKENS]) != digest_samples([TOKENS, TEXT])
    assert [file.name for file in path.parent.iterdir()] == ["rows.jsonl"]


def test_a_sample_knows_how_often_it_was_seen() -> None:
    assert (TEXT.count, TOKENS.count) == (2, 1)


def test_token_ids_come_with_those_of_their_prompt() -> None:
    with pytest.raises(ValidationError, match="given together"):
        SFTSample.model_validate(TEXT.model_dump() | {"token_ids": (3, 4)})


@pytest.mark.parametrize(
    ("line", "complaint"),
    [("{", "EOF"), ('{"agent": "worker"}', "'policy' is missing"), ('{"agents": 1}', "did you mean 'agent'")],
)
def test_a_broken_line_is_named_by_its_number(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "rows.jsonl"
    write_samples([TEXT], path)
    path.write_text(path.read_text() + "\n" + line + "\n")
    with pytest.raises(TrainingError, match=f"line 3: .*{complaint}"):
        read_samples(path)


def test_a_missing_dataset_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such dataset"):
        read_samples(tmp_path / "none.jsonl")


def test_a_full_disk_leaves_the_old_dataset_and_nothing_half_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_samples([TEXT], path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(StoreError, match="was not written: File too large"):
            write_samples([TOKENS], path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_samples(path) == [TEXT]
    assert list(tmp_path.iterdir()) == [path]
