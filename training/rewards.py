"""Rewards: what an answer was worth, from 0 to 1."""

import re
import unicodedata
from collections.abc import Callable, Iterator

from pydantic import JsonValue

from journeyman.traces.errors import ConfigError, JourneymanError, TrainingError, in_one_line
from journeyman.traces.trace import Task

Scorer = Callable[[Task, str], float]
"""A score in 0..1 for an answer to a task."""

ALLOWED_TIMES = 2
"""Words an answer may have, as a multiple of the reference's words."""
ALLOWED_SLACK = 8
"""Words allowed on top, so that a short reference leaves room for a sentence."""

# Where no number stands this matches nothing, and puts nothing in its place.
_NUMBER = re.compile(r"(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?!\w)")
_TYPOGRAPHY = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-"})


def score_of(scorer: Scorer, task: Task, answer: str) -> float:
    """What a scorer says; raises `TrainingError` where it breaks, or gives anything but a number from 0 to 1."""
    try:
        given = scorer(task, answer)
        score = float(given)
    except JourneymanError:
        raise
    except Exception as error:  # Somebody else's code.
        raise TrainingError(f"the scorer broke on task {task.id!r}: {in_one_line(error)}; mend it") from error
    if not 0 <= score <= 1:
        raise TrainingError(f"the scorer gave {given!r} for task {task.id!r}: it must give a number from 0 to 1")
    return score


def answer_in_text(task: Task, answer: str) -> float:
    """How much of `task.reference` stands in `answer`, times a factor against rambling.

    score = recall * min(1, allowed / words(answer)),  allowed = 2 * words(reference) + 8.

    - Reference strings: the items of a list, the keys and the values of an object, at every level; `yes` or `no`
      for true or false; else the value itself. One that stands twice in the reference counts twice.
    - recall: the fraction of them found in the answer, both normalised, with no letter or digit on either side.
    - Normalised: NFKC, lower case, straight quotes and dashes; numbers by value (1,000 = 1000, .50 = 0.5, 5.0 = 5);
      elsewhere full stops removed, the marks , ? ! : ; read as spaces; white space folded.
    - words(x): white-space separated words of the normalised text; for a reference, of its distinct strings together.

    Recall is FanOutQA's own measure (Zhu et al. 2024, "loose accuracy") without its lemmatiser, which needs a spaCy
    model that is not on PyPI; the length factor is ours, because recall alone pays for dumping all that was read.
    """
    strings = compared(task.reference)
    if not strings:
        raise ConfigError(f"task {task.id!r} has no reference to compare an answer with: add `reference` to its line")
    text = _normalise(answer)
    recall = sum(_stands_in(string, text) for string in strings) / len(strings)
    allowed = ALLOWED_TIMES * sum(len(string.split()) for string in set(strings)) + ALLOWED_SLACK
    return recall * min(1.0, allowed / max(1, len(text.split())))


def compared(reference: JsonValue) -> list[str]:
    """The strings of a reference that an answer is compared with; none where it says nothing."""
    return [string for text in _strings(reference) if (string := _normalise(text))]


def solved(score: float) -> bool:
    """Partial credit is for learning; a task counts as solved only when nothing is missing and nothing rambles."""
    return score == 1.0


def _strings(reference: JsonValue) -> Iterator[str]:
    match reference:
        case None:
            return
        case bool():
            yield "yes" if reference else "no"
        case dict():
            for key, value in reference.items():
                yield key
                yield from _strings(value)
        case list():
            for value in reference:
                yield from _strings(value)
        case float():
            yield f"{reference:.15g}"
        case _:
            yield str(reference)


def _stands_in(string: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(string)}(?!\w)", text) is not None


def _normalise(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).translate(_TYPOGRAPHY).lower()
    text = _NUMBER.sub(lambda number: _plain_number(number[0]), text)
    return " ".join(re.sub(r"(?<!\d)[.]|[.](?!\d)", "", re.sub(r"[,?!:;]", " ", text)).split())


def _plain_number(number: str) -> str:
    """The same number in one way of writing it: no thousands commas, no trailing zeros, a digit before the point."""
    whole, point, fraction = number.replace(",", "").partition(".")
    fraction = fraction.rstrip("0")
    if not point:
        return whole
    return f"{whole or '0'}.{fraction}" if fraction else whole or "0"
