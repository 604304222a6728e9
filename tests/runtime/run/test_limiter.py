"""Places limit what goes on at once, in whatever event loop, and none is lost."""

import asyncio
import threading
from contextlib import suppress

from journeyman.runtime.run.limiter import Limiter


async def enter(limiter: Limiter, entered: list[str], name: str) -> None:
    async with limiter:
        entered.append(name)


async def test_whoever_waits_longest_is_next() -> None:
    limiter, entered = Limiter(1), list[str]()
    async with limiter:
        waiting = [asyncio.create_task(enter(limiter, entered, name)) for name in "abc"]
        await asyncio.sleep(0)
        assert entered == []
    await asyncio.gather(*waiting)
    assert entered == ["a", "b", "c"]


async def test_who_gives_up_leaves_the_place_to_the_next() -> None:
    limiter, entered = Limiter(1), list[str]()
    async with limiter:
        early, late, next_one = (asyncio.create_task(enter(limiter, entered, name)) for name in ("early", "late", "c"))
        await asyncio.sleep(0)
        early.cancel()
        await asyncio.sleep(0)
    late.cancel()  # It was called already, and has not heard of that.
    with suppress(asyncio.CancelledError):
        await late
    await next_one
    await enter(limiter, entered, "d")
    assert entered == ["c", "d"]


def test_all_event_loops_share_them() -> None:
    limiter, entered = Limiter(1), list[str]()
    waits = threading.Event()

    async def elsewhere() -> None:
        asyncio.get_running_loop().call_soon(waits.set)
        await enter(limiter, entered, "elsewhere")

    thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))

    async def here() -> None:
        async with limiter:
            thread.start()
            waits.wait()
            entered.append("here")

    asyncio.run(here())
    thread.join()
    assert entered == ["here", "elsewhere"]


def test_a_loop_that_has_ended_keeps_no_place() -> None:
    limiter, entered = Limiter(1), list[str]()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(limiter.__aenter__())
    waiting = loop.create_task(enter(limiter, entered, "gone"))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    asyncio.run(limiter.__aexit__(None, None, None))
    asyncio.run(enter(limiter, entered, "next"))
    waiting.get_coro().close()
    asyncio.run(enter(limiter, entered, "last"))
    assert entered == ["next", "last"]
