"""Reported: editors that begin a file with a byte order mark made TOML invalid and lost the first line of a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.batch import read_tasks
from journeyman.traces.base import read_toml
from journeyman.traces.exchange.importing import Broken, detect, read_file


def test_the_reported_files_are_read(reports: Path) -> None:
    for name in ("crew.toml", "journeyman.toml"):
        assert (reports / "bom" / name).read_bytes().startswith(b"\xef\xbb\xbf") and read_toml(reports / "bom" / name)
    tasks, broken = read_tasks(reports / "bom" / "tasks.jsonl")
    assert ([task.id for task in tasks], broken) == (["a", "b"], [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_file_that_a_user_writes_may_begin_with_one(journeyman: Any, tmp_path: Path, encoding: str) -> None:
    talk = {"messages": [{"role": "user", "content": "grüß"}, {"role": "assistant", "content": "dich"}]}
    files = {"one.json": json.dumps(talk, indent=1), "list.json": json.dumps([talk], indent=1)}
    files |= {"lines.jsonl": f"{json.dumps(talk)}\n{json.dumps(talk)}\n"}
    for name, text in files.items():
        path = tmp_path / name
        path.write_text(text, encoding=encoding)
        found = list(read_file(path, detect(path), agent="a", family="f"))
        assert len(found) == (2 if name == "lines.jsonl" else 1) and not any(isinstance(one, Broken) for one in found)

    journeyman("traces", "import", tmp_path / "one.json", "-C", tmp_path / "w")
    (listed,) = json.loads(journeyman("traces", "list", "-C", tmp_path / "w", "--json").out)
    labels = tmp_path / "labels.jsonl"
    labels.write_text(json.dumps({"trace_id": listed["trace_id"], "name": "score", "value": 1}), encoding=encoding)
    assert journeyman("label", "--file", labels, "-C", tmp_path / "w").code == 0
    toml = tmp_path / "journeyman.toml"
    toml.write_text("[server]\nport = 8999\n", encoding=encoding)
    assert read_toml(toml) == {"server": {"port": 8999}}
