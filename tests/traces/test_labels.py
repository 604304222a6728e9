"""Labels: durable rows beside the record, from any number of writers."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from journeyman.traces.errors import StoreError
from journeyman.traces.labels import Label, LabelLog


def label(value: bool | float | str, name: str = "score") -> Label:
    return Label(trace_id="a" * 32, name=name, source="test", value=value)


def test_labels_come_back_as_they_were_written(tmp_path: Path) -> None:
    written = [label(True), label(0.5), label(1), label("Köln\n"), label("true")]
    log = LabelLog(tmp_path / "new" / "labels.jsonl")
    log.append(*written[:2])
    log.append(*written[2:])
    assert list(log) == written
    assert [type(one.value) for one in log] == [bool, float, float, str, str]


def test_no_labels_yet_is_no_error(tmp_path: Path) -> None:
    assert list(LabelLog(tmp_path / "labels.jsonl")) == []


def test_a_label_must_be_a_number_that_can_be_compared() -> None:
    with pytest.raises(ValidationError):
        label(float("nan"))


def test_a_torn_row_is_counted_and_the_next_label_is_not_glued_to_it(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    log = LabelLog(path)
    log.append(label("ü"), label(1.0))
    path.write_bytes(path.read_bytes()[:-20] + "ü".encode()[:1])
    log.append(label(2.0))
    assert [one.value for one in log] == ["ü", 2.0]
    assert log.damaged == 1


def test_a_full_disk_is_a_store_error(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(StoreError, match="No space left on device"):
        LabelLog(path).append(label(1.0))


def test_labels_that_do_not_fit_on_the_disk_are_not_written_in_part(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    LabelLog(path).append(label(1.0))
    script = """
import resource, sys
from pathlib import Path
from journeyman.traces.errors import StoreError
from journeyman.traces.labels import Label, LabelLog

resource.setrlimit(resource.RLIMIT_FSIZE, (700, resource.RLIM_INFINITY))
try:
    LabelLog(Path(sys.argv[1])).append(*[Label(trace_id="b" * 32, name="score", source="test", value=2.0)] * 20)
except StoreError as error:
    print(error)
"""
    refused = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert "File too large" in refused.stdout
    log = LabelLog(path)
    log.append(label(3.0))
    assert [one.value for one in log] == [1.0, 3.0]
    assert log.damaged == 0


def test_writers_of_many_processes_do_not_mix_their_rows(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from journeyman.traces.labels import Label, LabelLog

log = LabelLog(Path(sys.argv[1]))
for number in range(30):
    log.append(*[Label(trace_id="a" * 32, name="note", source=sys.argv[2], value="x" * 500)] * 3)
"""
    path = tmp_path / "labels.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path), name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    log = LabelLog(path)
    assert len(list(log)) == 270
    assert log.damaged == 0
