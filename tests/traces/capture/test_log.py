"""The span log: what it acknowledged is there, whatever happens to the disk, the file or the process."""

import fcntl
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SPAN_VERSION, Damage, LogReader, SpanLog, SpanRecord, read_spans
from journeyman.traces.errors import StoreError
from journeyman.traces.files import is_closed

WRITER = """
import itertools, sys
from pathlib import Path
from journeyman.traces.capture.log import SpanLog, SpanRecord

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
from journeyman.traces.capture.log import SpanLog, SpanRecord

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


@contextmanager
def full_disk(size: int = 100) -> Iterator[None]:
    """Files may not grow beyond `size` bytes inside the block."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_stops_the_writer_and_spares_what_was_written(tmp_path: Path, span: SpanRecord) -> None:
    before = log_of(tmp_path, span, 3)
    log = SpanLog(tmp_path)
    with full_disk(), pytest.raises(StoreError, match="File too large; what was written before it is intact"):
        log.append(span, sync=True)
    assert ids(tmp_path) == ["0", "1", "2"]
    log.append(numbered(span, 3), sync=True)
    assert ids(tmp_path) == ["0", "1", "2", "3"]
    assert before.dropped == log.dropped == 0


def test_a_full_disk_may_be_ridden_out_and_is_said_once(
    tmp_path: Path, span: SpanRecord, caplog: pytest.LogCaptureFixture
) -> None:
    log = SpanLog(tmp_path, on_full="continue")
    with full_disk(), caplog.at_level(logging.WARNING):
        log.append(span, sync=False)
        log.append_many([span, span], sync=True)
    assert log.dropped == 3
    assert [record.message for record in caplog.records] == [
        f"spans are lost: {log.path} cannot be written: File too large"
    ]
    log.append(span, sync=False)
    assert list(read_spans(tmp_path)) == [span]


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


def test_a_batch_of_many_comes_back_in_files_that_stay_small(tmp_path: Path, span: SpanRecord) -> None:
    log = SpanLog(tmp_path, rotate_bytes=200_000)
    log.append_many([numbered(span, number) for number in range(3000)], sync=True)
    log.append_many([], sync=False)
    assert ids(tmp_path) == [str(number) for number in range(3000)]
    sizes = [path.stat().st_size for path in tmp_path.glob("*.jsonl")]
    assert len(sizes) > 1 and max(sizes) <= 200_000


def test_of_a_batch_that_fills_the_disk_every_span_is_kept_or_counted(tmp_path: Path, span: SpanRecord) -> None:
    log = SpanLog(tmp_path, on_full="continue")
    with full_disk(100_000):
        log.append_many([numbered(span, number) for number in range(3000)], sync=True)
    kept = ids(tmp_path)
    assert kept == [str(number) for number in range(3000 - log.dropped)]
    assert 256 < len(kept) < 3000


def test_a_full_file_is_closed_and_the_next_one_begun(tmp_path: Path, span: SpanRecord) -> None:
    turned: list[str] = []
    log = SpanLog(tmp_path, rotate_bytes=2000, on_rotate=lambda: turned.append(log.path.name))
    for number in range(40):
        log.append(numbered(span, number), sync=False)
    files = sorted(tmp_path.glob("*.jsonl"))
    assert [path.name for path in files[1:]] == turned
    assert all(path.stat().st_size <= 2000 for path in files)
    assert ids(tmp_path) == [str(number) for number in range(40)]


def test_a_span_larger_than_a_file_may_grow_is_kept(tmp_path: Path, span: SpanRecord) -> None:
    log = SpanLog(tmp_path, rotate_bytes=10)
    for number in range(3):
        log.append(numbered(span, number), sync=False)
    assert ids(tmp_path) == ["0", "1", "2"]


def test_a_file_is_locked_while_it_is_written_and_no_longer(tmp_path: Path, span: SpanRecord) -> None:
    log = SpanLog(tmp_path, rotate_bytes=500)
    for number in range(10):
        log.append(numbered(span, number), sync=False)
    *full, last = sorted(tmp_path.glob("*.jsonl"))
    assert last == log.path
    assert all(map(is_closed, full))
    assert not is_closed(last)
    log.close()
    assert is_closed(last)


def test_a_file_whose_name_was_taken_away_before_it_was_locked_is_not_written(tmp_path: Path, span: SpanRecord) -> None:
    log = SpanLog(tmp_path)
    named = log.path
    with named.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # As a compaction does that finds the new file empty.
        log.append(span, sync=True)
    assert log.path != named
    assert list(read_spans(tmp_path)) == [span]


def test_a_fork_begins_a_file_of_its_own(tmp_path: Path, span: SpanRecord) -> None:
    log = SpanLog(tmp_path)
    log.append(numbered(span, 0), sync=False)
    child = os.fork()
    if child == 0:
        log.append(numbered(span, 1), sync=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    log.append(numbered(span, 2), sync=False)
    assert not is_closed(log.path)
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    assert sorted(ids(tmp_path)) == ["0", "1", "2"]


def test_a_large_repeated_text_is_written_once(tmp_path: Path, span: SpanRecord) -> None:
    text = "You plan. " * 1000
    spans = [
        numbered(span, number).model_copy(update={"attributes": {a.SYSTEM_INSTRUCTIONS: text, "n": number}})
        for number in range(20)
    ]
    log = SpanLog(tmp_path)
    log.append_many(spans, sync=True)
    assert list(read_spans(tmp_path)) == spans
    assert log.path.stat().st_size < len(text)
    assert [path.read_text() for path in (tmp_path / "texts").iterdir()] == [text]


def test_a_missing_text_is_counted_and_costs_the_text_only(tmp_path: Path, span: SpanRecord) -> None:
    log = SpanLog(tmp_path)
    log.append(span.model_copy(update={"attributes": {a.TOOL_DEFINITIONS: "x" * 300, "n": 1}}), sync=True)
    (path,) = (tmp_path / "texts").iterdir()
    path.write_text("not what its name says")
    reader = LogReader(tmp_path)
    digest = f"sha256:{sha256(b'x' * 300).hexdigest()}"
    assert [span.attributes for span in reader] == [{"n": 1, a.TOOL_DEFINITIONS: digest}]
    assert reader.damage == Damage(texts=1)
    assert str(reader.damage) == "1 missing texts"


def test_days_that_lie_in_a_segment_are_left_out(tmp_path: Path, span: SpanRecord) -> None:
    log = SpanLog(tmp_path)
    for day in range(3):
        log.append(numbered(span, day).model_copy(update={"start_ns": day * 86_400 * 10**9}), sync=False)
    reader = LogReader(tmp_path, replaced={log.path.name: {"1970-01-01", "1970-01-03"}})
    assert [span.span_id for span in reader] == ["1"]


def test_a_file_that_is_gone_when_its_turn_comes_is_named(tmp_path: Path, span: SpanRecord) -> None:
    path = log_of(tmp_path, span, 1).path
    reader = LogReader(tmp_path, files=[path, tmp_path / "gone.jsonl"])
    assert [span.span_id for span in reader] == ["0"]
    assert reader.vanished == ("gone.jsonl",)


texts = st.text(st.characters(codec="utf-8"), max_size=400)


@given(
    attributes=st.dictionaries(
        st.sampled_from([a.SYSTEM_INSTRUCTIONS, a.TOOL_DEFINITIONS, "n", "\n"]),
        st.one_of(texts, st.integers(), st.lists(texts, max_size=2), texts.map(lambda text: text * 50)),
    ),
    name=texts,
)
@settings(max_examples=100, deadline=None)
def test_whatever_a_span_holds_comes_back(attributes: dict[str, JsonValue], name: str) -> None:
    span = SpanRecord(
        trace_id="t",
        span_id="s",
        parent_id=None,
        name=name,
        kind="internal",
        start_ns=1,
        end_ns=2,
        status="ok",
        attributes=attributes,
    )
    with tempfile.TemporaryDirectory() as folder:
        SpanLog(Path(folder)).append(span, sync=False)
        assert list(read_spans(Path(folder))) == [span]


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
