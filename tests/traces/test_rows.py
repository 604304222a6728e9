"""Row files: whole batches, many writers, and rewrites that lose nobody's rows."""

import subprocess
import sys
from pathlib import Path

import pytest

from journeyman.traces.rows import RowFile


def test_rows_come_back_in_order_and_a_torn_one_stays_apart(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "new" / "rows.jsonl")
    assert list(rows) == []
    rows.append(b"1\n2\n")
    rows.path.write_bytes(rows.path.read_bytes() + b"tor")
    rows.append(b"3\n")
    assert list(rows) == [b"1\n", b"2\n", b"tor\n", b"3\n"]


def test_a_rewrite_takes_rows_away_and_says_how_many(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "rows.jsonl")
    assert rows.rewrite(lambda row: False) == 0
    rows.append(b"1\n2\n3\n")
    before = rows.path.stat().st_ino
    assert rows.rewrite(lambda row: True) == 0
    assert rows.path.stat().st_ino == before
    assert rows.rewrite(lambda row: row == b"2\n") == 2
    assert list(rows) == [b"2\n"]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_failed_rewrite_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "rows.jsonl")
    rows.append(b"1\n")

    def failing(row: bytes) -> bool:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        rows.rewrite(failing)
    assert list(rows) == [b"1\n"]


def test_rows_that_are_appended_while_others_rewrite_are_all_there(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from journeyman.traces.rows import RowFile

rows = RowFile(Path(sys.argv[1]))
for number in range(150):
    rows.append(f"{sys.argv[2]} {number}\\ngarbage\\n".encode())
"""
    rows = RowFile(tmp_path / "rows.jsonl")
    rows.append(b"garbage\n")
    writers = [subprocess.Popen([sys.executable, "-c", script, str(rows.path), name]) for name in "ab"]
    while any(writer.poll() is None for writer in writers):
        rows.rewrite(lambda row: row != b"garbage\n")
    rows.rewrite(lambda row: row != b"garbage\n")
    assert sorted(rows) == sorted(f"{name} {number}\n".encode() for name in "ab" for number in range(150))
