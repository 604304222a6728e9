"""Anchors: names, numbers and quoted texts, which a paraphrase has to keep and may not add."""

import re
from collections.abc import Iterator

from journeyman.training.data.tasks.near import plain
from journeyman.training.data.writing.drafts import RefusedError

QUOTED = re.compile(r'"([^"]+)"|\u201c([^\u201d]+)\u201d|\u00ab([^\u00bb]+)\u00bb|(?<!\w)\'([^\']+)\'(?!\w)')
NUMBER = re.compile(r"\w*\d(?:[\w.,:/-]*\w)?")
"""Each word with a digit in it: also a date, or the name of a part."""
WORD = re.compile(r"[^\W\d_]\w+")


ENDS = ("?", "\uff1f", "\u061f")
"""Of a question, in several scripts."""
TIMES, MORE = 2, 4
"""Words that a paraphrase has at most: so many times as many, and so many on top. At least it has half as many."""


def check_kept(original: str, paraphrase: str) -> None:
    """Raises `RefusedError` where a name, a number or a quoted text is lost or new.

    So it does for what a weak model gives instead of a paraphrase: the original with something around it, a part of
    it, or a text that runs on.
    """
    if plain(original) in plain(paraphrase):
        raise RefusedError("it is its source, and more", paraphrase)
    if original.rstrip().endswith(ENDS) and not paraphrase.rstrip().endswith(ENDS):
        raise RefusedError("it asks nothing any more", paraphrase)
    if not len(original.split()) / 2 <= len(paraphrase.split()) <= TIMES * len(original.split()) + MORE:
        raise RefusedError("far longer or shorter than its source", paraphrase)
    for source, target, reason in (
        (original, paraphrase, "loses a name, number or quoted text"),
        (paraphrase, original, "adds a name, number or quoted text"),
    ):
        text = f" {_spaced(target)} "
        missing = [anchor for anchor in anchors(source) if f" {_spaced(anchor)} " not in text]
        if missing:
            raise RefusedError(reason, ", ".join(missing))


def anchors(text: str) -> list[str]:
    """Those of a text, without those twice."""
    quoted = ["".join(groups) for groups in QUOTED.findall(text)]
    return [*dict.fromkeys([*quoted, *NUMBER.findall(text), *_names(text)])]


def _names(text: str) -> Iterator[str]:
    """Words with a capital, unless it is the one that begins a sentence."""
    for match in WORD.finditer(text):
        before = text[: match.start()].rstrip(" \"'\u201c\u00ab([")
        begins = not before or before[-1] in ".!?:\n"
        if any(letter.isupper() for letter in match[0][begins:]):
            yield match[0]


def _spaced(text: str) -> str:
    """Its words, parted at hyphens and apostrophes too; a number without commas between thousands."""
    bare = re.sub(r"(?<=\d),(?=\d{3})", "", plain(text))
    return " ".join(re.sub(r"['\u2019-]", " ", bare).split())
