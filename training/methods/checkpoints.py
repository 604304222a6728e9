"""Checkpoints: where a run that was cut short goes on."""

import json
import shutil
from pathlib import Path

from journeyman.traces.base import Record

CHECKPOINTS = "checkpoints"
"""Their folder, in that of an unfinished run."""

WHOLE = "whole.json"
"""Written into a checkpoint last: one without it was torn by a kill."""

PREFIX = "checkpoint-"
"""Of a checkpoint's folder, before its step; transformers names it so."""


class Checkpoint(Record):
    folder: Path
    step: int
    """Optimiser steps that it holds."""
    seconds: float
    """Time spent on them."""


def last_whole(checkpoints: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; torn ones are removed."""
    newest: Checkpoint | None = None
    for folder in checkpoints.glob(f"{PREFIX}*"):
        if not (folder / WHOLE).exists():
            shutil.rmtree(folder)
            continue
        step = int(folder.name.removeprefix(PREFIX))
        if newest is None or step > newest.step:
            seconds = float(json.loads((folder / WHOLE).read_text(encoding="utf-8"))["seconds"])
            newest = Checkpoint(folder=folder, step=step, seconds=seconds)
    return newest


def mark_whole(checkpoints: Path, step: int, seconds: float) -> None:
    (checkpoints / f"{PREFIX}{step}" / WHOLE).write_text(json.dumps({"seconds": seconds}), encoding="utf-8")
