"""Datasets come back as they were written, whole or not at all."""

import json
import re
import resource
from hashlib import sha256
from pathlib import Path

import pytest
from pydantic import ValidationError

from journeyman.traces.errors import ConfigError, StoreError, TrainingError
from journeyman.traces.messages import Message
from journeyman.training.data.samples import (
    RECORDS,
    KTOSample,
    PreferenceSample,
    Sample,
    SFTSample,
    Side,
    digest_samples,
    read_samples,
    write_samples,
)

README = Path(__file__).parents[3] / "training" / "data" / "README.md"

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


SIDE = Side(policy="base", trace_id="t1", span_ids=("s1",), completion="a", token_ids=(3,))
PAIR = PreferenceSample(
    agent="worker",
    origin="sampled",
    margin=1.0,
    trace_id="t1",
    span_ids=("s1", "s2"),
    messages=TEXT.messages,
    prompt_token_ids=(1, 2),
    chosen=SIDE,
    rejected=SIDE.model_copy(update={"completion": "b"}),
)
KTO = KTOSample.model_validate(
    TEXT.model_dump(exclude={"edited_by"}) | {"kind": "kto", "label": False, "origin": "thumbs"}
)


@pytest.mark.parametrize("sample", [TEXT, PAIR, KTO], ids=lambda sample: sample.kind)
def test_a_file_is_read_as_what_its_rows_say_that_they_are(tmp_path: Path, sample: Sample) -> None:
    write_samples([sample, sample], tmp_path / "rows.jsonl")
    assert read_samples(tmp_path / "rows.jsonl") == [sample, sample]


def test_rows_from_before_there_were_kinds_are_read_and_keep_their_digest(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    old = (
        '{"kind":"sft","version":1,"agent":"worker","policy":"base","trace_id":"t","span_ids":["s"],"weight":1.0,'
        '"messages":[{"role":"user","content":"?","tool_calls":[]}],"completion":"!",'
        '"prompt_token_ids":[1],"token_ids":[2]}\n'
    )
    path.write_text(old)
    assert digest_samples(read_samples(path)) == sha256(old.encode()).hexdigest()
    path.write_text(old.replace('"kind":"sft",', ""))
    (sample,) = read_samples(path, SFTSample)
    assert sample.origin is None


def test_a_file_of_several_kinds_is_refused(tmp_path: Path) -> None:
    write_samples([TEXT, PAIR], tmp_path / "rows.jsonl")
    with pytest.raises(TrainingError, match="several kinds, sft, preference: mine each into its own file"):
        read_samples(tmp_path / "rows.jsonl")


def test_a_file_of_another_kind_than_is_wanted_is_refused(tmp_path: Path) -> None:
    write_samples([PAIR], tmp_path / "rows.jsonl")
    with pytest.raises(TrainingError, match=r"rows of kind preference, not sft: mine some with --kind sft$"):
        read_samples(tmp_path / "rows.jsonl", SFTSample)


def test_a_kind_that_nobody_knows_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"kind": "dpo"}\n')
    with pytest.raises(TrainingError, match="line 1: there are no rows of kind 'dpo'; have sft, preference, kto"):
        read_samples(tmp_path / "rows.jsonl")


def test_the_sides_of_a_pair_differ(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="must differ"):
        PreferenceSample.model_validate(PAIR.model_dump() | {"rejected": SIDE.model_dump()})
    with pytest.raises(ValidationError, match="given together"):
        PreferenceSample.model_validate(PAIR.model_dump() | {"prompt_token_ids": None})


def test_the_rows_that_the_page_shows_are_rows_of_their_kinds() -> None:
    shown = re.findall(r"^```jsonl\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    rows = [RECORDS[json.loads(row)["kind"]].model_validate_json(row) for row in shown]
    assert {row.kind for row in rows} == RECORDS.keys() - {"sft"}
