"""Statements: what several people or programs said of one and the same thing, and which of it counts."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from journeyman.traces.base import Record
from journeyman.traces.labels import Label, newest


class Superseded(Record):
    """Two statements of one reply that contradict each other: the newer one counts."""

    counts: Label
    superseded: Label


class Settled(NamedTuple):
    """What counts of several statements."""

    label: Label
    older: tuple[Label, ...]
    """Those that say something else."""

    @property
    def superseded(self) -> tuple[Superseded, ...]:
        return tuple(Superseded(counts=self.label, superseded=label) for label in self.older)


def settle(stated: Sequence[Label], last: Collection[Label]) -> Settled:
    """`last` are those that their own source didn't replace; of these the newest counts."""
    counts = max((label for label in stated if label in last), key=lambda label: label.at_ns)
    return Settled(counts, tuple(label for label in stated if label.value != counts.value))


def settled(labels: Iterable[Label]) -> dict[tuple[str, str | None], Settled]:
    """By trace and span, what counts of the labels of one name."""
    of: dict[tuple[str, str | None], list[Label]] = defaultdict(list)
    for label in labels:
        of[label.trace_id, label.span_id].append(label)
    last = frozenset(newest(label for stated in of.values() for label in stated))
    return {key: settle(stated, last) for key, stated in of.items()}
