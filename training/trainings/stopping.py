"""Ctrl-C and SIGTERM in a training: a checkpoint is saved first. The same signal again ends it at once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

Say = Callable[[str], None]
"""Called with a line that a user should read."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether training is to stop."""

    def __init__(self) -> None:
        self.asked = False
        self.begun = False
        """Whether there is a step that a checkpoint could hold."""

    def check(self) -> None:
        """After each step: raises `KeyboardInterrupt` where training is to stop."""
        self.begun = True
        if self.asked:
            raise KeyboardInterrupt


@contextmanager
def stoppable(say: Say) -> Iterator[Stop]:
    """Within the block the first of each signal asks to stop once there is something to save; the second raises
    `KeyboardInterrupt`. Signals reach a program's main thread only: in others nothing changes."""
    stop, seen = Stop(), set[int]()
    if current_thread() is not main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if number in seen or not stop.begun:
            raise KeyboardInterrupt
        seen.add(number)
        if not stop.asked:
            stop.asked = True
            say("stopping: a checkpoint is saved after this step (the same signal again ends at once)")

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
