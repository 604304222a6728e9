"""Caps: no family, origin, session, user or task has more rows than it may, and the whole no more than is wanted."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from pydantic import Field as Setting

from journeyman.traces.base import Config
from journeyman.traces.errors import ConfigError
from journeyman.training.data.choosing.entries import Decision, Entry
from journeyman.training.data.choosing.mix import Field, group_of


class Cap(Config):
    """The most rows of each group, or of one."""

    field: Field
    name: str | None = None
    """Of the only group that it is about; None for each."""
    rows: int | None = Setting(default=None, ge=1)
    share: float | None = Setting(default=None, gt=0, lt=1)
    """Of all rows that are written; one of the two is given."""

    def __str__(self) -> str:
        return f"{self.field}{'' if self.name is None else f':{self.name}'}={self.rows or self.share:g}"

    def limit(self, sizes: Counter[str], total: int) -> int:
        """The most rows of a group, whose sizes are given; raises `ConfigError` where the share leaves none.

        A share is one of what stays, which shrinks with the limit, so that is lowered until both fit.
        """
        if self.share is None:
            return self.rows or 0
        limit = max(sizes.values(), default=0)
        while True:
            stay = total - sum(max(0, size - limit) for size in sizes.values())
            lower = min(limit, math.floor(self.share * stay + 1e-9))
            if not lower and sizes:
                raise ConfigError(
                    f"--cap {self}: rows of {len(sizes)} {self.field} groups can't each be so small a share; "
                    f"give a larger share, or a number of rows"
                )
            if lower == limit:
                return limit
            limit = lower


class Caps:
    """Leaves out of each group that is too large those rows that chance says. What has no such group isn't capped."""

    def __init__(self, caps: Sequence[Cap], max_rows: int | None) -> None:
        self._caps = caps
        self._max_rows = max_rows

    def __call__(self, entries: Sequence[Entry]) -> Decision:
        left_out: dict[int, str] = {}
        stay = sorted(entries, key=lambda entry: entry.order)
        # What a cap takes makes the share of others larger, so until there is nothing more to take.
        while taken := dict(self._taken(stay)):
            left_out |= taken
            stay = [entry for entry in stay if entry.number not in taken]
        return Decision(left_out)

    def _taken(self, stay: Sequence[Entry]) -> Iterator[tuple[int, str]]:
        """By the first cap that isn't kept."""
        for cap in self._caps:
            groups: defaultdict[str, list[int]] = defaultdict(list)
            for entry in stay:
                if (group := group_of(entry, cap.field)) is not None and cap.name in (None, group):
                    groups[group].append(entry.number)
            limit = cap.limit(Counter({group: len(numbers) for group, numbers in groups.items()}), len(stay))
            taken = [(number, f"over the cap {cap}") for numbers in groups.values() for number in numbers[limit:]]
            if taken:
                yield from taken
                return
        if self._max_rows is not None:
            yield from ((entry.number, f"more than {self._max_rows} rows") for entry in stay[self._max_rows :])
