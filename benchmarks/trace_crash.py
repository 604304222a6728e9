"""Claim: kill -9 at any moment loses no acknowledged trajectory and doubles none, also while compaction runs."""

import argparse
import fcntl
import itertools
import os
import random
import select
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from _record import write_result

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import LogReader, SpanLog, SpanRecord
from journeyman.traces.storage.compact import compact
from journeyman.traces.storage.segments import Segments

WRITERS = 4
TURNS = 3
SEED = 7
# Small, so that files close and become segments many times in a run.
ROTATE_BYTES = 200_000
DAY_NS = 86_400 * 10**9
SYSTEM = "You look things up, one tool call at a time, and answer with what you found. " * 20


class Worker:
    """A forked process; what it acknowledges comes through a pipe, which outlives it."""

    def __init__(self, work: Callable[[int], None]) -> None:
        self._read, write = os.pipe()
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 2**20)  # Nobody empties it while the process lives.
        self._pid = os.fork()
        if self._pid == 0:
            _child(work, write)
        os.close(write)

    @property
    def spoke(self) -> bool:
        return select.select([self._read], [], [], 0)[0] != []

    def kill(self) -> list[str]:
        """Kills it now, and gives what it had acknowledged."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        return self._said()

    def wait(self) -> list[str]:
        """Lets it end by itself, and gives what it had to say."""
        said = self._said()
        _, status = os.waitpid(self._pid, 0)
        if status != 0:
            raise RuntimeError(f"a process failed with status {status}")
        return said

    def _said(self) -> list[str]:
        with os.fdopen(self._read) as pipe:
            return pipe.read().splitlines()


def _child(work: Callable[[int], None], pipe: int) -> NoReturn:
    try:
        work(pipe)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def write(spans: Path, name: str, pipe: int) -> None:
    """Writes trajectories until it is killed; says which are durable."""
    log = SpanLog(spans, rotate_bytes=ROTATE_BYTES)
    number = 0
    while True:
        trajectory = f"{name}-{number}"
        for turn in range(TURNS):
            log.append(span(trajectory, f"{trajectory}.{turn}", number, SYSTEM), sync=False)
        log.append(span(trajectory, trajectory, number, None), sync=True)
        os.write(pipe, f"{trajectory}\n".encode())
        number += 1
        time.sleep(0.002)  # Compaction is to keep up with four of these on two cores.


def span(trajectory: str, span_id: str, number: int, system: str | None) -> SpanRecord:
    start_ns = 1_760_000_000_000_000_000 + number % 3 * DAY_NS + number  # Three days, so that one file has several.
    return SpanRecord(
        trace_id=trajectory,
        span_id=span_id,
        parent_id=None if system is None else trajectory,
        name="chat" if system else "invoke_agent",
        kind="client" if system else "internal",
        start_ns=start_ns,
        end_ns=start_ns + 1,
        status="ok",
        attributes={
            a.OPERATION: "chat" if system else "invoke_agent",
            a.AGENT_NAME: "lookup",
            a.INPUT_MESSAGES: f'[{{"role":"user","parts":[{{"type":"text","content":"{trajectory * 80}"}}]}}]',
            **({a.SYSTEM_INSTRUCTIONS: system} if system else {}),
        },
    )


def compact_once(spans: Path, pipe: int) -> None:
    done = compact(spans, Segments(spans))
    os.write(pipe, b"busy\n" if done.busy else b"compacted\n")


def keep_compacting(spans: Path, seed: int, pipe: int) -> None:
    """Compacts again and again until it is killed; says so each time."""
    chance = random.Random(seed)
    while True:
        compact_once(spans, pipe)
        time.sleep(chance.uniform(0, 0.3))


def found(spans: Path) -> Counter[str]:
    """How often each span is in the record, by id, read as any reader reads it."""
    segments = Segments(spans)
    while True:
        snapshot = segments.snapshot(spans)
        reader = LogReader(spans, files=snapshot.files, replaced=snapshot.replaced)
        ids = Counter(span.span_id for span in reader)
        try:
            for path in snapshot.paths():
                ids.update(segments.read(path)["span_id"].to_pylist())
        except FileNotFoundError:
            continue
        if not reader.vanished:
            return ids


def check(spans: Path, acknowledged: set[str], pipe: int) -> None:
    """Tells how many acknowledged trajectories are not there whole, how many spans are there twice, how many in all."""
    ids = found(spans)
    parts = ("", *(f".{turn}" for turn in range(TURNS)))
    lost = sum(not all(ids[trajectory + part] for part in parts) for trajectory in acknowledged)
    os.write(pipe, f"{lost} {sum(count > 1 for count in ids.values())} {len(ids)}".encode())


def checked(spans: Path, acknowledged: set[str]) -> tuple[int, int, int]:
    """`check` in a process of its own: this one has no threads, so that it can fork."""
    lost, duplicated, there = Worker(lambda pipe: check(spans, acknowledged, pipe)).wait()[0].split()
    return int(lost), int(duplicated), int(there)


def crash(spans: Path, kills: int, reads: int) -> dict[str, int]:
    """Kills one of the writers at random moments, now and then the compaction too, and reads while the others go on."""
    chance = random.Random(SEED)
    names = itertools.count()
    acknowledged: set[str] = set()
    lost = duplicated = compactions = compactions_killed = 0

    def writer() -> Worker:
        name = f"w{next(names)}"
        return Worker(lambda pipe: write(spans, name, pipe))

    def compactor() -> Worker:
        seed = chance.randrange(2**32)
        return Worker(lambda pipe: keep_compacting(spans, seed, pipe))

    writers = [writer() for _ in range(WRITERS)]
    compacting = compactor()
    for kill in range(1, kills + 1):
        time.sleep(chance.uniform(0.05, 0.8))
        place = chance.randrange(WRITERS)
        acknowledged |= set(writers[place].kill())
        writers[place] = writer()
        if compacting.spoke and chance.random() < 0.5:
            compactions += len(compacting.kill())
            compactions_killed += 1
            compacting = compactor()
        if kill % (kills // reads) == 0:
            now = checked(spans, acknowledged)
            lost, duplicated = lost + now[0], duplicated + now[1]
            print(f"{kill} kills: {len(acknowledged):,} acknowledged, {now[0]} lost, {now[1]} duplicated", flush=True)
    for one in writers:
        acknowledged |= set(one.kill())
    compactions += len(compacting.kill())
    before = checked(spans, acknowledged)
    compactions += Worker(lambda pipe: compact_once(spans, pipe)).wait().count("compacted")
    after = checked(spans, acknowledged)
    return {
        "kills": kills,
        "acknowledged": len(acknowledged),
        "lost": lost + before[0] + after[0],
        "duplicated": duplicated + before[1] + after[1],
        "spans": after[2],
        "spans_lost_by_last_compaction": before[2] - after[2],
        "compactions": compactions,
        "compactions_killed": compactions_killed,
        "reads_meanwhile": reads,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 kills instead of 100")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        counts = crash(Path(folder) / "spans", kills=20 if quick else 100, reads=2 if quick else 5)
    for name, count in counts.items():
        print(f"{name:30} {count:9,}")
    write_result("trace_crash", {"writers": WRITERS, **counts}, seed=SEED, quick=quick)
    if counts["lost"] or counts["duplicated"]:
        raise SystemExit("trajectories were lost or doubled")


if __name__ == "__main__":
    main()
