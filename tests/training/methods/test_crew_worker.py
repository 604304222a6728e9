"""Rollouts in the queue of TRL's AsyncGRPOTrainer, up to what needs a GPU."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from threading import Event
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import pytest

from journeyman.traces.errors import ConfigError, ServerError, TrainingError
from journeyman.training.methods.recipes.grpo import GRPORecipe
from journeyman.training.rollouts.rows import TurnRow

if TYPE_CHECKING:
    from journeyman.training.methods.trainers.grpo.crew_worker import CrewWorker

pytestmark = [pytest.mark.train, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]


def row(group: str, **changes: Any) -> TurnRow:
    return TurnRow(
        agent="worker",
        role="turn 1",
        group=group,
        trace_id="1" * 32,
        span_id="2" * 16,
        prompt_ids=(3, 4, 5),
        completion_ids=(6, 7),
        old_logprobs=(-0.5, -0.25),
        reward=1.0,
        advantage=0.5,
        version=0,
    ).model_copy(update=changes)


def worker(sample: Callable[[int], Sequence[TurnRow]], queued: int = 8) -> "CrewWorker":
    from journeyman.training.methods.trainers.grpo.crew_worker import CrewWorker

    return CrewWorker(sample, queued)


def until(happened: Callable[[], bool]) -> None:
    end = monotonic() + 20
    while not happened() and monotonic() < end:
        sleep(0.01)
    assert happened()


def drained(one: "CrewWorker", number: int, version: int, metrics: Any = None) -> list[dict[str, Any]]:
    """What TRL's trainer takes out of the queue."""
    from trl.experimental.async_grpo.async_grpo_trainer import RolloutQueueDataset

    sink = defaultdict(list) if metrics is None else metrics
    made: Any = RolloutQueueDataset
    dataset = made(one.rollout_buffer, lambda: version, one.check_health, 60.0, sink, max_staleness=1)
    return list(islice(iter(dataset), number))


def test_trl_s_trainer_takes_rows_with_their_masks_logprobs_and_advantages() -> None:
    one = worker(lambda version: [row("a", weight=2.0), row("a"), row("b")])
    one.start()
    try:
        first, second, third, fourth = drained(one, 4, version=0)
    finally:
        one.stop()
    assert first["input_ids"].tolist() == [3, 4, 5, 6, 7]
    assert first["completion_mask"].tolist() == [0, 0, 0, 1, 1]
    assert first["old_log_probs"].tolist() == [0.0, 0.0, 0.0, -0.5, -0.25]
    assert (first["advantage"], second["advantage"], first["metrics"]) == (1.0, 0.5, {"reward": 1.0})
    assert [one["group_id"] for one in (first, second, third, fourth)] == [0, 0, 1, 2], "each call has its own groups"


def test_rows_of_weights_that_are_too_old_are_dropped_by_trl_and_counted() -> None:
    asked: list[int] = []

    def sample(version: int) -> list[TurnRow]:
        asked.append(version)
        return [row("a", reward=float(version))]

    one = worker(sample, queued=2)
    one.start()
    until(one.rollout_buffer.full)
    one.update_model_version(3)
    metrics: dict[str, list[float]] = defaultdict(list)
    try:
        (taken,) = drained(one, 1, version=3, metrics=metrics)
    finally:
        one.stop()
    assert taken["metrics"] == {"reward": 3.0}
    assert len(metrics["sample/dropped_stale_total"]) >= 2
    assert asked[0] == 0 and asked[-1] == 3


def test_a_server_that_fails_ends_the_training_with_its_own_line() -> None:
    def fails(version: int) -> list[TurnRow]:
        raise ServerError("the server is gone: start it again")

    one = worker(fails)
    one.start()
    one.stop()
    with pytest.raises(ServerError, match="the server is gone: start it again"):
        one.check_health(60.0)


def test_any_other_fault_is_told_in_one_line() -> None:
    one = worker(lambda version: [][0])
    one.start()
    one.stop()
    with pytest.raises(TrainingError, match="rollouts stopped: list index out of range"):
        one.check_health(60.0)


def test_rollouts_that_hang_are_noticed() -> None:
    hang = Event()

    def hangs(version: int) -> list[TurnRow]:
        hang.wait(30)
        return []

    one = worker(hangs)
    one.start()
    sleep(0.05)
    with pytest.raises(TrainingError, match="no rollout came for 0 s: look at the server"):
        one.check_health(0.01)
    hang.set()
    one.stop()


def test_a_full_queue_holds_rollouts_back_and_does_not_hold_up_the_end() -> None:
    calls: list[int] = []

    def sample(version: int) -> list[TurnRow]:
        calls.append(version)
        return [row("a")] * 3

    one = worker(sample, queued=2)
    one.start()
    until(one.rollout_buffer.full)
    sleep(0.3)
    one.check_health(60.0)
    one.stop()
    assert len(calls) == 1


def test_without_a_gpu_the_trainer_is_refused_with_what_to_do(tmp_path: Path) -> None:
    import torch

    from journeyman.training.methods.trainers.grpo.crew_worker import async_trainer

    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(ConfigError, match="AsyncGRPOTrainer needs a CUDA GPU with FlashAttention-3: train the recipe"):
        async_trainer(worker(lambda version: []), GRPORecipe(), tmp_path, tmp_path, server_url="http://x", steps=1)
