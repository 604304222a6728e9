"""The words of a text, in any script, as an index of words compares them.

What a reader takes for the same word is the same: in wide or joined letters, with an accent as a mark of its own, in
large letters (NFKC and case folding). A mark belongs to the letter before it. Where a script sets no spaces between
words, each pair of neighbouring letters stands for a word.
"""

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from unicodedata import category, normalize

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Myanmar, Khmer
    "\u1100-\u11ff\uac00-\ud7a3"  # Hangul, whose words take endings that no query has
    "\u3005\u3007\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"  # Kana, Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Han
)
"""Scripts without spaces, or with few, as a class of characters."""
MARKED = (range(0x300, 0x20000), range(0xE0100, 0xE01F0))
"""Where the combining marks are."""
DOTTED_I = "i\u0307"
"""What folding makes of the Turkish capital I with a dot, whose small letter has no second one."""
JOINERS = dict.fromkeys(map(ord, "\u00ad\u200c\u200d\u2060\ufeff"))
"""Within a word, and written or left out at will."""


def words_of(text: str) -> list[str]:
    """What a document is found by; of writing without spaces each letter too."""
    return [word for run in _runs(text) for word in ([*run, *_pairs(run)] if len(run) > 1 else run)]


def words_asked(query: str) -> list[str]:
    """What a query asks for; of writing without spaces a letter only where it stands alone."""
    return [word for run in _runs(query) for word in (_pairs(run) if len(run) > 1 else run)]


def _pairs(letters: list[str]) -> list[str]:
    return ["".join(pair) for pair in pairwise(letters)]


def _runs(text: str) -> Iterator[list[str]]:
    """Each word by itself, and the letters of each run of writing without spaces."""
    folded = normalize("NFKC", normalize("NFKC", text.translate(JOINERS)).casefold()).replace(DOTTED_I, "i")
    words, letters, parts = _patterns()
    if not letters.search(folded):
        yield from ([word] for word in words.findall(folded))
        return
    for part in (part for word in words.findall(folded) for part in parts.split(word) if part):
        yield letters.findall(part) or [part]


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Of a word, of a letter of writing without spaces, and of a run of those. No class of `re` names the marks."""
    marks = "".join(chr(code) for span in MARKED for code in span if category(chr(code)).startswith("M"))
    letter = f"[{UNSPACED}][{marks}]*"
    return re.compile(rf"\w+(?:[{marks}]+\w*)*"), re.compile(letter), re.compile(f"((?:{letter})+)")
