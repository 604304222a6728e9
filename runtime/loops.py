"""Loops: async work for code that has no event loop, or has one that must not be touched."""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


def run_in_own_loop(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; inside a running event loop it gets a thread and a loop of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    results: list[T] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


async def stop(task: "asyncio.Future[Any]") -> None:
    """Cancels `task` and waits for its end; it is cancelled once, however often whoever waits is."""
    task.cancel()
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    await asyncio.wait({task})


def iterate_in_own_loop(items: Callable[[], AsyncIterator[T]]) -> Generator[T, None, None]:
    """The items of an async iterator, which runs in a thread of its own; leaving early cancels it."""
    found: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
    started: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = queue.SimpleQueue()

    async def consume() -> None:
        task = asyncio.current_task()
        assert task is not None
        started.put((asyncio.get_running_loop(), task))
        async for item in items():
            found.put((True, item))

    def target() -> None:
        try:
            asyncio.run(consume())
        except BaseException as error:
            found.put((False, error))
        else:
            found.put((False, None))

    thread = threading.Thread(target=target)
    thread.start()
    loop, task = started.get()
    try:
        while True:
            is_item, value = found.get()
            if is_item:
                yield value
            elif value is not None:
                raise value
            else:
                return
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
