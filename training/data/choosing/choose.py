"""Choosing: what is done with mined rows of any kind before they are written, each step counted."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated

from pydantic import Field

from journeyman.traces.base import Config, Record
from journeyman.training.data.choosing.caps import Cap, Caps
from journeyman.training.data.choosing.checks import Check, HeldOutCheck, LengthCheck, SecretsCheck, injection_check
from journeyman.training.data.choosing.entries import Entries, Step
from journeyman.training.data.choosing.hard import Hard
from journeyman.training.data.choosing.mix import ORIGINS, Balance, Group, Mix
from journeyman.training.data.choosing.outliers import Outliers
from journeyman.training.data.choosing.row import Row
from journeyman.training.data.source import Source

Lines = Callable[[], Iterator[bytes]]
"""Gives the lines of all rows, as often as it is asked."""

WEIGHT = re.compile(rb'(?<="weight":)[^,}]+')
"""Every kind writes its weight before any text, and within a text the quotes are escaped."""


class ChooseConfig(Config):
    """Which of the mined rows are written, and how much each counts. By default nothing is weighed, and only what may
    not be learned from is left out."""

    secrets: bool = False
    """Whether rows that hold keys or tokens stay."""
    injections: bool = True
    """Whether rows with texts that give the model orders stay: an agent that resists them is worth learning from."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest row, of prompt and reply together."""
    near: float | None = Field(default=None, ge=0.5, le=1)
    """Least similarity at which of two rows only one stays."""
    outliers: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Farthest that a row's score may be from the median, in robust standard deviations; 3.5 is usual."""
    mix: Mapping[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    """Weights of rows by policy, by origin, or of the agent's `own`."""
    caps: tuple[Cap, ...] = ()
    max_rows: int | None = Field(default=None, ge=1)
    hard: float | None = Field(default=None, ge=1, allow_inf_nan=False)
    """Largest factor for rows of tasks that rarely succeed."""
    balance: Group | None = None
    """Groups that are to count alike."""
    seed: int = 0
    """Another one lets chance choose other rows."""

    @property
    def looks_at_all(self) -> bool:
        """Whether a row's fate may hang on the other rows."""
        steps = (self.near, self.outliers, self.mix, self.caps, self.max_rows, self.hard, self.balance)
        return any(steps)


class Weighed(Record):
    """Rows that a step weighed alike."""

    step: str
    group: str
    rows: int
    factor: float
    """On their weight; a mean where it isn't the same for all."""


class Chosen(Record):
    """What came of choosing."""

    rows: int
    """Rows that were mined."""
    left_out: dict[str, int]
    """Those that were not written, by reason, most frequent first."""
    weighed: tuple[Weighed, ...]
    held_out: dict[str, int]
    """Tasks by set: nothing of them is in what was written."""


class Choosing:
    """One choice among the rows of a pass. Steps that look at all rows at once keep a little of each in memory."""

    def __init__(self, source: Source, config: ChooseConfig | None = None) -> None:
        self._source = source
        self._config = ChooseConfig() if config is None else config
        self._checks = tuple(_checks(source, self._config))
        self._rows = 0
        self._left_out: Counter[str] = Counter()
        self._weighed: dict[tuple[str, str], list[float]] = {}

    def over(self, lines: Lines) -> Iterator[bytes]:
        """The lines of the rows that are written, in their order, each with its weight."""
        self._rows = 0
        self._left_out.clear()
        self._weighed.clear()
        if not self._config.looks_at_all:
            yield from (line for line in lines() if self._passes(Row(line)))
            return
        weights = self._weights(lines)
        for number, line in enumerate(lines()):
            if (factor := weights.get(number)) is not None:
                yield line if factor == 1 else _weighing(line, factor)

    @property
    def chosen(self) -> Chosen:
        """What came of it, once the lines are written."""
        weighed = (
            Weighed(step=step, group=group, rows=len(factors), factor=sum(factors) / len(factors))
            for (step, group), factors in self._weighed.items()
        )
        return Chosen(
            rows=self._rows,
            left_out=dict(self._left_out.most_common()),
            weighed=tuple(weighed),
            held_out=self._source.held_out.tasks,
        )

    def _passes(self, row: Row) -> bool:
        self._rows += 1
        reason = next((reason for check in self._checks if (reason := check(row)) is not None), None)
        self._left_out.update([] if reason is None else [reason])
        return reason is None

    def _weights(self, lines: Lines) -> dict[int, float]:
        """The factor on the weight of each row that stays, by its number."""
        entries = Entries(self._source, self._config.seed, sketched=self._config.near is not None)
        rows = ((number, Row(line)) for number, line in enumerate(lines()))
        stay = [entries.of(number, row) for number, row in rows if self._passes(row)]
        weights = {entry.number: 1.0 for entry in stay}
        for name, step in _steps(self._config, self._source, entries):
            decision = step(stay)
            self._left_out.update(decision.left_out.values())
            for number in decision.left_out:
                del weights[number]
            for number, factor in decision.factors.items():
                weights[number] *= factor.value
                self._weighed.setdefault((name, factor.group), []).append(factor.value)
            stay = [entry for entry in stay if entry.number in weights]
        return weights


def _checks(source: Source, config: ChooseConfig) -> Iterator[Check]:
    if source.held_out:
        yield HeldOutCheck(source)
    if not config.secrets:
        yield SecretsCheck()
    if config.max_tokens is not None:
        yield LengthCheck(config.max_tokens)
    if not config.injections:
        yield injection_check


def _steps(config: ChooseConfig, source: Source, entries: Entries) -> Iterator[tuple[str, Step]]:
    """In their order: what leaves rows out comes before what counts those that stay."""
    if config.near is not None:
        from journeyman.training.data.choosing.near_rows import NearRows

        yield "near", NearRows(config.near)
    if config.outliers is not None:
        yield "outliers", Outliers(config.outliers)
    if config.mix:
        yield "mix", Mix(config.mix, ORIGINS)
    if config.caps or config.max_rows is not None:
        yield "caps", Caps(config.caps, config.max_rows)
    if config.hard is not None:
        yield "hard", Hard(config.hard, source, entries.runs)
    if config.balance is not None:
        yield "balance", Balance(config.balance)


def _weighing(line: bytes, factor: float) -> bytes:
    return WEIGHT.sub(lambda weight: b"%.6g" % (float(weight[0]) * factor), line, count=1)
