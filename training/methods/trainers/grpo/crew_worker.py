"""TRL's AsyncGRPOTrainer fed by runs of a crew: its `rollout_worker`. It needs a CUDA GPU with FlashAttention-3."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import count
from pathlib import Path
from queue import Full, Queue
from threading import Event, Thread
from time import monotonic, time
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset  # type: ignore[import-untyped]
from trl.experimental.async_grpo.async_grpo_config import AsyncGRPOConfig
from trl.experimental.async_grpo.async_grpo_trainer import AsyncGRPOTrainer
from trl.experimental.async_grpo.async_rollout_worker import RolloutSample

from journeyman.traces.errors import ConfigError, JourneymanError, TrainingError
from journeyman.training.methods.recipes.grpo import GRPORecipe, choose
from journeyman.training.methods.rows import read_tokenizer
from journeyman.training.methods.trainers.skeleton import OURS
from journeyman.training.methods.trainers.weights import lora, parameters_of
from journeyman.training.rollouts.rows import TurnRow

Sample = Callable[[int], Sequence[TurnRow]]
"""Runs the crew with the weights of a version, and gives what is learned from it. Called in a thread of its own."""

QUEUED = 1024
"""Rows that wait for the trainer at most; then no run begins."""
POLL_SECONDS = 0.2


class CrewWorker:
    """Rows of rollouts in a queue that TRL's trainer drains: its `RolloutWorkerProtocol`."""

    def __init__(self, sample: Sample, queued: int = QUEUED) -> None:
        self.rollout_buffer: Queue[RolloutSample] = Queue(queued)
        self.metrics_queue: Queue[dict[str, Any]] = Queue()
        self._sample = sample
        self._version = 0
        self._groups = count()
        self._stopped = Event()
        self._failed: JourneymanError | None = None
        self._alive = monotonic()
        self._thread = Thread(target=self._run, name="crew-rollouts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends once the runs that have begun are over."""
        self._stopped.set()
        self._thread.join()

    def update_model_version(self, model_version: int) -> None:
        self._version = model_version

    def check_health(self, stale_after_s: float) -> None:
        """Raises what ended the rollouts, or `TrainingError` where none came for so many seconds."""
        if self._failed is not None:
            raise self._failed
        if (silent := monotonic() - self._alive) > stale_after_s:
            raise TrainingError(f"no rollout came for {silent:.0f} s: look at the server with `journeyman doctor`")

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                version = self._version
                self._put([_queued(row, version, number) for row, number in self._numbered(self._sample(version))])
        except JourneymanError as error:
            self._failed = error
        except Exception as error:
            self._failed = TrainingError(f"rollouts stopped: {error or type(error).__name__}")

    def _numbered(self, rows: Sequence[TurnRow]) -> list[tuple[TurnRow, int]]:
        """Rows with the numbers of their groups, which no other call's groups have."""
        numbers = {group: next(self._groups) for group in dict.fromkeys(row.group for row in rows)}
        return [(row, numbers[row.group]) for row in rows]

    def _put(self, samples: Sequence[RolloutSample]) -> None:
        for sample in samples:
            while not self._stopped.is_set():
                self._alive = monotonic()
                try:
                    self.rollout_buffer.put(sample, timeout=POLL_SECONDS)
                    break
                except Full:
                    continue


def _queued(row: TurnRow, version: int, group: int) -> RolloutSample:
    """A row as TRL's: prompt and reply in one, a mask that is 1 on the reply, and its logprobs after zeros."""
    before = len(row.prompt_ids)
    return RolloutSample(
        prompt=[],
        completion=[],
        input_ids=np.array([*row.prompt_ids, *row.completion_ids]),
        completion_mask=np.array([0] * before + [1] * len(row.completion_ids)),
        old_log_probs=np.array([0.0] * before + list(row.old_logprobs), dtype=np.float32),
        advantage=row.advantage * row.weight,
        model_version=version,
        group_id=group,
        metrics={"reward": row.reward},
        enqueued_at=time(),
    )


def async_trainer(
    worker: CrewWorker, recipe: GRPORecipe, base_model: Path, folder: Path, *, server_url: str, steps: int
) -> AsyncGRPOTrainer:
    """TRL's trainer that learns while `worker` samples; it publishes its adapter to the server as `trl-policy-vN`.

    Raises `ConfigError` without a GPU, and for keys of the recipe that this trainer hasn't got.
    """
    if not torch.cuda.is_available():
        raise ConfigError(
            "AsyncGRPOTrainer needs a CUDA GPU with FlashAttention-3: train the recipe with `journeyman train`, which "
            "learns between rollouts"
        )
    known = {field.name for field in fields(AsyncGRPOConfig) if field.init}
    if idle := next((key for key in recipe.trl if key not in known), None):
        raise ConfigError(f"recipe: trl.{idle}: AsyncGRPOTrainer hasn't got it; remove it")
    chosen = {choice.key.removeprefix("trl."): choice.value for choice in choose(recipe, parameters_of(base_model))}
    ours: dict[str, Any] = {
        **OURS,
        "output_dir": str(folder),
        "max_steps": steps,
        "num_generations": recipe.rollouts.group,
        "max_staleness": max(1, recipe.rollouts.staleness),
        "vllm_server_base_url": server_url,
    }
    return AsyncGRPOTrainer(
        str(base_model),
        args=AsyncGRPOConfig(**{key: value for key, value in chosen.items() if key in known} | ours),
        train_dataset=Dataset.from_list([{"prompt": ""}]),
        processing_class=read_tokenizer(base_model),
        peft_config=lora(recipe, base_model),
        rollout_worker=cast("Any", worker),  # TRL types its queues as of any content.
    )
