"""Files that survive: old or new and never half, rows that stay, locks that end with their process, kills anywhere."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from journeyman.traces.files import PARTIAL, RowFile, is_closed, lock, lock_closed, publish, try_lock, whole_file
from journeyman.traces.files import write_whole as write

KILLED = """
import os, signal, sys
from pathlib import Path
from journeyman.traces.files import RowFile, publish, write_whole

folder, left = Path(sys.argv[1]), int(sys.argv[2])
STEPS = {"open", "flock", "stat", "seek", "truncate", "write", "flush", "chmod", "fsync", "replace", "unlink", "mkdir"}

def count(frame, event, function):
    global left
    if event in ("c_call", "c_return") and function.__name__ in STEPS:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.setprofile(count)
for number in range(1, 3):
    write_whole(folder / "whole", f"{number}" * 100_000)
    os.write(1, b"w")
    RowFile(folder / "below" / "rows").append(b'{"n": %d}\\n' % number)
    os.write(1, b"a")
    RowFile(folder / "cut").append(b'{"n": %d}\\n{"gone": 1}\\n' % number)
    os.write(1, b"c")
    RowFile(folder / "cut").rewrite(lambda line: b"gone" not in line)
    os.write(1, b"r")
draft = folder / "draft"
draft.mkdir()
(draft / "file").write_bytes(b"x" * 1000)
publish(draft, folder / "ready")
os.write(1, b"p")
"""


def test_a_kill_at_any_step_leaves_old_or_new_files_and_every_acknowledged_row(tmp_path: Path) -> None:
    survived = False
    steps = 0
    while not survived:
        folder = tmp_path / str(steps)
        folder.mkdir()
        (folder / "whole").write_text("0" * 100_000)
        ended = subprocess.run([sys.executable, "-c", KILLED, folder, str(steps)], stdout=subprocess.PIPE)
        survived = ended.returncode == 0
        assert survived or ended.returncode == -signal.SIGKILL
        check(folder, ended.stdout.decode())
        steps += 1
    assert steps > 100


def check(folder: Path, acknowledged: str) -> None:
    """What must be there after a kill; then the next process writes, and nothing of the dead one is left."""
    count = {step: acknowledged.count(step) for step in "wacrp"}
    whole = (folder / "whole").read_text()
    assert whole in [str(number) * 100_000 for number in (count["w"], count["w"] + 1)]
    assert numbers(folder / "below" / "rows", count["a"])
    assert numbers(folder / "cut", count["c"])
    assert count["r"] < 2 or b"gone" not in (folder / "cut").read_bytes()
    assert not count["p"] or (folder / "ready").exists()
    assert not (folder / "ready").exists() or (folder / "ready" / "file").read_bytes() == b"x" * 1000
    write(folder / "whole", "next")
    RowFile(folder / "cut").append(b'{"gone": 2}\n')
    RowFile(folder / "cut").rewrite(lambda line: b"gone" not in line)
    assert list(folder.rglob(f"*{PARTIAL}")) == []


def numbers(path: Path, least: int) -> bool:
    """Whether the rows count from 1 to what was acknowledged, or to one more."""
    rows = [json.loads(line) for line in RowFile(path) if b"gone" not in line]
    return [row["n"] for row in rows] in [list(range(1, last + 1)) for last in (least, least + 1)]


APPENDING = """
import os, sys
from pathlib import Path
from journeyman.traces.files import RowFile, write_whole

folder, name = Path(sys.argv[1]), sys.argv[2]
for number in range(10_000):
    row = b'{"of": "%b", "n": %d, "text": "%b"}\\n' % (name.encode(), number, b"x" * 3_000_000)
    RowFile(folder / "rows").append(row)
    write_whole(folder / "whole", f"{name} {number} " + "y" * 1_000_000 + " end")
    os.write(1, b"%d\\n" % number)
"""


def test_kills_at_any_moment_tear_the_last_row_at_most(tmp_path: Path) -> None:
    chance = random.Random(3)
    for turn in range(6):
        names = [f"{turn}{name}" for name in "ab"]
        writers = [
            subprocess.Popen([sys.executable, "-c", APPENDING, tmp_path, name], stdout=subprocess.PIPE)
            for name in names
        ]
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == b"0\n"
        time.sleep(chance.uniform(0, 0.05))
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
        said = [writer.communicate()[0].split() for writer in writers]
        *whole, last = RowFile(tmp_path / "rows")
        rows = [json.loads(line) for line in ([*whole, last] if last.endswith(b"\n") else whole)]
        for name, numbers in zip(names, said, strict=True):
            there = [row["n"] for row in rows if row["of"] == name]
            assert there == list(range(len(there))) and len(there) >= 1 + len(numbers)
        text = (tmp_path / "whole").read_text()
        assert len(text) > 1_000_000 and text.endswith("y end")


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.touch(0o600)
    write(path, "new")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_block_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write(path, "old")
    with pytest.raises(ValueError, match="half"), whole_file(path) as file:
        file.write(b"new")
        raise ValueError("half")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_taken_over(tmp_path: Path) -> None:
    path, hidden = tmp_path / "state.json", tmp_path / f".state.json{PARTIAL}"
    hidden.write_text("left by the one before, and longer")
    write(path, "new")
    assert path.read_text() == "new"
    assert not hidden.exists()


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    (draft / "below").mkdir(parents=True)
    (draft / "below" / "file").touch()
    publish(draft, tmp_path / "ready")
    assert [path.name for path in tmp_path.rglob("*")] == ["ready", "below", "file"]


def test_a_lock_has_one_holder_and_is_of_the_file_that_has_the_name(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert lock_closed(path) is None
    with lock(path) as held:
        assert try_lock(path) is None and lock_closed(path) is None and not is_closed(path)
        path.unlink()
        with lock(path) as second:
            assert not os.path.samestat(os.fstat(held.fileno()), os.fstat(second.fileno()))
    assert is_closed(path)


def test_rows_come_back_in_order_and_a_torn_one_gives_way(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "new" / "rows.jsonl")
    assert list(rows) == []
    rows.append(b"1\n2\n")
    rows.path.write_bytes(rows.path.read_bytes() + b'{"tor')
    assert list(rows) == [b"1\n", b"2\n", b'{"tor']
    rows.append(b"3\n")
    assert list(rows) == [b"1\n", b"2\n", b"3\n"]


def test_a_row_that_an_editor_left_without_its_newline_stays(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "rows.jsonl")
    rows.path.write_bytes(b'1\n{"by": "hand"}')
    rows.append(b"3\n")
    assert list(rows) == [b"1\n", b'{"by": "hand"}\n', b"3\n"]


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
from journeyman.traces.files import RowFile

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
