"""Checks in the box, for guardrails: each says what it catches, and what it misses.

All of them look at the text alone, in microseconds to milliseconds; none asks a model. They make harm less likely and
visible. What must not happen at all belongs into the permission table and into the tools' own limits.
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from journeyman.agents.guards.guardrails import Check, CheckContext, Finding, Guardrail
from journeyman.agents.guards.injections import injection, visible
from journeyman.traces.base import Config, parse_config, unknown_key
from journeyman.traces.capture.patterns import PATTERNS
from journeyman.traces.errors import ConfigError
from journeyman.traces.imports import imported


class PersonalData(Config):
    """E-mail addresses, telephone numbers and card numbers (with their check digit), as the record's redaction knows.

    Misses names, postal addresses, dates of birth, numbers of accounts and documents, and what is written so that only
    a person can read it (`jo at example dot org`).
    """

    kinds: tuple[Literal["email", "phone", "card"], ...] = ("email", "card", "phone")
    """What is looked for."""

    def __call__(self, text: str, context: CheckContext) -> Finding | None:
        return _matched(text, self.kinds)


class Secrets(Config):
    """Keys and tokens of well-known forms, private keys, and values that a name such as `password` stands before.

    Misses a password that stands alone in a sentence, and what is encoded or split.
    """

    def __call__(self, text: str, context: CheckContext) -> Finding | None:
        return _matched(text, ("keys",))


class PromptInjection(Config):
    """Texts that give orders to the model which reads them: to drop its instructions, to play another role, and so on.

    It knows common forms in English; in German, French, Spanish, Italian and Portuguese one, to ignore or forget
    instructions. Invisible characters don't hide them. It misses paraphrases, what is encoded, and false statements; a
    text about prompt injection, or about orders of other kinds, may alarm it. Of the examples in
    `tests/data/injections.jsonl` that its forms were not tuned on it finds 13 of 20, and is alarmed by 1 of 20
    harmless ones: a filter for the crude, not a wall.
    """

    also: tuple[str, ...] = ()
    """Regular expressions of one's own; letter case does not matter."""

    @field_validator("also")
    @classmethod
    def _expressions(cls, also: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_expression, also))

    def __call__(self, text: str, context: CheckContext) -> str | None:
        if (found := injection(text)) is not None:
            return f"it {found}"
        own = any(re.search(expression, visible(text), re.IGNORECASE) for expression in self.also)
        return "it matches an expression of `also`" if own else None


class Topics(Config):
    """Refuses a text in which no word of an allowed topic occurs.

    It compares words, not meanings: a text that names an allowed word passes, and one that speaks of a topic in other
    words is refused.
    """

    allowed: dict[str, tuple[str, ...]] = Field(min_length=1)
    """Topic to regular expressions, each for a whole word or several; letter case does not matter."""

    @field_validator("allowed")
    @classmethod
    def _expressions(cls, allowed: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return {topic: tuple(map(_expression, words)) for topic, words in allowed.items()}

    def __call__(self, text: str, context: CheckContext) -> str | None:
        words = (word for words in self.allowed.values() for word in words)
        if any(re.search(rf"\b(?:{word})\b", text, re.IGNORECASE) for word in words):
            return None
        return f"it is about none of the allowed topics: {', '.join(self.allowed)}"


class Length(Config):
    """Refuses a text that is too short or too long; `redact` cuts off what is too much."""

    min_chars: int = Field(default=0, ge=0)
    """Fewest characters that pass."""
    max_chars: int | None = Field(default=None, ge=1)
    """Most characters that pass; None is no limit."""

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.max_chars is None:
            if not self.min_chars:
                raise ValueError("set min_chars or max_chars")
        elif self.min_chars > self.max_chars:
            raise ValueError("min_chars is more than max_chars")
        return self

    def __call__(self, text: str, context: CheckContext) -> Finding | None:
        if len(text) < self.min_chars:
            return Finding(reason=f"it has {len(text):,} characters, fewer than {self.min_chars:,}")
        if self.max_chars is not None and len(text) > self.max_chars:
            reason = f"it has {len(text):,} characters, more than {self.max_chars:,}"
            return Finding(reason=reason, spans=((self.max_chars, len(text)),))
        return None


class Groundedness(Config):
    """Compares the numbers and words of an output or an answer with the evidence: tools' results, and the task itself.

    It catches a number, a name or a claim from nowhere. It misses right words in a wrong relation ("A beat B" for "B
    beat A") and a negation; it refuses what was computed, rounded, translated or said in other words. Without any
    evidence it refuses every text that holds a number or a word of four letters.
    """

    words: float = Field(default=0.8, ge=0, le=1)
    """Share of the words, of four letters and more, that must stand in the evidence; compared by six letters."""
    numbers: bool = True
    """Each number must stand there, in any notation of digits: 1,200 is 1200.0."""

    def __call__(self, text: str, context: CheckContext) -> Finding | None:
        known = "\n".join(context.evidence)
        lost_words, words = _unknown(_words(text), _words(known))
        lost_numbers, numbers = _unknown(_numbers(text), _numbers(known))
        reasons = []
        if self.numbers and lost_numbers:
            reasons.append(f"{len(lost_numbers)} of {numbers} numbers")
        if words and len(lost_words) > (1 - self.words) * words + 1e-9:
            reasons.append(f"{len(lost_words)} of {words} words")
        if not reasons:
            return None
        lost = (lost_numbers if self.numbers else []) + (lost_words if reasons[-1].endswith("words") else [])
        return Finding(reason=f"{' and '.join(reasons)} are not in the evidence", spans=tuple(lost))


CHECKS: dict[str, type[Config]] = {
    "personal_data": PersonalData,
    "secrets": Secrets,
    "prompt_injection": PromptInjection,
    "topics": Topics,
    "length": Length,
    "groundedness": Groundedness,
}
"""By the name that `check` of a `[[guardrails]]` table knows them by; its other keys are the check's options."""


def read_guardrail(row: Mapping[str, Any], origin: str) -> Guardrail:
    """The guardrail of one `[[guardrails]]` table; raises `ConfigError` that names `origin` and the key."""
    named = row.get("check")
    if not isinstance(named, str):
        raise ConfigError(f'{origin} needs `check`: one of {", ".join(CHECKS)}, or "module:function"')
    own = {key: value for key, value in row.items() if key in Guardrail.model_fields and key != "check"}
    options = {key: value for key, value in row.items() if key not in Guardrail.model_fields}
    name = named.rpartition(":")[2]
    values = {"name": name, **own, "check": _check(named, options, origin)}
    return parse_config(Guardrail, values, origin)


def _check(named: str, options: dict[str, Any], origin: str) -> Check:
    found = CHECKS.get(named) or _imported(named, origin)
    if isinstance(found, type) and issubclass(found, Config):
        check: Any = parse_config(found, options, origin, beside=Guardrail.model_fields)
    elif options:
        raise ConfigError(f"{origin}: {unknown_key(min(options), list(Guardrail.model_fields))}")
    else:
        check = found
    if not callable(check):
        raise ConfigError(f"{origin}: {named!r} is a {type(check).__name__}, not a function of a text and its context")
    return check  # type: ignore[no-any-return]


def _imported(named: str, origin: str) -> Any:
    if ":" not in named:
        raise ConfigError(f'{origin}: unknown check {named!r}; have {", ".join(CHECKS)}, or write "module:function"')
    return imported(named, f"{origin}:")


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None
    return text


def _matched(text: str, kinds: Iterable[str]) -> Finding | None:
    spans: list[tuple[int, int]] = []
    counts: dict[str, int] = {}
    for pattern in (pattern for kind in kinds for pattern in PATTERNS[kind]):
        if pattern.clue(text) and pattern.hinted(text):
            # What another pattern has claimed is no second find: a card's digits may look like a telephone number.
            new = [
                one for one in pattern.spans(text) if not any(one[0] < end and start < one[1] for start, end in spans)
            ]
            spans += new
            counts[pattern.kind] = counts.get(pattern.kind, 0) + len(new)
    found = ", ".join(f"{kind} ({count})" for kind, count in counts.items() if count)
    return Finding(reason=f"it holds {found}", spans=tuple(spans)) if found else None


Token = tuple[tuple[int, int], str]
"""Where it stands, and what it is compared by."""


def _words(text: str) -> list[Token]:
    return [(match.span(), match[0].casefold()[:6]) for match in re.finditer(r"[^\W\d_]{4,}", text)]


def _numbers(text: str) -> list[Token]:
    return [(match.span(), _number(match[0])) for match in re.finditer(r"\d+(?:[.,]\d+)*", text)]


def _number(text: str) -> str:
    digits = text.replace(",", "") if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", text) else text.replace(",", ".")
    try:
        return str(Decimal(digits).normalize())
    except InvalidOperation:
        return digits  # A version or a date, such as 1.2.3.


def _unknown(tokens: list[Token], known: list[Token]) -> tuple[list[tuple[int, int]], int]:
    """Where the tokens stand that are not among the known ones, and how many tokens there are."""
    there = {token for _, token in known}
    return [span for span, token in tokens if token not in there], len(tokens)
