"""What is killed: a run in a process of its own that writes down all it does, and may die at an instant it is told.

The diary is one file, appended to with one write a line, so that a kill -9 neither tears nor takes back what it says.
"""

import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from pydantic import JsonValue

from journeyman.runtime.store.run_store import RunRecord, RunStore


class Diary:
    """What was done, in the order in which it was done, in whichever process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, *words: str) -> None:
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(handle, f"{' '.join(words)}\n".encode())
        os.close(handle)

    def read(self) -> list[list[str]]:
        return [line.split() for line in self._path.read_text().splitlines()] if self._path.exists() else []


class Instants:
    """Counts the instants at which dying matters, and dies at the one that it is told."""

    def __init__(self, die_at: int | None, names: list[str] | None = None) -> None:
        self._left = die_at
        self.names = [] if names is None else names

    def pass_by(self, name: str) -> None:
        self.names.append(name)
        if self._left == len(self.names):
            os.kill(os.getpid(), signal.SIGKILL)


class MortalStore(RunStore):
    """A run store with an instant before and after each write."""

    def __init__(self, place: Path | str, diary: Diary, instants: Instants, *, durability: Any) -> None:
        super().__init__(place, durability=durability)
        self._diary = diary
        self._instants = instants

    @property
    def checkpointer(self) -> BaseCheckpointSaver[Any]:
        return MortalSaver(super().checkpointer, self._instants)

    async def put(self, record: RunRecord) -> RunRecord:
        self._instants.pass_by("before record")
        kept = await super().put(record)
        self._instants.pass_by("after record")
        return kept

    async def change(self, run_id: str, how: Callable[[RunRecord], RunRecord]) -> RunRecord:
        self._instants.pass_by("before record")
        changed = await super().change(run_id, how)
        self._instants.pass_by("after record")
        return changed

    async def note_step(self, run_id: str, place: str, number: int, value: Mapping[str, JsonValue]) -> None:
        self._instants.pass_by("before step")
        await super().note_step(run_id, place, number, value)
        self._diary.write("kept", place, str(number))
        self._instants.pass_by("after step")


class MortalSaver(BaseCheckpointSaver[Any]):
    """A checkpointer with an instant before and after each write."""

    def __init__(self, inner: BaseCheckpointSaver[Any], instants: Instants) -> None:
        super().__init__(serde=inner.serde)
        self._inner = inner
        self._instants = instants

    @property
    def config_specs(self) -> list[Any]:
        return self._inner.config_specs

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self._inner.get_next_version(current, channel)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self._inner.aget_tuple(config)

    async def alist(self, config: RunnableConfig | None, **options: Any) -> AsyncIterator[CheckpointTuple]:
        async for found in self._inner.alist(config, **options):
            yield found

    async def aput(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, new: ChannelVersions
    ) -> RunnableConfig:
        self._instants.pass_by("before superstep")
        put = await self._inner.aput(config, checkpoint, metadata, new)
        self._instants.pass_by("after superstep")
        return put

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._instants.pass_by("before writes")
        await self._inner.aput_writes(config, writes, task_id, task_path)
        self._instants.pass_by("after writes")

    async def adelete_thread(self, thread_id: str) -> None:
        await self._inner.adelete_thread(thread_id)
