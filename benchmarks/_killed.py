"""What is killed: a run in a process of its own that writes down all it does, and may die at an instant it is told.

The diary is one file, appended to with one write a line, so that a kill -9 neither tears nor takes back what it says.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from hashlib import sha256
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

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.runtime.runstore import RunRecord, RunStore
from journeyman.runtime.scripted import ScriptedModel
from journeyman.tools.context import ToolContext
from journeyman.tools.tool import Tool


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

    def __init__(self, path: Path, diary: Diary, instants: Instants, *, durability: Any) -> None:
        super().__init__(path, durability=durability)
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


class SlowModel(ScriptedModel):
    """Plans what the task says, and works: book, save, answer. Takes a while for each reply."""

    def __init__(self, diary: Diary, latency_s: float) -> None:
        super().__init__(self._say)
        self._diary = diary
        self._latency_s = latency_s

    async def complete(self, request: ModelRequest) -> ModelReply:
        await asyncio.sleep(self._latency_s)
        return await super().complete(request)

    def _say(self, request: ModelRequest) -> str:
        asked = request.messages[1].content
        said = json.dumps([[one.role, one.content] for one in request.messages])
        self._diary.write("asked", asked.split()[1], sha256(said.encode()).hexdigest()[:16])
        if asked.startswith("Plan"):
            return asked[asked.index("{") :]
        if asked.startswith("List"):
            return json.dumps({"answer": ["1", "2", "3"]})
        step = asked.split()[1]
        shown = [one.content for one in request.messages[2:] if one.role == "user"]
        for tool in ("book", "save"):
            seen = [text for text in shown if text.startswith(f"{tool}: ")]
            if not seen:
                return json.dumps({tool: {"step": step}})
            if not any("done" in text for text in seen):
                self._diary.write("unsure", tool, step)
        return json.dumps({"answer": f"fact-{step}"})


def crew_of(diary: Diary, instants: Instants) -> Crew:
    """`book` may be called once and no more; `save` may be called again, and tells by its key that it was."""

    def book(step: str, context: ToolContext) -> str:
        instants.pass_by("before effect")
        diary.write("book", step, context.key)
        instants.pass_by("after effect")
        return f"done {step}"

    def save(step: str, context: ToolContext) -> str:
        instants.pass_by("before effect")
        if ["save", step, context.key] not in diary.read():
            diary.write("save", step, context.key)
        instants.pass_by("after effect")
        return f"done {step}"

    tools = {
        "book": Tool(book, name="book", description="Books a step.", writes=True),
        "save": Tool(save, name="save", description="Saves a step.", writes=True, idempotent=True),
    }
    limits = Limits(turns=8)
    worker = Agent(name="worker", instructions="Work.", tools=("book", "save"), limits=limits)
    lister = Agent(name="lister", instructions="List.", output="values")
    planner = Agent(name="planner", instructions="Plan.")
    return Crew(name="mortal", orchestrator=planner, workers=(worker, lister), tools=tools)
