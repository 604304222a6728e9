"""Checkpoints: where a run that was cut short goes on, and the folder and the number that it holds meanwhile."""

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from journeyman.runtime.adapters.adapter import next_number, split_policy
from journeyman.traces.base import Record
from journeyman.traces.errors import AdapterError, TrainingError
from journeyman.traces.files import write_whole
from journeyman.training.tracking import RUN
from journeyman.training.trainings.stopping import Say

CHECKPOINTS = "checkpoints"
"""Their folder, in that of an unfinished run."""

WHOLE = "whole.json"
"""Written into a checkpoint last: one without it was torn by a kill."""

RECORD = "job.json"
"""Whose the folder of an unfinished run is."""

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


def partial_of(adapters: Path, policy: str) -> Path:
    """The folder of an unfinished run."""
    return adapters / f".{policy}.partial"


def reserve(adapters: Path, agent: str, job: str, number: int | None, *, discard: bool, say: Say) -> str:
    """The policy that the job, as JSON, trains, its folder made; the one that it began under, where it was cut short.

    Another unfinished job of the agent keeps its number and what it has made, and that is said; `discard` removes it.
    """
    unfinished = dict(_unfinished(adapters, agent))
    ours = next((known for known, text in unfinished.items() if text == job), None)
    for other in sorted(unfinished.keys() - {ours}):
        folder = partial_of(adapters, f"{agent}@{other}")
        checkpoint = last_whole(folder / CHECKPOINTS)
        if discard or not _holds_work(folder):
            shutil.rmtree(folder, ignore_errors=True)
            del unfinished[other]
            continue
        at = "" if checkpoint is None else f" at step {checkpoint.step}"
        say(
            f"{agent}@{other} is unfinished{at}, from other rows or another recipe: what it has made stays; "
            "the command that began it goes on with it, --discard removes it"
        )
    number = number or ours or max(next_number(adapters, agent), 1 + max(unfinished, default=0))
    policy = f"{agent}@{number}"
    if (adapters / policy).exists():
        raise TrainingError(f"{policy} was trained from other samples or another recipe: take another number")
    if number != ours and number in unfinished:
        raise TrainingError(f"{policy} is unfinished, from other rows or another recipe: take another number")
    partial = partial_of(adapters, policy)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        if number != ours:
            write_whole(partial / RECORD, job)
    except OSError as error:
        raise TrainingError(f"{partial} cannot be written: {error.strerror}") from error
    return policy


def _holds_work(folder: Path) -> bool:
    """Whether there is more than the job's record and the id of its MLflow run."""
    return any(path.name not in (RECORD, RUN) for path in folder.rglob("*") if path.is_file())


def _unfinished(adapters: Path, agent: str) -> Iterator[tuple[int, str | None]]:
    """The numbers of unfinished adapters, each with its job as it was written; None where a kill came before that."""
    for folder in adapters.glob(f".{agent}@*.partial"):
        with suppress(AdapterError):
            name, number = split_policy(folder.name.removeprefix(".").removesuffix(".partial"))
            record = folder / RECORD
            if name == agent:
                yield number, record.read_text(encoding="utf-8") if record.is_file() else None
