"""Reported: a log's times in microseconds, or seconds as text, became the file's own time without a word."""

from pathlib import Path
from typing import Any

import pytest

from journeyman.traces.errors import StoreError
from journeyman.traces.exchange.chatlog import read_conversation

SECOND = 1774747800


def started(value: Any) -> int | None:
    return read_conversation({"created_at": value, "messages": [{"role": "assistant", "content": "x"}]}).started_ns


@pytest.mark.parametrize(
    "value",
    [
        *(SECOND * factor for factor in (1, 10**3, 10**6, 10**9)),
        *(str(SECOND * factor) for factor in (1, 10**3, 10**6, 10**9)),
        *("2026-03-29T01:30:00Z", "2026-03-29T03:30:00+02:00", "20260329T013000Z", "2026-03-29 01:30:00.000000000Z"),
        *(float(SECOND), f"{SECOND}.0", "2026-03-29T01:30:00"),
    ],
)
def test_a_time_is_read_in_any_unit(value: Any) -> None:
    assert started(value) == SECOND * 10**9


@pytest.mark.parametrize("value", [-5, "yesterday", True, "12:30", 10**20, float("nan"), [SECOND]])
def test_a_time_that_cant_be_read_is_told(value: Any) -> None:
    with pytest.raises(StoreError, match=r"`created_at` .* isn't a time: write seconds"):
        started(value)


@pytest.mark.parametrize("value", [None, "", 0])
def test_a_time_that_isnt_there_is_the_files(value: Any) -> None:
    assert started(value) is None


def test_the_other_conversations_of_the_file_are_there(journeyman: Any, reports: Path, tmp_path: Path) -> None:
    ended = journeyman("traces", "import", reports / "created_at" / "x.jsonl", "-C", tmp_path)
    assert (ended.code, ended.err.count("isn't a time")) == (3, 2)
    assert "24 spans" in ended.out


@pytest.mark.parametrize("value", ["9999-12-31T00:00:00Z", "2262-05-01", 5 * 10**10, "1969-12-31T23:59:59Z"])
def test_a_time_that_no_span_can_hold_is_told(value: Any) -> None:
    with pytest.raises(StoreError, match="isn't a time"):
        started(value)


def test_a_date_is_exact_to_the_microsecond() -> None:
    assert started("2026-03-29T03:30:00.123457+02:00") == SECOND * 10**9 + 123457000
