"""Claim: beside what a model takes, the runtime costs next to nothing, and no more than LangGraph alone would.

The same work (`_delegation.py`: a plan, n workers with one tool call each, a join) with models and tools that answer at
once: in this runtime with its lossless record on disk and without, in raw LangGraph with langchain's models and tools,
and in other runtimes, which are installed from PyPI into an environment of their own. Every contender is a process;
rounds of all of them take turns, in an order that changes, so that whatever else the machine does meets them all.

A peer's orchestrator calls worker agents as its tools, all at once. `peers_in_code` is less than the same work: there
the program itself plans, starts and joins, and the runtime only runs single agents. In both their telemetry is off;
`peers_recorded` has it on, and each span with its messages in a file.

`langgraph_ms` is the leanest that LangGraph's and langchain's own parts allow: a worker is one node with a loop in it.
Beside it stand, for orientation, workers that are graphs of model and tool nodes, as its guides write them, and a graph
in which model and tools are bare functions, without messages, schemas or validation.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import IO, Any

from _contenders import CONTENDERS
from _delegation import expected
from _record import write_result

from journeyman.runtime.serving.embedded import cache_dir

SEED = 0
WORKERS = (1, 8, 32)
HERE = Path(__file__).parent
PEERS = {
    "openai-agents": "0.24.0",
    "pydantic-ai-slim": "2.68.0",
    "google-adk": "2.13.0",
    "strands-agents": "1.62.0",
    "agent-framework-core": "1.23.0",
}


def peers_python() -> Path:
    """The interpreter of an environment with the peers, in the cache; made when it is first asked for."""
    wanted = [f"{name}=={version}" for name, version in PEERS.items()]
    place = cache_dir().parent / f"peers-{hashlib.sha256(' '.join(wanted).encode()).hexdigest()[:8]}"
    python = place / "bin" / "python"
    ready = place / "installed"
    if not ready.exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "-q", "--clear", "--python", sys.executable, str(place)], check=True)
        subprocess.run([*uv, "pip", "install", "-q", "--python", str(python), *wanted], check=True)
        ready.touch()
    return python


class Contender:
    """A process that does the work on command."""

    def __init__(self, command: Sequence[str], log: IO[str]) -> None:
        # A file, because nobody reads a pipe: a peer that logs much would fill it, and wait for ever.
        self._log = log
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, cwd=HERE
        )

    def work(self, workers: int, tasks: int) -> list[float]:
        """Milliseconds of each task."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"workers": workers, "tasks": tasks}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._process.communicate()
            self._log.seek(0)
            raise SystemExit(f"{self._process.args!r} ended: {self._log.read()[-2000:]}")
        return [seconds * 1e3 for seconds in json.loads(line)]

    def close(self) -> None:
        self._process.communicate()


@contextmanager
def contenders(folder: Path) -> Iterator[dict[str, Contender]]:
    commands = {name: [sys.executable, "_contenders.py", name, str(folder)] for name in CONTENDERS}
    for name in PEERS:
        peer = [str(peers_python()), "_peers.py", name]
        commands |= {f"{name} {way}": [*peer, way] for way in ("delegates", "in_code")}
        commands[f"{name} recorded"] = [*peer, "delegates", str(_record_of(name, folder))]
    with ExitStack() as stack:
        started = {
            name: Contender(command, stack.enter_context(tempfile.TemporaryFile("w+")))
            for name, command in commands.items()
        }
        for contender in started.values():
            stack.callback(contender.close)
        yield started


def measure(rounds: int, tasks: int) -> dict[str, Any]:
    """Median milliseconds of a task, by contender and number of workers; `tasks` a round with a single worker."""
    order = random.Random(SEED)
    taken: dict[str, dict[int, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder, contenders(Path(folder)) as started:
        for number in range(rounds + 1):
            for name in order.sample(sorted(started), len(started)):
                for workers in WORKERS:
                    ms = started[name].work(workers, max(1, tasks // workers))
                    if number > 0:  # The first round warms up.
                        taken.setdefault(name, {}).setdefault(workers, []).extend(ms)
        for name in PEERS:
            if expected(1) not in _record_of(name, Path(folder)).read_text():
                raise SystemExit(f"{name} kept no record of what its agents said")
    rows = {name: [round(median(by_workers[workers]), 3) for workers in WORKERS] for name, by_workers in taken.items()}
    fast = {
        name: [round(sorted(by_workers[workers])[len(by_workers[workers]) // 10], 3) for workers in WORKERS]
        for name, by_workers in taken.items()
    }
    return {
        "workers": list(WORKERS),
        "ours_ms": rows["ours"],
        "ours_untraced_ms": rows["ours_untraced"],
        "langgraph_ms": rows["langgraph"],
        "peers": {name: rows[f"{name} delegates"] for name in PEERS},
        "peers_in_code": {name: rows[f"{name} in_code"] for name in PEERS},
        "peers_recorded": {name: rows[f"{name} recorded"] for name in PEERS},
        "langgraph_agents_ms": rows["langgraph_agents"],
        "langgraph_bare_ms": rows["langgraph_bare"],
        "tenth_percentile_ms": fast,
        "peer_versions": PEERS,
        "rounds": rounds,
    }


def _record_of(peer: str, folder: Path) -> Path:
    return folder / f"{peer}.jsonl"


def show(values: Mapping[str, Any]) -> None:
    print(f"{'ms a task (median)':30}" + "".join(f"{workers:>9} workers" for workers in values["workers"]))
    rows = {
        "ours, recorded": values["ours_ms"],
        "ours, not recorded": values["ours_untraced_ms"],
        "LangGraph": values["langgraph_ms"],
        "LangGraph, agents as graphs": values["langgraph_agents_ms"],
        "LangGraph, bare functions": values["langgraph_bare_ms"],
        **values["peers"],
        **{f"{name}, recorded": row for name, row in values["peers_recorded"].items()},
        **{f"{name}, in code": row for name, row in values["peers_in_code"].items()},
    }
    for name, row in rows.items():
        print(f"{name:30}" + "".join(f"{ms:17.2f}" for ms in row))
    for name in ("ours_ms", "ours_untraced_ms"):
        over = [ours / theirs for ours, theirs in zip(values[name], values["langgraph_ms"], strict=True)]
        print(f"{name + ' / langgraph_ms':30}" + "".join(f"{ratio:17.2f}" for ratio in over))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round instead of twelve")
    quick = parser.parse_args().quick
    values = measure(rounds=1, tasks=2) if quick else measure(rounds=12, tasks=16)
    show(values)
    write_result("overhead", values, seed=SEED, quick=quick)


if __name__ == "__main__":
    main()
