"""Outliers: rows whose score is far from what the others' are."""

from collections.abc import Sequence
from statistics import mean, median

from journeyman.training.data.choosing.entries import Decision, Entry


class Outliers:
    """Leaves out scores beyond so many robust standard deviations of the median.

    The modified z-score (Iglewicz and Hoaglin 1993): by the median deviation, or by the mean one where most scores are
    equal. A row without a score stays.
    """

    def __init__(self, most: float) -> None:
        self._most = most

    def __call__(self, entries: Sequence[Entry]) -> Decision:
        scores = {entry.number: entry.score for entry in entries if entry.score is not None}
        if not scores:
            return Decision()
        middle = median(scores.values())
        away = {number: abs(score - middle) for number, score in scores.items()}
        unit = 1.4826 * median(away.values()) or 1.2533 * mean(away.values())
        return Decision({number: "a score far from the others'" for number in away if away[number] > self._most * unit})
