"""Moments: how a user names a time, `7d` ago or a date."""

import re
from datetime import datetime

from journeyman.traces.errors import ConfigError

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def moment_ns(text: str, *, now_ns: int) -> int:
    """Nanoseconds since 1970 of `30m`, `12h`, `7d` or `2w` before now, or of an ISO date or time, local unless it
    names a zone; raises `ConfigError`."""
    if ago := re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip()):
        return now_ns - round(float(ago[1]) * _UNITS_S[ago[2]] * 1e9)
    try:
        return round(datetime.fromisoformat(text.strip()).astimezone().timestamp() * 1e9)
    except (ValueError, OverflowError):
        raise ConfigError(f"{text!r} isn't a time: give 30m, 12h, 7d or 2w, or a date such as 2026-11-23") from None
