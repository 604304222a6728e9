"""A program for `test_durable.py`: runs a chain of six assignments in a folder, goes on with it, or replays it."""

import asyncio
import json
import sys
from pathlib import Path

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.runtime.api.draining import drains
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.replay.replay import Replay
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.run_store import RunStore
from journeyman.tools.tool import Tool
from journeyman.traces.capture.log import SpanLog
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.reports.diff import diff
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.trace import Task

FOLDER = Path(sys.argv[1])


class Slow(ScriptedModel):
    async def complete(self, request: ModelRequest) -> ModelReply:
        await asyncio.sleep(0.02)
        return await super().complete(request)


def says(request: ModelRequest) -> str:
    last = request.messages[-1].content
    if request.messages[0].content == "Plan.":
        rows = [{"worker": "w", "goal": f"g{n}", **({"needs": [n - 1]} if n > 1 else {})} for n in range(1, 7)]
        return json.dumps({"assignments": rows})
    return json.dumps({"answer": "ok"} if last.startswith("note:") else {"note": {"text": last.split()[0]}})


def note(text: str) -> str:
    """Notes a text down."""
    with (FOLDER / "notes").open("a") as file:
        file.write(text + "\n")
    return "noted"


CREW = Crew(
    name="c",
    orchestrator=Agent(name="o", instructions="Plan."),
    workers=(Agent(name="w", instructions="Work.", tools=("note",)),),
    tools={"note": Tool(note, idempotent=False)},
)


async def main() -> None:
    tracer, runs = Tracer(SpanLog(FOLDER / "spans")), RunStore(FOLDER / "runs.db")
    async with Runtime(CREW, model=Slow(says), tracer=tracer, runs=runs) as runtime, drains(runtime):
        async for event in runtime.stream(Task(id="t", prompt="go"), run_id="r"):
            print(event.outcome.status if event.kind == "ended" else event.kind, flush=True)


async def replay() -> None:
    (recorded,) = TraceStore(FOLDER / "spans", FOLDER / "labels.jsonl").traces()
    again, log = Replay(recorded, CREW), SpanLog(FOLDER / "replayed")
    outcome = await Runtime(again.crew, model=again.models, tracer=Tracer(log), words=again.words).run(again.task)
    (replayed,) = TraceStore(FOLDER / "replayed", FOLDER / "labels.jsonl").traces()
    first = diff(recorded, replayed).first
    print(outcome.status, "the same" if first is None else first.model_dump_json())


asyncio.run(replay() if "replay" in sys.argv else main())
