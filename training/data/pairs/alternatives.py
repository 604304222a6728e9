"""Alternatives: replies of a record to one and the same prompt, and which of them pair, by digests and ids alone."""

from collections.abc import Collection, Iterator
from typing import Literal, NamedTuple

from journeyman.training.data.samples import PreferenceOrigin

ALONE = "no other reply to its prompt"
EQUAL = "outcomes equal"
LEFT = "no partner left with another outcome"

Measure = Literal["label", "verdict"]
MEASURES: tuple[Measure, ...] = ("label", "verdict")
"""By which outcomes are compared, the better one first: a label of the call or its run, the crew's own judge."""


class Call(NamedTuple):
    trace_id: str
    span_id: str


class Outcome(NamedTuple):
    value: float
    measure: Measure
    by_model: bool
    """Whether a model judged."""


class Pair(NamedTuple):
    origin: PreferenceOrigin
    margin: float
    chosen: tuple[Call, ...]
    """The first one's reply is read; the others said the same."""
    rejected: tuple[Call, ...]


class Alternative:
    """One reply to one prompt, with all calls that gave it. There may be as many as there are model calls."""

    __slots__ = ("_measured", "by_model", "calls", "fit", "policies", "said", "unfit")

    def __init__(self, said: bytes) -> None:
        self.said = said
        self.calls: list[Call] = []
        self.policies: tuple[str, ...] = ()
        self.fit: Call | None = None
        """The first call whose reply is worth imitating."""
        self.unfit = ""
        """Else why none is."""
        self.by_model = False
        self._measured: tuple[tuple[Measure, float, int], ...] = ()

    def add(self, call: Call, policy: str, unfit: str | None, outcome: Outcome | None) -> None:
        """`unfit` is why this call's reply isn't worth imitating."""
        self.calls.append(call)
        if policy not in self.policies:
            self.policies += (policy,)
        if unfit is not None:
            self.unfit = unfit
        elif self.fit is None:
            self.fit = call
        if outcome is not None:
            others = tuple(one for one in self._measured if one[0] != outcome.measure)
            total, count = self._of(outcome.measure)
            self._measured = (*others, (outcome.measure, total + outcome.value, count + 1))
            self.by_model |= outcome.by_model

    def mean(self, measure: Measure) -> float | None:
        total, count = self._of(measure)
        return total / count if count else None

    def _of(self, measure: Measure) -> tuple[float, int]:
        return next(((total, count) for known, total, count in self._measured if known == measure), (0.0, 0))


def find_pairs(alternatives: Collection[Alternative], least: float | None, *, fork: bool) -> Iterator[Pair]:
    """The best reply to a prompt with the worst, the second best with the second worst: each is in one pair at most.

    The better one is worth imitating, and its mean outcome at least `least`.
    """
    taken: set[bytes] = set()
    for measure in MEASURES:
        free = [one for one in alternatives if one.said not in taken]
        ranked = [(mean, one) for one in free if (mean := one.mean(measure)) is not None]
        ranked.sort(key=lambda rank: rank[0])
        for high, best in reversed(ranked):
            if best.fit is None or (least is not None and high < least):
                continue
            low, worst = next(((mean, one) for mean, one in ranked if one.said not in taken), (high, best))
            if best.said in taken or low >= high:
                break
            taken |= {best.said, worst.said}
            yield _pair(best, best.fit, worst, high - low, "fork" if fork else _origin(best, worst, measure))


def unpaired(alternatives: Collection[Alternative], label: str) -> Iterator[tuple[Call, str]]:
    """Why calls of a prompt may be in no pair, in words fit for counting."""
    means = {mean for one in alternatives for measure in MEASURES if (mean := one.mean(measure)) is not None}
    for one in alternatives:
        yield from ((call, _reason(one, len(alternatives), len(means), label)) for call in one.calls)


def _reason(one: Alternative, alternatives: int, outcomes: int, label: str) -> str:
    if alternatives == 1:
        return ALONE
    if all(one.mean(measure) is None for measure in MEASURES):
        return f"no label {label}"
    if outcomes == 1:
        return EQUAL
    return one.unfit if one.fit is None else LEFT


def _origin(best: Alternative, worst: Alternative, measure: Measure) -> PreferenceOrigin:
    if measure == "verdict" or best.by_model or worst.by_model:
        return "judge"
    return "policies" if set(best.policies).isdisjoint(worst.policies) else "sampled"


def _pair(best: Alternative, fit: Call, worst: Alternative, margin: float, origin: PreferenceOrigin) -> Pair:
    return Pair(origin, margin, (fit, *(call for call in best.calls if call != fit)), tuple(worst.calls))
