"""Checkpoints: the newest whole one counts, torn ones go."""

from pathlib import Path

from journeyman.training.methods.checkpoints import last_whole, mark_whole


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
