"""Async work for code without an event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar

import pytest

from journeyman.runtime.loops import finished, iterate_in_own_loop, run_in_own_loop


async def twice(value: int) -> int:
    await asyncio.sleep(0)
    return 2 * value


def test_work_runs_without_an_event_loop() -> None:
    assert run_in_own_loop(twice(4)) == 8


async def test_work_runs_beside_an_event_loop_that_is_running() -> None:
    assert run_in_own_loop(twice(4)) == 8


async def test_work_sees_the_context_variables_of_its_caller() -> None:
    caller = ContextVar("caller", default="nobody")
    caller.set("Ada")

    async def asked() -> str:
        return caller.get()

    async def items() -> AsyncIterator[str]:
        yield caller.get()

    assert (run_in_own_loop(asked()), *iterate_in_own_loop(items)) == ("Ada", "Ada")


def test_items_come_as_they_are_made_and_an_error_comes_after_them() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise ValueError("no more")

    found = iterate_in_own_loop(items)
    assert [next(found), next(found)] == [1, 2]
    with pytest.raises(ValueError, match="no more"):
        next(found)


def test_leaving_early_cancels_the_work() -> None:
    ended: list[str] = []

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0.01)
        finally:
            ended.append("ended")

    found = iterate_in_own_loop(items)
    assert next(found) == 1
    found.close()
    assert ended == ["ended"]


async def test_work_comes_to_its_end_though_whoever_waits_for_it_is_cancelled() -> None:
    ended: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.01)
        ended.append("ended")

    waiting = asyncio.create_task(finished(work()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended == ["ended"]
