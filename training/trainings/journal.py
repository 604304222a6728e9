"""The journal of a training: a file of JSON lines in the workspace that outlives the run, however it ends."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic, time_ns
from typing import Any

from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import Record
from journeyman.traces.capture.energy import read_counters
from journeyman.traces.errors import JourneymanError, in_one_line
from journeyman.traces.files import RowFile
from journeyman.training.trainings.events import Began, Ended, Ending, Event, Planned, Spent, Stepped

logger = logging.getLogger(__name__)

PACKAGES = ("journeyman", "torch", "transformers", "trl", "peft", "accelerate", "datasets")


class TrainingJournal:
    """Writes what happens in one attempt at a job; a disk that refuses a line doesn't end the training."""

    def __init__(self, path: Path) -> None:
        self._rows = RowFile(path)
        self._began = monotonic()
        self._counters = read_counters()
        self.digest: str | None = None
        """Of the adapter, once there is one."""

    def plan(self, plan: Record) -> None:
        self._write(Planned(plan=plan.model_dump(mode="json"), said=str(plan)))

    def step(self, number: int, steps: int, metrics: Mapping[str, float]) -> None:
        self._write(Stepped(at_ns=time_ns(), step=number, steps=steps, metrics=dict(metrics), spent=self._spent()))

    def begin(self, event: Began) -> None:
        self._write(event)

    def end(self, state: Ending, error: str | None = None) -> None:
        self._write(Ended(at_ns=time_ns(), state=state, error=error, digest=self.digest, spent=self._spent()))

    def _spent(self) -> Spent:
        seconds, now = round(monotonic() - self._began, 3), read_counters()
        if now is None or self._counters is None:
            return Spent(seconds=seconds)
        return Spent(seconds=seconds, joules=round(now.joules - self._counters.joules, 3), source=now.source)

    def _write(self, event: Event) -> None:
        try:
            self._rows.append(event.model_dump_json(exclude_none=True).encode() + b"\n")
        except OSError as error:
            logger.warning("the journal of this training lacks a line: %s", error.strerror)


@contextmanager
def journalled(
    workspace: Workspace, policy: str, job: Mapping[str, Any], recipe: Mapping[str, Any], step: int
) -> Iterator[TrainingJournal]:
    """The journal of the training within the block, whose end it notes; `step` is where a checkpoint lets it go on."""
    journal = TrainingJournal(_path(workspace, policy, job))
    config = workspace.config
    journal.begin(
        Began(
            at_ns=time_ns(),
            pid=os.getpid(),
            policy=policy,
            job=dict(job),
            recipe=dict(recipe),
            versions=versions(),
            step=step,
            watts=config.traces.watts,
            cost_per_hour=config.training.cost_per_hour,
            currency=config.traces.currency,
        )
    )
    try:
        yield journal
    except Exception as error:
        journal.end("failed", str(error) if isinstance(error, JourneymanError) else in_one_line(error))
        raise
    except BaseException:
        journal.end("interrupted")
        raise
    journal.end("finished")


def versions() -> dict[str, str]:
    """Of the libraries that train, where they are installed."""
    known = {}
    for package in PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    return known


def _path(workspace: Workspace, policy: str, job: Mapping[str, Any]) -> Path:
    # A number may be taken again after its unfinished training was discarded: the job tells the two apart.
    digest = sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:8]
    return workspace.trainings / f"{policy}-{digest}.jsonl"
