"""Moments: how a user names a time."""

from datetime import UTC, datetime

import pytest

from journeyman.runtime.commands.moments import moment_ns
from journeyman.traces.errors import ConfigError

NOW = 1_800_000_000 * 10**9


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600), ("1.5h", 5400)],
)
def test_a_span_of_time_is_before_now(text: str, seconds: int) -> None:
    assert moment_ns(text, now_ns=NOW) == NOW - seconds * 10**9


def test_a_date_is_itself() -> None:
    expected = datetime(2026, 11, 23, tzinfo=UTC).timestamp() * 1e9
    assert moment_ns("2026-11-23T00:00:00+00:00", now_ns=NOW) == expected
    local = datetime(2026, 11, 23).astimezone().timestamp() * 1e9
    assert moment_ns("2026-11-23", now_ns=NOW) == local


@pytest.mark.parametrize("text", ["", "7", "yesterday", "7 days", "-1d", "2026-13-01"])
def test_what_is_no_time_is_an_error_that_shows_one(text: str) -> None:
    with pytest.raises(ConfigError, match="7d"):
        moment_ns(text, now_ns=NOW)
