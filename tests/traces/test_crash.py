"""kill -9 at random moments, with several writers, a compaction and a reader at once."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from journeyman.traces.capture.log import LogReader
from journeyman.traces.storage.columns import to_spans
from journeyman.traces.storage.compact import compact
from journeyman.traces.storage.segments import Segments

WRITER = """
import itertools, sys, time
from pathlib import Path
from journeyman.traces.capture.log import SpanLog, SpanRecord

log = SpanLog(Path(sys.argv[1]), rotate_bytes=20_000)
for number in itertools.count():
    for part in ("a", "b", ""):
        log.append(
            SpanRecord(
                trace_id="t", span_id=f"{sys.argv[2]}-{number}{part}", parent_id=None, name="chat", kind="client",
                start_ns=number % 2 * 86_400_000_000_000, end_ns=2, status="ok",
                attributes={"gen_ai.system_instructions": "You plan. " * 50, "text": "x" * 500},
            ),
            sync=not part,
        )
    print(f"{sys.argv[2]}-{number}", flush=True)
    time.sleep(0.01)
"""

COMPACTOR = """
import sys
from pathlib import Path
from journeyman.traces.storage.compact import compact
from journeyman.traces.storage.segments import Segments

segments = Segments(Path(sys.argv[1]))
while True:
    compact(Path(sys.argv[1]), segments)
    print("compacted", flush=True)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> set[str]:
    """Kills it, and gives the whole lines that it had written."""
    os.kill(process.pid, signal.SIGKILL)
    said, _ = process.communicate()
    return {line.strip() for line in said.splitlines(keepends=True) if line.endswith("\n")}


def there(spans: Path) -> Counter[str]:
    segments = Segments(spans)
    while True:
        snapshot = segments.snapshot(spans)
        reader = LogReader(spans, files=snapshot.files, replaced=snapshot.replaced)
        ids = Counter(span.span_id for span in reader)
        try:
            for path in snapshot.paths():
                ids.update(span.span_id for span in to_spans(segments.read(path), segments.texts))
        except FileNotFoundError:
            continue
        if not reader.vanished:
            assert reader.damage.corrupt == reader.damage.texts == 0
            return ids


def check(acknowledged: set[str], ids: Counter[str]) -> None:
    assert {name for name in acknowledged for part in ("a", "b", "") if ids[name + part] != 1} == set()
    assert [span_id for span_id, count in ids.items() if count > 1] == []


def test_what_was_acknowledged_is_there_once_whoever_is_killed(tmp_path: Path) -> None:
    chance = random.Random(1)
    acknowledged: set[str] = set()
    compactor = start(COMPACTOR, str(tmp_path))
    writers = [start(WRITER, str(tmp_path), f"w{number}") for number in range(3)]
    assert compactor.stdout is not None
    for writer in writers:
        assert writer.stdout is not None
        acknowledged.add(writer.stdout.readline().strip())
    for _ in range(3):
        compactor.stdout.readline()
    check(acknowledged, there(tmp_path))
    for writer in writers:
        time.sleep(chance.uniform(0, 0.3))
        acknowledged |= kill(writer)
        check(acknowledged, there(tmp_path))
    kill(compactor)
    check(acknowledged, there(tmp_path))
    compact(tmp_path, Segments(tmp_path))
    check(acknowledged, there(tmp_path))
    assert list(tmp_path.glob("*.jsonl")) == []
