"""Claim: preference pairs come out of a million spans in under a minute, within 1.5 GB on two cores.

One record is made of crews at work whose agents branch now and then. Each kind of rows is mined of one agent, in a
process of its own with its peak memory. Beside it stand the same spans in one DuckDB file, asked in plain SQL and by
nobody's rules, and as many as MLflow can take, read by its own API.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import duckdb
from _branched import Branched, runs
from _record import write_result
from _spans import AGENT
from _stores import DuckDBFile, MLflow

from journeyman.traces.capture.log import SpanLog
from journeyman.traces.storage.compact import compact
from journeyman.traces.storage.segments import Segments
from journeyman.traces.storage.store import TraceStore
from journeyman.training.data.choosing.choose import Choosing
from journeyman.training.data.corpus import Corpus
from journeyman.training.data.mine import KINDS, mine_to_file
from journeyman.training.data.samples import Kind
from journeyman.training.data.source import MineConfig, Source
from journeyman.training.demo.decompositions import read_questions

SPANS, QUICK = 1_000_000, 8_000
CHUNK = 500
"""Runs that are written at once."""
MLFLOW_SPANS = 2_000
SFT, PAIRS = "sft", "preference"
TEXTS, LABELS, FILE, COUNT = "texts", "labels.jsonl", "duckdb", "count"

SAME_PROMPT = """
COPY (
    SELECT any_value(input_messages) AS messages, prompt_token_ids, arg_max(output_messages, value) AS chosen,
        arg_min(output_messages, value) AS rejected, max(value) - min(value) AS margin
    FROM spans JOIN (SELECT trace_id, value::DOUBLE AS value FROM read_json(?) WHERE name = 'score') USING (trace_id)
    WHERE operation = 'chat' AND agent = ? GROUP BY prompt_token_ids
    HAVING max(value) > min(value) AND chosen <> rejected
) TO '{}' (FORMAT json)
"""
"""One pair a prompt, whatever its runs were made for."""


def recorded(folder: Path, number: int) -> int:
    """Writes the record where there is none yet, and says how many spans it has."""
    count = folder / COUNT
    if not count.exists():
        beside = DuckDBFile(folder / FILE)
        written = write_record(folder, number, beside)
        beside.settle()
        beside.close()
        count.write_text(str(written))
    return int(count.read_text())


def write_record(folder: Path, number: int, beside: DuckDBFile) -> int:
    """Says how many spans there are."""
    log = SpanLog(folder / "spans")
    store = TraceStore(folder / "spans", folder / LABELS)
    written = 0
    for part in _chunked(runs(number)):
        spans = list(chain.from_iterable(run.spans for run in part))
        log.append_many(spans, sync=False)
        beside.bulk(spans)
        store.label(*chain.from_iterable(run.labels for run in part))
        written += len(spans)
    log.close()
    compact(folder / "spans", Segments(folder / "spans"), processes=min(2, os.cpu_count() or 1))
    (folder / TEXTS).mkdir()
    for number_of_file, question in enumerate(read_questions()):
        facts = "\n\n".join(fact.document for fact in question.facts)
        (folder / TEXTS / f"{number_of_file}.txt").write_text(f"{question.text}\n\n{facts}", encoding="utf-8")
    return written


def mined(folder: Path, kind: Kind) -> dict[str, Any]:
    """Rows of one kind, the seconds they took, and the process's peak memory."""
    store = TraceStore(folder / "spans", folder / LABELS)
    corpus = Corpus("folder", (folder / TEXTS,), "CC BY-SA 4.0", 1024)
    started, worked = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as target:
        source = Source(store, AGENT, MineConfig(), corpus=corpus)
        mining = KINDS[kind](source)
        dataset = mine_to_file(mining, Path(target), lambda digest: "rows.jsonl", Choosing(source))
        size = 0 if dataset is None else dataset.path.stat().st_size
    found = {"kind": kind, "rows": 0 if dataset is None else dataset.rows, "seconds": time.perf_counter() - started}
    return found | {"cpu_s": time.process_time() - worked, "peak_mb": _peak_mb(), "bytes": size, **mining.counts}


def plainly(folder: Path, kind: str) -> dict[str, Any]:
    """The same of the DuckDB file."""
    started, worked = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as target:
        rows = Path(target) / "rows.jsonl"
        if kind == SFT:
            count = DuckDBFile(folder / FILE).rows(rows)
        else:
            database = duckdb.connect(folder / FILE / "spans.duckdb", read_only=True)
            database.execute(SAME_PROMPT.format(rows), [str(folder / LABELS), AGENT])
            count = sum(1 for _ in rows.open("rb"))
    took = {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - worked}
    return {"kind": kind, "rows": count, **took, "peak_mb": _peak_mb()}


def through_mlflow(folder: Path) -> dict[str, Any]:
    """SFT rows of what it takes in; its memory is the server's."""
    store = MLflow(folder / "mlflow")
    try:
        spans = list(chain.from_iterable(run.spans for run in runs(MLFLOW_SPANS)))
        store.bulk(spans)
        started = time.perf_counter()
        rows = store.rows(folder / "mlflow.jsonl")
        return {"kind": SFT, "spans": len(spans), "rows": rows, "seconds": time.perf_counter() - started}
    finally:
        store.close()


def apart(folder: Path, option: str, kind: str) -> dict[str, Any]:
    """What a process of its own measures."""
    command = [sys.executable, __file__, option, kind, "--folder", str(folder)]
    found = dict(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    load = os.getloadavg()[0]
    print(
        f"{option[2:]:8} {kind:10} {found['rows']:>8,} rows  {found['seconds']:6.1f} s  cpu {found['cpu_s']:6.1f} s  "
        f"{found['rows'] / found['seconds']:>8,.0f} rows/s  {found['peak_mb']:6.0f} MB  load {load:.1f}",
        flush=True,
    )
    return found | {"rows_s": found["rows"] / found["seconds"], "load": load}


def _chunked(made: Iterator[Branched]) -> Iterator[Sequence[Branched]]:
    part: list[Branched] = []
    for run in made:
        part.append(run)
        if len(part) == CHUNK:
            yield part
            part = []
    yield part


def _peak_mb() -> float:
    # Not getrusage, which counts what the parent had when it forked.
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="8,000 spans, not 1,000,000; no MLflow")
    parser.add_argument("--mine", choices=get_args(Kind), help=argparse.SUPPRESS)
    parser.add_argument("--plain", choices=(SFT, PAIRS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="keep the record here; one that is here is measured again")
    arguments = parser.parse_args()
    if arguments.mine or arguments.plain:
        told = mined(arguments.folder, arguments.mine) if arguments.mine else plainly(arguments.folder, arguments.plain)
        print(json.dumps(told))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        written = recorded(folder, QUICK if arguments.quick else SPANS)
        kinds = [apart(folder, "--mine", kind) for kind in KINDS]
        plain = [apart(folder, "--plain", kind) for kind in (SFT, PAIRS)]
        mlflow = None if arguments.quick else through_mlflow(Path(scratch))
    values = {"spans": written, "kinds": kinds, "duckdb": plain, "mlflow": mlflow}
    write_result("mining", values, seed=0, quick=arguments.quick)


if __name__ == "__main__":
    main()
