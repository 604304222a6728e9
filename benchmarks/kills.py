"""Claim: kill -9 at any moment takes nothing from a run and makes it do nothing twice; a fresh process ends it.

Each run is killed at one of the instants before and after each thing that it writes or does (all of them in turn), or
again and again at random ones, and is then taken up under the same id. What was done stands in a diary.
"""

import argparse
import asyncio
import json
import os
import random
import select
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, NoReturn

from _killed import Diary, Instants, MortalStore, SlowModel, crew_of
from _record import write_result

# Imported before anything is forked, because every child would have to do so anew.
import journeyman.runtime.graph
import journeyman.runtime.runstore_sqlite  # noqa: F401
from journeyman.runtime.runlocks import RunBusyError
from journeyman.runtime.runtime import Runtime
from journeyman.traces import attributes as a
from journeyman.traces.log import LogReader, SpanLog
from journeyman.traces.trace import Task
from journeyman.traces.tracer import Tracer

SEED = 13
LATENCY_S = 0.003
LATE_S = 60.0
RUN = "mortal-1"

SHAPES: dict[str, list[dict[str, Any]]] = {
    "flat": [{"worker": "worker", "goal": f"Find {place}"} for place in range(1, 5)],
    "chain": [
        {"worker": "worker", "goal": "Find 1"},
        {"worker": "worker", "goal": "Find 2 after {1}", "needs": [1]},
        {"worker": "worker", "goal": "Find 3 after {2}", "needs": [2]},
    ],
    "fan-out": [
        {"worker": "lister", "goal": "List 1 of three"},
        {"worker": "worker", "goal": "Find 2.{1}", "each": 1},
        {"worker": "worker", "goal": "Find 3 after {2}", "needs": [2]},
    ],
    "diamond": [
        {"worker": "worker", "goal": "Find 1"},
        {"worker": "worker", "goal": "Find 2 after {1}", "needs": [1]},
        {"worker": "worker", "goal": "Find 3 after {1}", "needs": [1]},
        {"worker": "worker", "goal": "Find 4 after {2} and {3}", "needs": [2, 3]},
    ],
}
STEPS = {
    "flat": ["1", "2", "3", "4"],
    "chain": ["1", "2", "3"],
    "fan-out": ["2.1", "2.2", "2.3", "3"],
    "diamond": ["1", "2", "3", "4"],
}


@dataclass(frozen=True)
class Place:
    """Where one run lives."""

    folder: Path
    shape: str
    durability: str

    @property
    def diary(self) -> Diary:
        return Diary(self.folder / "diary")

    @property
    def spans(self) -> Path:
        return self.folder / "spans"


class Child:
    """A process that does the run, or what is left of it."""

    def __init__(self, place: Place, die_at: int | None = None) -> None:
        self._read, write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _live(place, die_at, write)
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


def _live(place: Place, die_at: int | None, pipe: int) -> NoReturn:
    try:
        os.write(pipe, json.dumps(asyncio.run(_run(place, die_at))).encode())
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


async def _run(place: Place, die_at: int | None) -> dict[str, Any]:
    instants, diary = Instants(die_at), place.diary
    store = MortalStore(place.folder / "runs.db", diary, instants, durability=place.durability)
    tracer = Tracer(SpanLog(place.spans))
    prompt = f"Plan plan {json.dumps({'assignments': SHAPES[place.shape]})}"
    async with Runtime(crew_of(diary, instants), model=SlowModel(diary, LATENCY_S), tracer=tracer, runs=store) as one:
        try:
            outcome = await one.run(Task(id="mortal", prompt=prompt), run_id=RUN)
        except RunBusyError:
            return {"busy": True}
    return {"busy": False, "outcome": outcome.model_dump(mode="json"), "instants": instants.names}


@dataclass
class Counts:
    kills: int = 0
    kills_at: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    lost: int = 0
    doubled: int = 0
    model_calls: int = 0
    model_calls_again: int = 0
    """Asked again because the process died before the reply could be kept."""
    unsure: int = 0
    """Calls of the tool that may be called once only, which a kill left begun: the model was told so."""
    wrong: list[str] = field(default_factory=list)

    def check(self, place: Place, told: dict[str, Any], answer: str) -> None:
        """Holds a run that has ended to its diary, its record and its outcome."""
        self.runs += 1
        lines = place.diary.read()
        outcome = told["outcome"]
        missing, twice = _effects(lines, STEPS[place.shape])
        asked = [line for line in lines if line[0] == "asked"]
        self.model_calls += len(asked)
        self.model_calls_again += len(asked) - len({tuple(line) for line in asked})
        self.unsure += len({tuple(line) for line in lines if line[0] == "unsure"})
        lost = [f"effects {missing}"] * bool(missing)
        if outcome["status"] != "ok" or outcome["answer"] != answer:
            lost.append(f"the outcome is {outcome['status']} {outcome['answer']!r} {outcome['error']}")
        lost += [f"no record of {gone}" for gone in _unrecorded(place, outcome["trace_id"])]
        doubled = [f"effects {twice}"] * bool(twice) + [f"asked again: {line}" for line in _asked_twice(lines)]
        self.lost += len(lost)
        self.doubled += len(doubled)
        self.wrong += [f"{place.shape}, {place.durability}, {place.folder.name}: {what}" for what in lost + doubled]


def _effects(lines: Sequence[Sequence[str]], steps: Sequence[str]) -> tuple[list[str], list[str]]:
    """Effects that are missing without the model having been told so, and effects that are there twice."""
    done = Counter((line[0], line[1]) for line in lines if line[0] in ("book", "save"))
    unsure = {(line[1], line[2]) for line in lines if line[0] == "unsure"}
    wanted = [(tool, step) for tool in ("book", "save") for step in steps]
    missing = [f"{tool} {step}" for tool, step in wanted if not done[tool, step] and (tool, step) not in unsure]
    return missing, [f"{tool} {step}" for (tool, step), times in done.items() if times > 1]


def _asked_twice(lines: Sequence[Sequence[str]]) -> list[str]:
    """Model calls that were made again although their reply had been kept: something of that place was kept since."""
    kept: set[tuple[str, str]] = set()
    waiting: dict[str, str] = {}
    again = []
    for kind, place, *rest in lines:
        if kind == "asked":
            if (place, rest[0]) in kept:
                again.append(f"{place} {rest[0]}")
            waiting[place] = rest[0]
        elif kind == "kept" and place in waiting:
            kept.add((place, waiting.pop(place)))
    return again


def _unrecorded(place: Place, trace_id: str) -> list[str]:
    """Assignments of which the trace that the outcome names has no span that ended well."""
    spans = [span for span in LogReader(place.spans) if span.trace_id == trace_id and span.status == "ok"]
    worked = {span.attributes.get(a.ASSIGNMENT_ID) for span in spans if span.name.startswith("invoke_agent")}
    ended = any(a.OUTCOME in span.attributes for span in spans)
    return [step for step in STEPS[place.shape] if step not in worked] + ["the end"] * (not ended)


class Bench:
    def __init__(self, root: Path) -> None:
        self._root = root
        self.counts = Counts()

    def place(self, shape: str, durability: str) -> Place:
        folder = Path(tempfile.mkdtemp(dir=self._root))
        return Place(folder, shape, durability)

    def undisturbed(self, shape: str, durability: str) -> dict[str, Any]:
        told = Child(self.place(shape, durability)).wait()
        assert told is not None and told["outcome"]["status"] == "ok", told
        return told

    def every_instant(self, shape: str, durability: str, step: int) -> None:
        """Kills a run at each instant in turn (or each `step`-th), once, and lets a fresh process end it."""
        whole = self.undisturbed(shape, durability)
        for die_at in range(1, len(whole["instants"]) + 1, step):
            place = self.place(shape, durability)
            if Child(place, die_at).wait() is None:
                self.counts.kills += 1
                self.counts.kills_at[whole["instants"][die_at - 1]] += 1
            self._end(place, whole["outcome"]["answer"])

    def random_instants(self, shape: str, durability: str, kills: int, chance: random.Random) -> None:
        """Kills runs after a random time, several times each."""
        started = perf_counter()
        whole = self.undisturbed(shape, durability)
        seconds, until = perf_counter() - started, self.counts.kills + kills
        while self.counts.kills < until:
            place = self.place(shape, durability)
            for _ in range(chance.randint(1, 6)):
                if Child(place).wait(chance.uniform(0.0, seconds)) is not None:
                    break
                self.counts.kills += 1
                self.counts.kills_at["random"] += 1
            self._end(place, whole["outcome"]["answer"])

    def _end(self, place: Place, answer: str) -> None:
        """Two processes take the run up at once, of which one must do it; a third one finds it ended."""
        both = [Child(place), Child(place)]
        ended = [told for told in [child.wait() for child in both] if told is not None and not told["busy"]]
        told = Child(place).wait()
        assert told is not None
        lines = place.diary.read()
        self.counts.check(place, told, answer)
        if place.diary.read() != lines or any(one["outcome"] != told["outcome"] for one in ended) or not ended:
            self.counts.doubled += 1
            self.counts.wrong.append(f"{place.folder.name}: the run did not stay ended")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few dozen kills instead of some hundreds")
    quick = parser.parse_args().quick
    started = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        bench, chance = Bench(Path(folder)), random.Random(SEED)
        for number, shape in enumerate(["diamond"] if quick else SHAPES):
            for durability in ("async", "sync"):
                bench.every_instant(shape, durability, step=12 if quick else 1 + number % 2)
                bench.random_instants(shape, durability, 5 if quick else 25, chance)
                print(f"{shape:8} {durability:6} {bench.counts.kills:4} kills so far", flush=True)
    counts = bench.counts
    values = {name: value for name, value in vars(counts).items() if name != "wrong"}
    for name, value in values.items():
        print(f"{name:20} {value}")
    print(*counts.wrong[:20], sep="\n")
    write_result("kills", {**values, "seconds": round(perf_counter() - started, 1)}, seed=SEED, quick=quick)
    if counts.lost or counts.doubled:
        raise SystemExit("something was lost or done twice")


if __name__ == "__main__":
    main()
