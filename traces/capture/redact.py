"""Redaction: secrets and personal data are taken out of a text, or out of the texts within JSON, before it is kept."""

import json
from collections.abc import Callable, Iterable
from itertools import chain
from typing import TypeAlias, cast

from pydantic import JsonValue

from journeyman.traces.capture.patterns import PATTERNS, Clue, Pattern, is_random, may_name_secret, names_secret
from journeyman.traces.errors import ConfigError
from journeyman.traces.imports import imported

Redaction: TypeAlias = Callable[[str], str]
"""A function of one's own: gets a text, and gives back what may be kept of it."""

MARK = "[redacted:"

_SHORTEST = 6
"""Characters without which a text can be nothing of the kind: an address such as a@b.io."""

_LONG = 10**9
"""Shorter numbers are neither a card's nor a telephone's."""


class Redactor:
    """Takes out what the named patterns describe, then whatever functions of one's own take out."""

    def __init__(self, redact: Iterable[str | Redaction] = ("keys",)) -> None:
        """Names are `keys`, `email`, `phone`, `card`, or `module:function`; raises `ConfigError` for another one."""
        asked = list(redact)
        names = {one for one in asked if isinstance(one, str) and ":" not in one}
        if unknown := sorted(names - PATTERNS.keys()):
            raise ConfigError(f"redact: unknown name {unknown[0]!r}; have {', '.join(PATTERNS)}, or module:function")
        self._patterns = [pattern for name, patterns in PATTERNS.items() if name in names for pattern in patterns]
        self._own = [one for one in asked if not isinstance(one, str)]
        self._own += [_load(one) for one in asked if isinstance(one, str) and one not in names]
        self._by_clue: dict[Clue, list[Pattern]] = {}
        for pattern in self._patterns:
            self._by_clue.setdefault(pattern.clue, []).append(pattern)
        self._hints = [
            (clue, tuple(chain.from_iterable(one.hints or ("",) for one in patterns)))
            for clue, patterns in self._by_clue.items()
        ]
        self._judges_names = "keys" in names

    def __bool__(self) -> bool:
        return bool(self._patterns or self._own)

    def suspects(self, text: str) -> bool:
        """Whether something may be found in `text`, or in texts that stand in it as JSON; False is certain."""
        if self._own:
            return True
        # A letter that JSON need not escape, but may, could hide a hint.
        if "\\u00" in text:
            return bool(self._patterns)
        return any(clue(text) and any(map(text.__contains__, hints)) for clue, hints in self._hints)

    def redact(self, text: str, found: set[str], *, name: str = "") -> str:
        """What may be kept of `text`, whose name, e.g. `password`, may tell what it is; the kinds go to `found`.

        JSON stays JSON: its texts are redacted one by one. What a function of one's own raises travels.
        """
        if self._is_secret(name, text):
            found.add("key")
            return f"{MARK}key]"
        if text[:1] in ("{", "[", '"'):
            try:
                value = json.loads(text)
            except ValueError:
                pass
            else:
                changed = self._walk(value, found, name)
                return text if changed == value else json.dumps(changed, ensure_ascii=False)
        return self._plain(text, found)

    def _walk(self, value: JsonValue, found: set[str], name: str) -> JsonValue:
        if isinstance(value, str):
            return self.redact(value, found, name=name)
        if isinstance(value, list):
            return [self._walk(one, found, name) for one in value]
        if isinstance(value, dict):
            return {self._plain(key, found): self._walk(one, found, key) for key, one in value.items()}
        if isinstance(value, int) and value >= _LONG:
            kept = self._plain(str(value), found)
            return value if kept == str(value) else kept
        return value

    def _is_secret(self, name: str, text: str) -> bool:
        if not self._judges_names or not name or len(text) < 4 or text.startswith(MARK):
            return False
        return names_secret(name) or (may_name_secret(name) and is_random(text))

    def _plain(self, text: str, found: set[str]) -> str:
        for clue, patterns in self._by_clue.items() if len(text) >= _SHORTEST else ():
            if clue(text):
                for pattern in patterns:
                    text = pattern.redact(text, found) if pattern.hinted(text) else text
        for function in self._own:
            kept = function(text)
            if not isinstance(kept, str):
                raise TypeError(f"it gave a {type(kept).__name__}, not a text")
            if kept != text:
                found.add(_name(function))
            text = kept
        return text


def _load(name: str) -> Redaction:
    found = imported(name, "redact")
    if not callable(found):
        raise ConfigError(f"redact {name!r} is a {type(found).__name__}, not a function of a text")
    return cast("Redaction", found)


def _name(function: Redaction) -> str:
    return getattr(function, "__name__", type(function).__name__)
