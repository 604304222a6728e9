"""Tombstones: what was deleted stays known, and nothing of what it held."""

import subprocess
import sys
from pathlib import Path

import pytest

from journeyman.traces.errors import StoreError
from journeyman.traces.tombstones import Tombstone, Tombstones

A, B, C = "a" * 32, "b" * 32, "c" * 32


def test_all_readers_know_what_was_deleted(tmp_path: Path) -> None:
    writer, reader = Tombstones(tmp_path / "spans"), Tombstones(tmp_path / "spans")
    assert reader.trace_ids() == frozenset()
    writer.add([B, A], reason="by user", spans=7, labels=2)
    assert reader.trace_ids() == {A, B}
    writer.add([C], reason="older than 30 days")
    assert reader.trace_ids() == {A, B, C}
    first, second = reader
    assert (first.trace_ids, first.reason, first.spans, first.labels) == ((A, B), "by user", 7, 2)
    assert first.at_ns <= second.at_ns


def test_a_tombstone_is_of_something() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Tombstone(reason="by trace", trace_ids=())


def test_a_tombstone_that_a_crash_tore_was_never_acknowledged(tmp_path: Path) -> None:
    stones = Tombstones(tmp_path)
    stones.add([A], reason="by trace")
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    assert stones.trace_ids() == frozenset()
    stones.add([B], reason="by trace")
    assert stones.trace_ids() == {B}


def test_one_of_a_newer_version_is_not_passed_over(tmp_path: Path) -> None:
    stones = Tombstones(tmp_path)
    stones.add([A], reason="by trace")
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text().replace('"version":1', '"version":2'))
    with pytest.raises(StoreError, match=r"line 1: no tombstone that this journeyman knows"):
        stones.trace_ids()


def test_on_a_full_disk_nothing_is_deleted(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from journeyman.traces.errors import StoreError
from journeyman.traces.tombstones import Tombstones

resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    Tombstones(Path(sys.argv[1])).add(["a" * 32], reason="by trace")
except StoreError as error:
    print(error)
"""
    refused = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "File too large; nothing was deleted" in refused.stdout
    assert Tombstones(tmp_path).trace_ids() == frozenset()


def test_span_logs_have_another_name(tmp_path: Path) -> None:
    Tombstones(tmp_path).add([A], reason="by trace")
    assert list(tmp_path.glob("*.jsonl")) == []
