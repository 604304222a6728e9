"""Checkpoints: the newest whole one counts, torn ones go; an unfinished training holds its number and its work."""

from pathlib import Path

import pytest

from journeyman.traces.errors import TrainingError
from journeyman.training.methods.checkpoints import last_whole, mark_whole, partial_of, reserve
from journeyman.training.methods.job import Job


def test_the_newest_whole_checkpoint_is_gone_on_from_and_torn_ones_are_removed(tmp_path: Path) -> None:
    for step in (2, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
    mark_whole(tmp_path, 2, 1.5)
    mark_whole(tmp_path, 10, 7.5)
    checkpoint = last_whole(tmp_path)
    assert checkpoint is not None and (checkpoint.step, checkpoint.seconds) == (10, 7.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2"]


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert last_whole(tmp_path / "nowhere") is None


def job(recipe: str) -> str:
    told = Job(agent="worker", parent="base", base_digest="b", dataset_digest="d", recipe_digest=recipe)
    return told.model_dump_json()


def begin(adapters: Path, recipe: str, said: list[str], *, discard: bool = False, number: int | None = None) -> str:
    policy = reserve(adapters, "worker", job(recipe), number, discard=discard, say=said.append)
    checkpoint = partial_of(adapters, policy) / "checkpoints" / "checkpoint-7"
    checkpoint.mkdir(parents=True, exist_ok=True)
    mark_whole(checkpoint.parent, 7, 1.0)
    return policy


def test_each_unfinished_job_keeps_its_number_and_its_checkpoints(tmp_path: Path) -> None:
    said: list[str] = []
    assert begin(tmp_path, "one", said) == "worker@1" and said == []
    assert begin(tmp_path, "two", said) == "worker@2"
    assert said == [
        "worker@1 is unfinished at step 7, from other rows or another recipe: what it has made stays; "
        "the command that began it goes on with it, --discard removes it"
    ]
    assert begin(tmp_path, "one", said) == "worker@1"
    with pytest.raises(TrainingError, match="worker@2 is unfinished, from other rows or another recipe: take another"):
        begin(tmp_path, "three", said, number=2)


def test_discarded_ones_are_gone_and_their_numbers_are_free(tmp_path: Path) -> None:
    said: list[str] = []
    begin(tmp_path, "one", said)
    assert begin(tmp_path, "two", said, discard=True) == "worker@1"
    assert said == []
    assert [path.name for path in tmp_path.iterdir()] == [".worker@1.partial"]
    assert (partial_of(tmp_path, "worker@1") / "job.json").read_text() == job("two")


def test_one_without_any_work_loses_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    reserve(tmp_path, "worker", job("one"), None, discard=False, say=said.append)
    assert reserve(tmp_path, "worker", job("two"), None, discard=False, say=said.append) == "worker@1"
    assert said == []


def test_work_of_other_methods_counts_too(tmp_path: Path) -> None:
    said: list[str] = []
    reserve(tmp_path, "worker", job("one"), None, discard=False, say=said.append)
    (partial_of(tmp_path, "worker@1") / "instructions.jsonl").write_text("{}\n")
    assert reserve(tmp_path, "worker", job("two"), None, discard=False, say=said.append) == "worker@2"
    assert said[0].startswith("worker@1 is unfinished, from other rows or another recipe: what it has made stays")


def test_the_record_of_a_job_that_goes_on_is_never_written_again(tmp_path: Path) -> None:
    """A kill while it is written would leave a job that nobody knows, and its work with it."""
    said: list[str] = []
    begin(tmp_path, "one", said)
    record = partial_of(tmp_path, "worker@1") / "job.json"
    written = record.stat()
    assert begin(tmp_path, "one", said) == "worker@1"
    assert (record.stat().st_ino, record.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
