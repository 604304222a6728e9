"""The mix: how much rows of each origin or policy count, and groups that count alike."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, get_args

from journeyman.traces.errors import ConfigError
from journeyman.training.data.choosing.entries import Decision, Entry, Factor
from journeyman.training.data.samples import DocumentOrigin, KTOOrigin, PreferenceOrigin, PromptOrigin, SFTOrigin

OWN = "own"
"""Rows whose reply the agent's own policies sampled: those with the server's tokens."""

ORIGINS = frozenset(
    origin
    for origins in (SFTOrigin, PreferenceOrigin, KTOOrigin, PromptOrigin, DocumentOrigin)
    for origin in get_args(origins)
)
"""All that rows say of why they are there."""

Group = Literal["family", "origin", "policy"]
MOST = 10.0
"""A factor beyond it would make of a few rows the whole of what is learned."""


class Mix:
    """Weighs each row by its policy's name, else by its origin's, else by `own`; others keep their weight."""

    def __init__(self, weights: Mapping[str, float], origins: Collection[str]) -> None:
        """`origins` are all that rows can have. A weight of 0 leaves the rows out."""
        self._weights = weights
        self._origins = origins

    def __call__(self, entries: Sequence[Entry]) -> Decision:
        policies = {entry.policy for entry in entries if entry.policy}
        if unknown := sorted(self._weights.keys() - policies - {*self._origins, OWN}):
            known = ", ".join([OWN, *sorted({*self._origins, *policies})])
            raise ConfigError(f"--mix {unknown[0]}: no row has that origin or policy; have {known}")
        names = {entry.number: name for entry in entries if (name := self._name(entry)) is not None}
        return Decision(
            {number: f"weight 0 in the mix: {name}" for number, name in names.items() if not self._weights[name]},
            {number: Factor(name, self._weights[name]) for number, name in names.items() if self._weights[name]},
        )

    def _name(self, entry: Entry) -> str | None:
        names = (entry.policy, entry.origin, OWN if entry.sampled else None)
        return next((name for name in names if name in self._weights), None)


class Balance:
    """Weighs rows so that all groups have the same number of them, as it were; no factor is beyond 10 or below 0.1."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def __call__(self, entries: Sequence[Entry]) -> Decision:
        groups = {entry.number: group_of(entry, self._group) or "none" for entry in entries}
        rows = Counter(groups.values())
        even = len(groups) / max(1, len(rows))
        factors = {name: Factor(name, min(MOST, max(1 / MOST, even / count))) for name, count in rows.items()}
        return Decision(factors={number: factors[name] for number, name in groups.items()})


Field = Literal["family", "origin", "policy", "session", "user", "task", "run"]
FIELDS: tuple[Field, ...] = get_args(Field)


def group_of(entry: Entry, field: Field) -> str | None:
    """Which of its field's groups a row is in; None where nothing says so."""
    if field == "run":
        return entry.trace_id
    value: str | None = getattr(entry if field in ("origin", "policy") else entry.run, field)
    return value
