"""Sources: the tasks and passages that each way may write from."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from journeyman.tools.passages import read_passages
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.data.tasks.heldout import HeldOut
from journeyman.training.data.writing.drafts import RefusedError, Way
from journeyman.training.data.writing.golds import Gold
from journeyman.training.data.writing.templates import Template


@dataclass
class Sources:
    of: dict[Way, list[tuple[Task, int | None]]] = field(default_factory=dict)
    """By way, in an order of chance, each with how many tasks it gives at most."""
    templates: dict[str, Template] = field(default_factory=dict)
    """Those of `values`, by the task's id."""
    refused: Counter[str] = field(default_factory=Counter)
    """Tasks and passages that nothing is written from, by reason."""


def find_sources(
    ways: Sequence[Way],
    like: Sequence[Task],
    held_out: HeldOut,
    *,
    gold: Gold | None = None,
    documents: Path | None = None,
    seed: int = 0,
) -> Sources:
    """Raises `ConfigError` where a way has nothing to write from."""
    sources = Sources()
    tasks = _free(like, held_out, sources.refused)
    for way in ways:
        before = sources.refused.copy()
        match way:
            case "values":
                found = _templates(tasks, gold, seed, sources)
            case "documents":
                found = [(task, None) for task in _free(_passages(documents), held_out, sources.refused)]
            case _:
                found = [(task, None) for task in tasks]
        if not found:
            reasons = ", ".join(f"{reason} ({count})" for reason, count in (sources.refused - before or before).items())
            raise ConfigError(f"nothing to write {way} from: {reasons or 'there is no passage'}")
        random.Random(seed).shuffle(found)
        sources.of[way] = found
    return sources


def _free(tasks: Sequence[Task], held_out: HeldOut, refused: Counter[str]) -> list[Task]:
    """Those that aren't held out: what is written from one says too much of it, however unlike it looks."""
    free = []
    for task in tasks:
        if (reason := held_out.task(task)) is None:
            free.append(task)
        else:
            refused[reason] += 1
    return free


def _passages(path: Path | None) -> list[Task]:
    if path is None:
        raise ConfigError("the way `documents` needs documents: add --documents PATH")
    return [Task(id=f"{path.name}#{n}", prompt=text) for n, text in enumerate(read_passages(path), start=1)]


def _templates(tasks: Sequence[Task], gold: Gold | None, seed: int, sources: Sources) -> list[tuple[Task, int | None]]:
    if gold is None:
        raise ConfigError("the way `values` computes references: add --check sql:DATABASE, or --check calculation")
    found: list[tuple[Task, int | None]] = []
    for task in tasks:
        try:
            sources.templates[task.id] = template = Template(task, gold, seed)
        except RefusedError as refused:
            sources.refused[refused.reason] += 1
        else:
            found.append((task, len(template)))
    return found
