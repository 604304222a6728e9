"""The limiter: a limit on what goes on at once, over all event loops and threads of a process."""

import asyncio
import threading
from collections import deque
from types import TracebackType


class Limiter:
    """What `asyncio.Semaphore` is for one event loop, for any number of them. Whoever waits longest is next."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: deque[_Waiter] = deque()
        self._lock = threading.Lock()

    async def __aenter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = _Waiter()
            self._waiting.append(turn)
        try:
            await turn.came
        except BaseException:
            self._give_up(turn)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._hand_on()

    def _hand_on(self) -> None:
        """To the next whose event loop is still there; a turn that nobody waits for is free."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._free += 1
                    return
                turn = self._waiting.popleft()
                turn.has_turn = True
            if turn.call():
                return
            turn.has_turn = False

    def _give_up(self, turn: "_Waiter") -> None:
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
        if turn.has_turn:
            self._hand_on()


class _Waiter:
    """Of one who waits."""

    def __init__(self) -> None:
        self.has_turn = False
        self.came = asyncio.get_running_loop().create_future()

    def call(self) -> bool:
        """False where the event loop has ended, and with it all who waited there."""
        try:
            self.came.get_loop().call_soon_threadsafe(self._come)
        except RuntimeError:
            return False
        return True

    def _come(self) -> None:
        if not self.came.done():
            self.came.set_result(None)
