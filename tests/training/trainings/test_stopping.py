"""The first signal asks, the second one ends; before there is anything to save the first one ends."""

import os
import signal

import pytest

from journeyman.training.trainings.stopping import stoppable


def test_the_first_signal_is_noted_and_the_same_one_again_ends_at_once() -> None:
    said: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), stoppable(said.append) as stop:
        stop.begun = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
        os.kill(os.getpid(), signal.SIGINT)  # As where a launcher passes Ctrl-C on.
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it went on")
    assert len(said) == 1
    assert signal.getsignal(signal.SIGTERM) == before


def test_before_the_first_step_there_is_nothing_to_save() -> None:
    with pytest.raises(KeyboardInterrupt), stoppable(print):
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it went on")
