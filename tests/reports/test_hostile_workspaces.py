"""Reported: in a folder named `it's` each command that reads the record ended with a traceback of DuckDB's.

A path is a value, whatever it holds; what lies there instead of a record gets one line.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.cli import UNEXPECTED

NAMES = ["it's", "a\nb", "with space", "ünï漢", "100%", "what?", "star*", "[x]", 'a"b', "a::b", "back\\slash"]

COMMANDS = [
    *(["traces", name] for name in ("list", "report", "doctor", "compact")),
    *(["traces", name, "0"] for name in ("show", "lineage")),
    *(["traces", "tail", "--no-follow"], ["traces", "check", "--all"], ["traces", "sql", "SELECT count(*) FROM turns"]),
    ["traces", "delete", "--older-than", "9999d", "--yes"],
    *(["label", "0", "score", "1"], ["runs", "list"], ["runs", "show", "0"], ["memory", "list"], ["adapters", "list"]),
    *(["server", "status"], ["server", "logs"], ["mine", "--agent", "assistant", "--out"]),
]


def walk(journeyman: Any, workspace: Path, out: Path) -> None:
    for command in COMMANDS:
        arguments = [*command, out] if command[-1] == "--out" else command
        ended = journeyman(*arguments, "-C", workspace)
        assert UNEXPECTED not in ended.err and "Traceback" not in ended.err, (command, ended.err)
        assert ended.err.count("error: ") <= 1, (command, ended.err)


@pytest.mark.parametrize("name", NAMES)
def test_a_workspace_may_have_any_name(journeyman: Any, reports: Path, tmp_path: Path, name: str) -> None:
    file = reports / "apostrophe" / "chat.jsonl"
    for _ in ("its log file", "its segment"):
        assert journeyman("traces", "import", file, "-C", tmp_path / name).code == 0
        assert journeyman("traces", "list", "-C", tmp_path / name).out.count("prices of tea") == 1
        assert journeyman("traces", "compact", "-C", tmp_path / name).code == 0
    walk(journeyman, tmp_path / name, tmp_path / "rows")


def as_a_file(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else None
    path.write_bytes(bytes(range(256)))


def as_a_loop(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("change", [as_a_file, as_a_loop, moved])
@pytest.mark.parametrize("where", ["spans", "spans/segments", "spans/segments/day=*", "labels.jsonl", "runs.db"])
def test_what_is_no_record_gets_one_line(
    journeyman: Any, reports: Path, tmp_path: Path, where: str, change: Callable[[Path], None]
) -> None:
    workspace = tmp_path / "w"
    journeyman("traces", "import", reports / "apostrophe" / "chat.jsonl", "-C", workspace)
    journeyman("traces", "compact", "-C", workspace)
    path = next(workspace.glob(where), workspace / where)
    if change is moved and not path.exists():
        path.touch()
    change(path)
    walk(journeyman, workspace, tmp_path / "rows")
