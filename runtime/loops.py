"""Loops: async work for code that has no event loop, or has one that must not be touched.

Context variables of the caller are seen by the work, also where it gets a thread of its own.
"""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


def run_in_own_loop(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; inside a running event loop it gets a thread and a loop of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)

    async def only() -> AsyncIterator[T]:
        yield await work

    (found,) = iterate_in_own_loop(only)
    return found


async def side_by_side(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What all of `work` returns, done at once; the first failure cancels the others and is raised."""
    parts = list(work)
    if len(parts) == 1:
        return [await parts[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in parts]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def stop(task: "asyncio.Future[Any]") -> None:
    """Cancels `task` and waits for its end; it is cancelled once, however often whoever waits is."""
    task.cancel()
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    await asyncio.wait({task})


async def finished(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; whoever is cancelled while he waits for it waits for its end all the same."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def iterate_in_own_loop(items: Callable[[], AsyncIterator[T]]) -> Generator[T, None, None]:
    """The items of an async iterator, which runs in a thread of its own; leaving early cancels it.

    So does what interrupts the caller while it waits for the next one.
    """
    found: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
    cancels: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

    async def consume() -> None:
        task = asyncio.current_task()
        assert task is not None
        cancels.put(partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel))
        async for item in items():
            found.put((True, item))

    def target() -> None:
        error: BaseException | None = None
        try:
            asyncio.run(consume())
        except BaseException as raised:
            error = raised
        cancels.put(lambda: None)  # Where no loop could be had, nothing began that could be cancelled.
        found.put((False, error))

    thread = threading.Thread(target=copy_context().run, args=(target,))
    try:
        thread.start()  # It waits for the thread to begin, and may be interrupted there.
        while (item := found.get())[0]:
            yield item[1]
    except BaseException:
        if thread.is_alive():
            with suppress(RuntimeError):  # It may have ended in this moment, and its loop with it.
                cancels.get()()
        raise
    finally:
        if thread.is_alive():
            thread.join()
    if item[1] is not None:
        raise item[1]
