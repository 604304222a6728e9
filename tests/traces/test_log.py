"""The span log: what it acknowledged is there, whatever happens to the disk, the file or the process."""

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from journeyman.traces.errors import StoreError
from journeyman.traces.log import SPAN_VERSION, Damage, LogReader, SpanLog, SpanRecord, read_spans

WRITER = """
import itertools, sys
from pathlib import Path
from journeyman.traces.log import SpanLog, SpanRecord

log = SpanLog(Path(sys.argv[1]))
for number in itertools.count():
    span_id = f"{sys.argv[2]}-{number}"
    log.append(
        SpanRecord(
            trace_id="f" * 32, span_id=span_id, parent_id=None, name="chat", kind="client", start_ns=1, end_ns=2,
            status="ok", attributes={"text": "x" * 3000},
        ),
        sync=True,
    )
    print(span_id, flush=True)
"""

ON_A_DISK_OF_5000_BYTES = """
import resource, sys
from pathlib import Path
from journeyman.traces.errors import StoreError
from journeyman.traces.log import SpanLog, SpanRecord

def span(number):
    return SpanRecord(
        trace_id="f" * 32, span_id=str(number), parent_id=None, name="chat", kind="client", start_ns=1, end_ns=2,
        status="ok", attributes={"text": "x" * 700},
    )

hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
log = SpanLog(Path(sys.argv[1]))
for number in range(20):
    try:
        log.append(span(number), sync=True)
        print(number)
    except StoreError as error:
        print(error, file=sys.stderr)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
for number in range(100, 103):
    log.append(span(number), sync=True)
    print(number)
"""


def numbered(span: SpanRecord, number: int) -> SpanRecord:
    return span.model_copy(update={"span_id": str(number)})


def log_of(directory: Path, span: SpanRecord, count: int) -> SpanLog:
    log = SpanLog(directory)
    for number in range(count):
        log.append(numbered(span, number), sync=False)
    log.close()
    return log


def ids(directory: Path) -> list[str]:
    return [span.span_id for span in read_spans(directory)]


def test_a_span_comes_back_as_it_was_written(tmp_path: Path, span: SpanRecord) -> None:
    log = SpanLog(tmp_path / "spans")
    log.append(span, sync=True)
    log.append(span, sync=False)
    assert list(read_spans(tmp_path / "spans")) == [span, span]


def test_numbers_that_json_has_no_word_for_come_back(tmp_path: Path, span: SpanRecord) -> None:
    odd = span.model_copy(update={"attributes": {"low": float("-inf")}})
    SpanLog(tmp_path).append(odd, sync=False)
    assert list(read_spans(tmp_path)) == [odd]


def test_half_a_surrogate_pair_does_not_cost_the_span(tmp_path: Path, span: SpanRecord) -> None:
    SpanLog(tmp_path).append(span.model_copy(update={"attributes": {"text": "half \ud83d ü"}}), sync=False)
    assert [span.attributes["text"] for span in read_spans(tmp_path)] == ["half ? ü"]


def test_a_log_that_was_never_written_is_empty(tmp_path: Path) -> None:
    SpanLog(tmp_path / "spans").close()
    assert ids(tmp_path / "spans") == []
    assert not (tmp_path / "spans").exists()


def test_a_span_after_close_is_kept(tmp_path: Path, span: SpanRecord) -> None:
    log = log_of(tmp_path, span, 1)
    log.append(numbered(span, 1), sync=True)
    assert ids(tmp_path) == ["0", "1"]


def test_two_logs_of_one_process_have_files_of_their_own(tmp_path: Path, span: SpanRecord) -> None:
    assert log_of(tmp_path, span, 2).path != log_of(tmp_path, span, 2).path
    assert sorted(ids(tmp_path)) == ["0", "0", "1", "1"]


def test_a_torn_last_record_is_skipped_and_counted(tmp_path: Path, span: SpanRecord) -> None:
    path = log_of(tmp_path, span, 3).path
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    reader = LogReader(tmp_path)
    for cut in range(last + 1, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert [span.span_id for span in reader] == ["0", "1"]
        assert reader.damage == Damage(torn=1)


def test_a_corrupt_line_in_the_middle_costs_that_line_only(tmp_path: Path, span: SpanRecord) -> None:
    path = log_of(tmp_path, span, 3).path
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    reader = LogReader(tmp_path)
    for place in range(second, whole.index(b"\n", second)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert [span.span_id for span in reader] == ["0", "2"]
        assert reader.damage.corrupt >= 1
        assert reader.damage.torn == 0


def test_a_record_of_a_newer_version_is_refused_and_counted(tmp_path: Path, span: SpanRecord) -> None:
    newer = span.model_construct(**{**dict(span), "version": SPAN_VERSION + 1})
    log = SpanLog(tmp_path)
    log.append(newer, sync=False)
    log.append(span, sync=False)
    reader = LogReader(tmp_path)
    assert list(reader) == [span]
    assert reader.damage == Damage(refused=1)
    assert str(reader.damage) == "1 spans of an unknown version"


def test_each_pass_counts_damage_anew(tmp_path: Path, span: SpanRecord) -> None:
    path = log_of(tmp_path, span, 1).path
    path.write_bytes(path.read_bytes() + b"half a rec")
    reader = LogReader(tmp_path)
    for _ in range(2):
        assert len(list(reader)) == 1
        assert reader.damage == Damage(torn=1)
    assert reader.damage
    assert not Damage()


def test_a_full_disk_stops_the_writer_and_spares_what_was_written(tmp_path: Path, span: SpanRecord) -> None:
    before = log_of(tmp_path, span, 3)
    log = SpanLog(tmp_path)
    log.path.symlink_to("/dev/full")
    with pytest.raises(StoreError, match="No space left on device; what was written before it is intact"):
        log.append(span, sync=True)
    log.close()
    log.path.unlink()
    assert ids(tmp_path) == ["0", "1", "2"]
    assert before.dropped == 0


def test_a_full_disk_may_be_ridden_out_and_is_said_once(
    tmp_path: Path, span: SpanRecord, caplog: pytest.LogCaptureFixture
) -> None:
    log = SpanLog(tmp_path, on_full="continue")
    log.path.symlink_to("/dev/full")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            log.append(span, sync=False)
    assert log.dropped == 3
    assert [record.message for record in caplog.records] == [
        f"spans are lost: {log.path} cannot be written: No space left on device"
    ]


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path, span: SpanRecord) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="Not a directory"):
        SpanLog(tmp_path / "file" / "spans").append(span, sync=False)


def test_a_disk_that_fills_up_in_the_middle_of_a_record_tears_that_record_only(tmp_path: Path) -> None:
    wrote = subprocess.run(
        [sys.executable, "-c", ON_A_DISK_OF_5000_BYTES, str(tmp_path)], capture_output=True, text=True, check=True
    )
    acknowledged = wrote.stdout.split()
    assert acknowledged == ["0", "1", "2", "3", "4", "100", "101", "102"]
    assert len(wrote.stderr.splitlines()) == 15
    assert "File too large" in wrote.stderr
    reader = LogReader(tmp_path)
    assert [span.span_id for span in reader] == acknowledged
    assert reader.damage == Damage(corrupt=1)


def test_threads_share_a_log(tmp_path: Path, span: SpanRecord) -> None:
    log = SpanLog(tmp_path)
    big = span.model_copy(update={"attributes": {"text": "x" * 20_000}})

    def write(first: int) -> None:
        for number in range(first, first + 50):
            log.append(numbered(big, number), sync=number % 10 == 0)

    threads = [threading.Thread(target=write, args=(first,)) for first in range(0, 400, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, ids(tmp_path))) == list(range(400))


def test_every_acknowledged_span_of_killed_processes_is_there(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], stdout=subprocess.PIPE, text=True)
        for name in "abc"
    ]
    acknowledged: set[str] = set()
    for writer in writers:
        assert writer.stdout is not None
        acknowledged |= {next(writer.stdout).strip() for _ in range(40)}
    # Reading while all of them write.
    assert acknowledged <= set(ids(tmp_path))
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        rest, _ = writer.communicate()
        # A pipe can be cut in the middle of the last id.
        acknowledged |= {line.strip() for line in rest.splitlines(keepends=True) if line.endswith("\n")}
    reader = LogReader(tmp_path)
    assert acknowledged <= {span.span_id for span in reader}
    assert reader.damage.corrupt == 0
    assert reader.damage.torn <= len(writers)
