"""Wording: how values are written for a person: durations, counts, ages, and texts that cannot take over a terminal."""

import json
import re
from typing import Any

from rich.text import Text

from journeyman.traces.messages import Usage

SHORT = 160
"""Characters of a text that are shown when it is not shown in full."""

COLOURS = {"ok": "green"} | dict.fromkeys(("failed", "timeout", "invalid", "blocked", "denied"), "red")
COLOURS |= dict.fromkeys(("skipped", "cancelled"), "dim")
"""Every other status is yellow."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def joined(*parts: Text | str | None) -> Text:
    """The parts that are there, with dots between them."""
    return Text(" · ").join([part if isinstance(part, Text) else Text(part) for part in parts if part])


def status_text(status: str) -> Text:
    return Text(status, COLOURS.get(status, "yellow"))


def tokens(usage: Usage) -> str:
    cached = f", {usage.cached_tokens:,} cached" if usage.cached_tokens else ""
    return f"{usage.input_tokens:,} → {usage.output_tokens:,} tokens{cached}"


def count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def scalar(value: bool | float | str | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def line(text: str) -> str:
    """The text on one line, whatever it holds."""
    return " ".join(visible(text).split())


def visible(text: str) -> str:
    """The text without control characters, with which a tool's result could take over the terminal or show its own
    words in another order, and without half surrogate pairs, which cannot be written."""
    return _CONTROL.sub("\ufffd", text)


def shortened(text: str, limit: int = SHORT) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest:02d}s"


def age(ns: int) -> str:
    seconds = max(0, ns // 1_000_000_000)
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
