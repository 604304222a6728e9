"""Labels: durable rows beside the record, from any number of writers."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from journeyman.traces.labels import Label, LabelLog, newest, numbered, unsaid


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


def test_a_torn_row_is_counted_until_the_next_label_takes_its_place(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    log = LabelLog(path)
    log.append(label("ü"), label(1.0))
    path.write_bytes(path.read_bytes()[:-20] + "ü".encode()[:1])
    assert [one.value for one in log] == ["ü"]
    assert log.damaged == 1
    log.append(label(2.0))
    assert [one.value for one in log] == ["ü", 2.0]
    assert log.damaged == 0


def test_labels_that_do_not_fit_on_the_disk_are_not_written_in_part(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    LabelLog(path).append(label(1.0))
    script = """
import resource, sys
from pathlib import Path
from journeyman.traces.errors import StoreError
from journeyman.traces.labels import Label, LabelLog, numbered, unsaid

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
from journeyman.traces.labels import Label, LabelLog, numbered, unsaid

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


def said(value: bool | float | str, at_ms: int = 0, **fields: Any) -> Label:
    return label(value).model_copy(update={"at_ns": at_ms * 10**6, **fields})


def test_only_the_last_word_of_a_source_is_taken_over() -> None:
    words = [said(0.0, at_ms=3), said(1.0, at_ms=5), said(0.5, at_ms=4, source="other")]
    assert unsaid(words, []) == words[1:]


def test_nothing_is_taken_over_twice_or_back() -> None:
    known = [said(0.0, at_ms=1), said(1.0, at_ms=5, version=2)]
    assert unsaid([said(1.0, at_ms=9)], known) == [], "the same statement, only younger"
    assert unsaid([said(0.5, at_ms=4)], known) == [], "an older one"
    assert unsaid([said(0.5, at_ms=5)], known) == [], "within a millisecond it may be the very same"
    assert unsaid([said(True, at_ms=9)], known) != [], "true is not 1"
    assert unsaid([said(1.0, at_ms=9, comment="why")], known) != []


def test_a_new_word_is_the_next_version_of_its_source() -> None:
    known = [said(0.0, at_ms=1), said(1.0, at_ms=5, version=2)]
    assert [one.version for one in numbered([said(0.5), said(0.5, source="other")], known)] == [3, 1]


def test_the_newest_version_counts_and_of_that_the_last_word() -> None:
    first, late = said(1.0, 1), said(2.0, 9)
    better, again = said(3.0, 5, version=2), said(4.0, 6, version=2)
    assert newest([first, late]) == [late]
    assert newest([better, late, first]) == [better]
    assert newest([again, better, late]) == [again]


def test_labels_of_other_spans_and_sources_stand_beside_each_other() -> None:
    labels = [said(1.0), said(2.0, span_id="b" * 16), said(3.0, source="someone")]
    assert newest(labels) == labels


def test_labels_of_deleted_traces_go_and_torn_rows_with_them(tmp_path: Path) -> None:
    log = LabelLog(tmp_path / "labels.jsonl")
    kept = label(1.0).model_copy(update={"trace_id": "c" * 32})
    log.append(label("secret"), kept)
    with (tmp_path / "labels.jsonl").open("ab") as file:
        file.write(b'{"trace_id":"aaa')
    assert log.remove(["a" * 32, "b" * 32]) == 1
    assert list(log) == [kept]
    assert log.damaged == 0
    assert b"secret" not in (tmp_path / "labels.jsonl").read_bytes()


def test_a_label_of_a_form_that_nobody_here_knows_survives_a_deletion_of_others(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    log = LabelLog(path)
    path.write_text('{"trace_id":"' + "c" * 32 + '","of":"tomorrow"}\n')
    log.append(label(1.0))
    assert log.remove(["a" * 32]) == 1
    assert "tomorrow" in path.read_text()
