"""Claim: a span costs a run tens of microseconds, a million of them fit in a fifth of a GB, and a question over them
takes tens of milliseconds.

Side by side on one machine in one run: our store, SQLite in WAL mode, a plain DuckDB file, and MLflow's SQLite store by
OTLP on as many spans as it bears. Timed are single appends (the fsync at the end of a trajectory counted apart), bulk
loading, the ids of the runs of one agent that ended well since a moment (the last tenth), the full aggregate by agent,
and all turns of one agent as SFT rows: in spans of that agent a second, in a process of its own with its peak memory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from _record import write_result
from _spans import AGENT, RUN_EVERY_NS, START_NS, spans
from _stores import STORES, Store

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord

CHUNK = 20_000
CHECKPOINTS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
QUICK = (2_000, 8_000)
MLFLOW = "mlflow_sqlite"
MLFLOW_SPANS = 2_000
"""It takes about a hundred spans a second."""
KEYS = ("append_p50_us", "append_p99_us", "bulk_spans_s", "bytes", "ids_ms", "aggregate_ms", "rows_s", "rows_peak_mb")


class Contestant:
    """One store in a folder of its own, and the seconds that it has taken for spans so far."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder / name
        self.store: Store = STORES[name](self.folder)
        self.seconds = self.settled_s = 0.0
        self.spans = 0

    def load(self, chunk: Sequence[SpanRecord]) -> None:
        started = time.perf_counter()
        self.store.bulk(chunk)
        self.seconds += time.perf_counter() - started
        self.spans += len(chunk)

    def measured(self, since_ns: int, of_agent: int) -> dict[str, Any]:
        started = time.perf_counter()
        self.store.settle()
        self.settled_s += time.perf_counter() - started
        found = {
            "spans": self.spans,
            "bulk_spans_s": self.spans / self.seconds,
            "settle_s": self.settled_s,
            "ids_ms": _median_ms(lambda: self.store.ids(since_ns)),
            "aggregate_ms": _median_ms(self.store.aggregate),
        }
        rows = self._rows()
        size = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        return found | rows | {"rows_s": of_agent / rows["rows_seconds"], "bytes": size}

    def close(self) -> None:
        self.store.close()

    def _rows(self) -> dict[str, Any]:
        if self.name == MLFLOW:  # Its memory is the server's; a second server would be another store.
            return timed_rows(self.store) | {"rows_peak_mb": None}
        self.store.close()
        command = [sys.executable, __file__, "--rows", self.name, "--folder", str(self.folder)]
        shown = subprocess.run(command, capture_output=True, check=True).stdout
        self.store = STORES[self.name](self.folder)
        return dict(json.loads(shown))


def timed_rows(store: Store) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        rows = store.rows(Path(folder) / "rows.jsonl")
        seconds = time.perf_counter() - started
    return {"rows": rows, "rows_seconds": seconds, "rows_peak_mb": _peak_mb()}


def appended(name: str, folder: Path) -> dict[str, Any]:
    """What a caller waits for a single span, in microseconds."""
    synced: list[float] = []
    plain: list[float] = []
    store: Store
    with closing(STORES[name](folder / name)) as store:
        for span in spans(store.appends):
            ends = span.attributes[a.OPERATION] in ("invoke_agent", "invoke_workflow")
            started = time.perf_counter()
            store.append(span, sync=ends)
            (synced if ends else plain).append((time.perf_counter() - started) * 1e6)
    return {
        "appends": store.appends,
        "append_p50_us": float(np.percentile(plain, 50)),
        "append_p99_us": float(np.percentile(plain, 99)),
        "append_end_p50_us": float(np.percentile(synced, 50)),
        "append_end_p99_us": float(np.percentile(synced, 99)),
    }


def grown(names: Sequence[str], folder: Path, checkpoints: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """Each store as it grows: what it measures at every checkpoint."""
    growth: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with ExitStack() as opened:
        contestants = [Contestant(name, folder) for name in names]
        for contestant in contestants:
            opened.callback(contestant.close)
        source = spans(checkpoints[-1])
        taken = of_agent = 0
        for checkpoint in checkpoints:
            while chunk := list(islice(source, min(CHUNK, checkpoint - taken))):
                taken += len(chunk)
                of_agent += sum(span.attributes.get(a.AGENT_NAME) == AGENT for span in chunk)
                last_ns = chunk[-1].end_ns
                for contestant in contestants:
                    contestant.load(chunk)
            since_ns = last_ns - max((last_ns - START_NS) // 10, RUN_EVERY_NS)
            for contestant in contestants:
                growth[contestant.name].append(found := contestant.measured(since_ns, of_agent))
                _show(contestant.name, found)
    return growth


def tried(names: Sequence[str], folder: Path) -> dict[str, dict[str, Any]]:
    """Single appends to the stores that can be had here."""
    single = {}
    for name in names:
        try:
            single[name] = appended(name, folder)
        except (RuntimeError, ImportError, OSError) as error:
            print(f"{name}: left out: {error}")
    return single


def plot(growth: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    titles = {"ids_ms": "ids of an agent, ms", "aggregate_ms": "aggregate by agent, ms"}
    titles |= {"rows_s": "to SFT rows, spans/s", "bytes": "bytes on the disk"}
    figure, panels = pyplot.subplots(1, 4, figsize=(12, 3.2), layout="constrained")
    for (key, title), axes in zip(titles.items(), panels, strict=True):
        for name, points in growth.items():
            sizes = [point["spans"] for point in points]
            axes.plot(sizes, [point[key] for point in points], marker="o", markersize=3, label=name.replace("_", " "))
        axes.set(xscale="log", yscale="log", title=title, xlabel="spans")
    panels[0].legend(fontsize=7)
    figure.savefig(path, dpi=120)


def _median_ms(ask: Callable[[], object]) -> float:
    taken = []
    for _ in range(7):
        started = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - started) * 1e3)
    return median(taken)


def _peak_mb() -> float:
    # Not getrusage, which counts what the parent had when it forked.
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


def _show(name: str, found: Mapping[str, Any]) -> None:
    cells = [f"{name:14} {found['spans']:>9,}"]
    cells += [f"{key} {found[key]:,.0f}" for key in KEYS if found.get(key) is not None]
    print("  ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="8,000 spans, not 1,000,000; no MLflow, no plot")
    parser.add_argument("--rows", choices=STORES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rows:
        print(json.dumps(timed_rows(STORES[arguments.rows](arguments.folder))))
        return
    checkpoints = QUICK if arguments.quick else CHECKPOINTS
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        single = tried([name for name in STORES if not (arguments.quick and name == MLFLOW)], folder / "appended")
        growth = grown([MLFLOW], folder / "grown", [MLFLOW_SPANS]) if MLFLOW in single else {}
        growth |= grown([name for name in single if name != MLFLOW], folder / "grown", checkpoints)
    stores = {name: single[name] | growth[name][-1] for name in single}
    for name, found in stores.items():
        _show(name, found)
    path = write_result(
        "trace_store",
        {"spans": checkpoints[-1], "stores": stores, "growth": growth},
        seed=0,
        quick=arguments.quick,
    )
    if not arguments.quick:
        plot(growth, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
