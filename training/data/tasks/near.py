"""Near: texts that say the same in nearly the same letters, found exactly and whatever order they come in."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from unicodedata import normalize

import numpy as np

LETTERS = 3
"""Of a shingle. In a short question longer ones tell apart what one other word makes different."""

_MARKS = r"""[.,;:!?'"`\u2026\u2018\u2019\u201c\u201d\u00ab\u00bb\u00a1\u00bf\u3001\u3002]+"""
# A mark within a word or a number belongs to it; so do signs of arithmetic, wherever they stand.
_PUNCTUATION = re.compile(rf"(?<!\w){_MARKS}|{_MARKS}(?!\w)")


def plain(text: str) -> str:
    """The text without what a reader doesn't see as a difference: case, spaces, marks between words, wide letters."""
    return " ".join(_PUNCTUATION.sub(" ", normalize("NFKC", text).casefold()).split())


def shingles(text: str, letters: int = LETTERS) -> set[str]:
    """Each run of so many letters of a plain text, spaces included; of a shorter one the text itself."""
    return {text[start : start + letters] for start in range(max(1, len(text) - letters + 1))}


class Texts:
    """Plain texts, to be compared with others. An answer is positions in the order in which they were given.

    Exact, at a cost that grows with the number of texts: thousands are compared each with each in seconds.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = list(texts)
        holders: defaultdict[str, list[int]] = defaultdict(list)
        sizes = []
        for position, text in enumerate(self.texts):
            of_text = shingles(text)
            sizes.append(len(of_text))
            for shingle in of_text:
                holders[shingle].append(position)
        self._sizes = np.array(sizes, dtype=np.int64)
        self._with = {shingle: np.array(positions) for shingle, positions in holders.items()}

    def near(self, text: str, least: float) -> Iterator[tuple[int, float]]:
        """Texts whose shingles are at least so much those of `text`: the Jaccard similarity, 0..1, beside each."""
        asked = shingles(text)
        holders = [self._with[shingle] for shingle in asked if shingle in self._with]
        if not holders or least * len(asked) > self._sizes.max():  # A long text is near no short one.
            return
        shared = np.bincount(np.concatenate(holders), minlength=len(self.texts))
        similarity = shared / (self._sizes + len(asked) - shared)
        for position in np.flatnonzero(similarity >= least):
            yield int(position), float(similarity[position])

    def holding(self, text: str) -> Iterator[int]:
        """Texts in which `text`, of three letters or more, stands."""
        fewest = min(shingles(text), key=self._count)
        return (int(position) for position in self._with.get(fewest, ()) if text in self.texts[position])

    def within(self, text: str) -> Iterator[int]:
        """Texts that stand in `text`; of two letters or less only one that is it."""
        for shingle in shingles(text):
            for position in self._known_by.get(shingle, ()):
                if self.texts[position] in text:
                    yield position

    @cached_property
    def _known_by(self) -> dict[str, list[int]]:
        """Each text under its rarest shingle, without which it can't stand anywhere."""
        known: defaultdict[str, list[int]] = defaultdict(list)
        for position, text in enumerate(self.texts):
            known[min(shingles(text), key=self._count)].append(position)
        return dict(known)

    def _count(self, shingle: str) -> tuple[int, str]:
        return len(self._with.get(shingle, ())), shingle
