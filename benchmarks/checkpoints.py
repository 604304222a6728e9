"""Claim: a kept run costs some kilobytes an assignment while it goes on, and little more than its reports afterwards.

Real runs of growing plans (a scripted model, one tool call a worker, texts of ordinary length), in an SQLite store of
their own: bytes used when the run is about to end, and when its steps and all but its last checkpoint are dropped.
Beside it the seconds of the same runs without a store, and with one, with `durability` async and sync.
"""

import argparse
import asyncio
import json
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Literal

from _record import write_result

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.run_store import RunRecord, RunStore
from journeyman.tools.tool import tool
from journeyman.traces.trace import Task

SHAPES = {"1": (1, 0), "8": (8, 0), "33": (1, 1), "97": (1, 3), "193": (1, 6), "12 in a row": (-12, 0)}
"""Assignments of a run: how many of its own (negative: each needs the one before), and how many fan-outs of 32."""
FOUND = "The river rises in the hills above the town and is 87 km long; its mouth is a wide delta in the north. " * 3


@tool
def look_up(query: str) -> str:
    """Looks facts up."""
    return FOUND


class Scripted:
    """Plans a shape; each worker looks its goal up and answers, the first one with the values to fan out over."""

    def __init__(self, own: int, fans: int) -> None:
        goal = "How long is the river, by the newest survey that there is, and where does it rise?"
        self._plan: list[dict[str, Any]] = [{"worker": "clerk", "goal": f"{goal} ({n})"} for n in range(abs(own))]
        for number in range(1, -own):
            self._plan[number] |= {"goal": f"{goal} After {{{number}}}", "needs": [number]}
        self._plan += [{"worker": "clerk", "goal": f"{goal} Part {{1}}", "each": 1} for _ in range(fans)]
        self._values = [f"part {number}" for number in range(32)] if fans else ["87 km"]

    def __call__(self, request: ModelRequest) -> str:
        said = request.messages[-1].content
        if request.messages[0].content == "Plan.":
            return json.dumps({"assignments": self._plan})
        if not said.startswith("look_up: "):
            return write_call("look_up", {"query": said})
        first = "(0)" in request.messages[1].content
        return write_answer(self._values if first else ["87 km"])


def crew() -> Crew:
    clerk = Agent(name="clerk", instructions="Look up.", tools=("look_up",), output="values", limits=Limits(turns=3))
    boss = Agent(name="boss", instructions="Plan.", replans=0, limits=Limits(tokens=4096))
    return Crew(name="office", orchestrator=boss, workers=(clerk,), tools={"look_up": look_up})


class MeasuredStore(RunStore):
    """Looks at the file before and after the run's end."""

    def __init__(self, path: Path, durability: Literal["async", "sync"] = "async") -> None:
        super().__init__(path, durability=durability)
        self._path = path
        self.before: list[int] = []
        self.after: list[int] = []

    async def finish(self, record: RunRecord) -> RunRecord:
        assert record.status == "ok", record.outcome
        self.before.append(used(self._path))
        finished = await super().finish(record)
        self.after.append(used(self._path))
        return finished


def used(path: Path) -> int:
    """Bytes of the pages that hold something, those in the write-ahead log included."""
    with closing(sqlite3.connect(path)) as connection:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


async def growth(own: int, fans: int, runs: int) -> dict[str, Any]:
    """Bytes a run, the median of some, each beside those before it in one store."""
    with tempfile.TemporaryDirectory() as folder:
        store = MeasuredStore(Path(folder) / "runs.db")
        async with Runtime(crew(), model=ScriptedModel(Scripted(own, fans)), runs=store) as runtime:
            await store.open()
            starts = [used(Path(folder) / "runs.db")]
            for number in range(runs):
                outcome = await runtime.run(Task(id=f"t{number}", prompt="How long are the rivers?"))
                starts.append(store.after[-1])
    return {
        "workers": (outcome.model_calls - 1) // 2,
        "bytes_at_end": round(median(before - start for before, start in zip(store.before, starts, strict=False))),
        "bytes_after_finish": round(median(after - start for after, start in zip(store.after, starts, strict=False))),
    }


async def seconds(own: int, fans: int, runs: int) -> dict[str, float]:
    """Milliseconds a run: not kept, kept, and kept with each write on the disk; one after the other, in turns."""
    taken: dict[str, list[float]] = {"not_kept": [], "async": [], "sync": []}
    with tempfile.TemporaryDirectory() as folder:
        stores: dict[str, RunStore | None] = {
            "not_kept": None,
            "async": RunStore(Path(folder) / "async.db"),
            "sync": RunStore(Path(folder) / "sync.db", durability="sync"),
        }
        runtimes = {
            name: Runtime(crew(), model=ScriptedModel(Scripted(own, fans)), runs=store)
            for name, store in stores.items()
        }
        for number in range(runs + 1):
            for name, runtime in runtimes.items():
                started = perf_counter()
                outcome = await runtime.run(Task(id=f"t{number}", prompt="How long are the rivers?"))
                taken[name].append(perf_counter() - started)
                assert outcome.status == "ok", outcome
        for runtime in runtimes.values():
            await runtime.aclose()
    # The first run of each imports and opens what it needs.
    return {f"{name}_ms": round(1000 * median(times[1:]), 2) for name, times in taken.items()}


async def measure(shapes: Sequence[str], runs: int) -> list[dict[str, Any]]:
    rows = []
    print(f"{'assignments':>12} {'KB at end':>10} {'KB after':>9} {'not kept ms':>12} {'async ms':>9} {'sync ms':>8}")
    for name in shapes:
        own, fans = SHAPES[name]
        row = {"assignments": name, **await growth(own, fans, runs), **await seconds(own, fans, runs)}
        print(
            f"{name:>12} {row['bytes_at_end'] / 1024:10.0f} {row['bytes_after_finish'] / 1024:9.0f} "
            f"{row['not_kept_ms']:12.1f} {row['async_ms']:9.1f} {row['sync_ms']:8.1f}"
        )
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three shapes, three runs of each instead of nine")
    quick = parser.parse_args().quick
    rows = asyncio.run(measure(("1", "8", "33") if quick else tuple(SHAPES), 3 if quick else 9))
    write_result("checkpoints", {"runs": rows}, seed=None, quick=quick)


if __name__ == "__main__":
    main()
