"""A process that does a run, or what is left of it, or says what a person says to it; it may die at any instant."""

import asyncio
import json
import os
import select
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from _killed import Diary, Instants, MortalStore
from _killed_crew import SHAPES, Shape, SlowModel, crew_of

# Imported before anything is forked, because every child would have to do so anew.
import journeyman.runtime.flow.graph
import journeyman.runtime.store.postgres
import journeyman.runtime.store.sqlite  # noqa: F401
from journeyman.runtime.flow.control import say
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.locks import RunBusyError
from journeyman.runtime.store.questions import Consent
from journeyman.runtime.store.run_store import RunStore
from journeyman.traces.capture.log import SpanLog
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.trace import Task

LATENCY_S = 0.003
LATE_S = 60.0

Job = Literal["run", "answer"]


@dataclass(frozen=True)
class Place:
    """Where one run lives."""

    folder: Path
    shape_name: str
    durability: str
    postgres: str | None = None
    """A server's URL; None for an SQLite file."""

    @property
    def shape(self) -> Shape:
        return SHAPES[self.shape_name]

    @property
    def run_id(self) -> str:
        return self.folder.name

    @property
    def runs(self) -> Path | str:
        return self.postgres or self.folder / "runs.db"

    @property
    def diary(self) -> Diary:
        return Diary(self.folder / "diary")

    @property
    def spans(self) -> Path:
        return self.folder / "spans"


class Child:
    def __init__(self, place: Place, job: Job = "run", die_at: int | None = None) -> None:
        self._read, write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _live(place, job, die_at, write)
        os.close(write)

    def wait(self, seconds: float = LATE_S) -> dict[str, Any] | None:
        """What it told at its end; None where it was killed, at the latest after so many seconds."""
        if not select.select([self._read], [], [], seconds)[0]:
            os.kill(self._pid, signal.SIGKILL)
        with os.fdopen(self._read) as pipe:
            told = pipe.read()
        _, status = os.waitpid(self._pid, 0)
        if not os.WIFSIGNALED(status) and status != 0:
            raise RuntimeError(f"a run's process failed with status {status}")
        return json.loads(told) if told else None


def _live(place: Place, job: Job, die_at: int | None, pipe: int) -> NoReturn:
    try:
        instants = Instants(die_at)
        told = asyncio.run(_run(place, instants) if job == "run" else _answer(place, instants))
        os.write(pipe, json.dumps({**told, "instants": instants.names}).encode())
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


async def _run(place: Place, instants: Instants) -> dict[str, Any]:
    diary, shape = place.diary, place.shape
    store = MortalStore(place.runs, diary, instants, durability=place.durability)
    tracer = Tracer(SpanLog(place.spans))
    crew = crew_of(shape, diary, instants)
    async with Runtime(crew, model=SlowModel(diary, LATENCY_S), tracer=tracer, runs=store) as runtime:
        try:
            outcome = await runtime.run(Task(id="mortal", prompt=shape.prompt), run_id=place.run_id)
        except RunBusyError:
            return {"busy": True}
    return {"busy": False, "outcome": outcome.model_dump(mode="json")}


async def _answer(place: Place, instants: Instants) -> dict[str, Any]:
    """Says yes to all that the run asks, and notes what was asked again after it had been answered."""
    diary, store = place.diary, RunStore(place.runs)
    said = {line[1] for line in diary.read() if line[0] == "said"}
    known = await (await store.open()).get(place.run_id)
    for question in () if known is None else known.open_questions:
        if question.id in said:
            diary.write("again", question.id)
        word = "done" if question.kind == "answer" else Consent(approved=True)
        instants.pass_by("before word")
        await say(store, place.run_id, word, question_id=question.id)
        instants.pass_by("after word")
        diary.write("said", question.id)
    await store.aclose()
    return {}
