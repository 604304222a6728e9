"""Reported: in a folder named `it's` each command that reads the record ended with a traceback of DuckDB's.

A path is a value, whatever it holds; what lies there instead of a record gets one line.
"""

import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from journeyman.runtime.cli import UNEXPECTED, build
from journeyman.runtime.console import Exit

BEFORE = Path(__file__).parents[1] / "data" / "before_move"
"""A small workspace with something of everything: spans, segments, labels, runs, an adapter, a journal."""

NAMES = ["it's", "a\nb", "with space", "ünï漢", "100%", "what?", "star*", "[x]", 'a"b', "a::b", "back\\slash", "-C"]
ALL_IN_ONE = 'it\'s\n100% ünï漢 [x] "b" a::b what? star* back\\slash'

FOREIGN = re.compile(r"Traceback|duckdb|sqlite|pyarrow|Arrow|safetensors_|Safetensor|pydantic|Errno|validation error")
"""What only a library says of itself."""

CREW = ["--crew", "crew.toml"]
TASKS = [*CREW, "--tasks", "tasks.jsonl"]
RECORD = [
    *(["traces", name] for name in ("list", "report", "doctor", "compact")),
    *(["traces", name, "55"] for name in ("show", "lineage")),
    *(["traces", "tail", "--no-follow"], ["traces", "check", "--all"], ["traces", "sql", "SELECT count(*) FROM turns"]),
    *(["traces", "diff", "55", "55"], ["traces", "export", "--to", "out.jsonl"], ["traces", "import", "chat.jsonl"]),
    *(["traces", "delete", "--older-than", "9999d", "--yes"], ["traces", "receive", "--port", "BUSY"]),
    *(["label", "55", "score", "1"], ["mine", "--agent", "clerk", "--out", "rows"], ["train-router"]),
]
RUNS = [
    *(["runs", name, "5"] for name in ("show", "resume", "cancel", "approve", "deny")),
    *(["runs", "list"], ["runs", "answer", "5", "yes"], ["memory", "list"], ["memory", "forget", "--user", "nobody"]),
    ["runs", "prune", "--older-than", "9999d"],
]
DATA = [
    ["data", "list"],
    *(["data", name, "rows.jsonl"] for name in ("show", "card", "check")),
    *(["data", "diff", "rows.jsonl", "rows.jsonl"], ["data", "export", "rows.jsonl", "--out", "out2.jsonl"]),
]
SETS = [
    *(["tasks", name, "tasks.jsonl"] for name in ("split", "check", "show")),
    ["tasks", "write", "--like", "tasks.jsonl", "--with", "far", "--out", "written.jsonl"],
]
WORK = [
    *(["run", *CREW, "How many?"], ["run", *TASKS, "--out", "outcomes2.jsonl"], ["replay", "55", *CREW]),
    *(
        ["evaluate", *TASKS],
        ["teach", *TASKS],
        ["teach", *TASKS, "--teacher", "far"],
        ["gate", "clerk@2", *TASKS],
        ["mcp", *CREW, "--http", "BUSY"],
    ),
    *(["trainings", name, "clerk@1"] for name in ("show", "compare")),
    *(["trainings", "list"], ["trainings", "plot", "clerk@1", "--out", "out.png"]),
    *(["train", "--agent", "clerk", "--data", "rows.jsonl", "--model", "nothing"], ["demo", "--model", "./nothing"]),
]
SERVING = [
    *(["adapters", name, "clerk@2"] for name in ("promote", "swap", "register")),
    ["adapters", "export", "clerk@2", "exported"],
    *(["adapters", "list"], ["adapters", "rollback", "clerk"], ["doctor"], ["model", "show"], ["model", "pull"]),
    *(["server", name] for name in ("status", "logs", "stop")),
    ["server", "start", "--attach", "http://127.0.0.1:9"],
]
COMMANDS = [*RECORD, *RUNS, *DATA, *SETS, *WORK, *SERVING]


class Project:
    """A project's folder, and the command line in it."""

    def __init__(self, journeyman: Any, folder: Path, busy: int) -> None:
        shutil.copytree(BEFORE, folder)
        self.folder, self.workspace = folder, folder / "workspace"
        self._journeyman = journeyman
        self._busy = busy
        for name, text in FILES.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        adapters = self.workspace / "adapters"
        shutil.copytree(adapters / "clerk@1", adapters / "clerk@2")
        record = adapters / "clerk@2" / "adapter.json"
        record.write_text(json.dumps({**json.loads(record.read_bytes()), "number": 2}), encoding="utf-8")

    def walk(self, commands: Sequence[Sequence[str]]) -> None:
        more = ("out.jsonl", "out2.jsonl", "outcomes2.jsonl", "written.jsonl", "rows")
        here = {name: self.folder / name for name in (*FILES, *more)}
        for command in commands:
            arguments = [str(here.get(word, self._busy if word == "BUSY" else word)) for word in command]
            ended = self._journeyman(*arguments, "-C", self.workspace)
            assert UNEXPECTED not in ended.err and not FOREIGN.search(ended.err), (command, ended.err)
            assert ended.err.count("error: ") <= 1, (command, ended.err)
            assert ended.code in set(Exit), (command, ended.code)
            told = "error: " in ended.err.splitlines()[-1] if ended.err else False
            assert told or ended.code not in (Exit.USAGE,), (command, ended.err)


FILES = {
    "journeyman.toml": 'mlflow = "http://127.0.0.1:9"\n[server]\nmodel = "./nothing"\n[models.far]\n'
    'url = "http://127.0.0.1:9/v1"\nmodel = "m"\nretries = 0\n[runs]\nkeep_days = 36500\n',
    "crew.toml": 'name = "solo"\n[workers.solo]\ninstructions = "Answer."\nmodel = "far"\n',
    "tasks.jsonl": '{"id": "q1", "prompt": "How many?", "reference": "42"}\n',
    "chat.jsonl": '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n',
    "rows.jsonl": json.dumps(
        {
            "agent": "clerk",
            "policy": "teacher",
            "trace_id": "5" * 32,
            "span_ids": ["1" * 16],
            "messages": [{"role": "user", "content": "hi"}],
            "completion": "ho",
        }
    )
    + "\n",
    "workspace/server.log": "a line\n",
}


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port that is taken: what would listen there for good ends at once, after it has opened the workspace."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # Nobody answers for MLflow here.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield int(taken.getsockname()[1])


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(command, TyperGroup):
        for name, below in command.commands.items():
            yield from leaves(below, (*path, name))
    else:
        yield path


def test_every_command_is_walked() -> None:
    walked = {tuple(command) for command in COMMANDS}
    for path in leaves(typer.main.get_command(build())):
        assert any(command[: len(path)] == path for command in walked), path


def test_every_command_works_in_a_sound_workspace_of_a_hostile_name(journeyman: Any, tmp_path: Path, busy: int) -> None:
    Project(journeyman, tmp_path / ALL_IN_ONE, busy).walk(COMMANDS)


@pytest.mark.parametrize("name", NAMES)
def test_a_workspace_may_have_any_name(journeyman: Any, reports: Path, tmp_path: Path, busy: int, name: str) -> None:
    file = reports / "apostrophe" / "chat.jsonl"
    for _ in ("its log file", "its segment"):
        assert journeyman("traces", "import", file, "-C", tmp_path / name).code == 0
        assert journeyman("traces", "list", "-C", tmp_path / name).out.count("prices of tea") == 1
        assert journeyman("traces", "compact", "-C", tmp_path / name).code == 0


def gone(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def as_a_folder(path: Path) -> None:
    gone(path)
    path.mkdir()


def as_junk(path: Path) -> None:
    gone(path)
    path.write_bytes(bytes(range(256)))


def as_other_json(path: Path) -> None:
    gone(path)
    path.write_text("[1]\n")


def as_nothing(path: Path) -> None:
    gone(path)
    path.touch()


def as_a_mark(path: Path) -> None:
    gone(path)
    path.write_bytes(b"\xef\xbb\xbf")


def as_a_half(path: Path) -> None:
    contents = path.read_bytes() if path.is_file() else b"{"
    gone(path)
    path.write_bytes(contents[: len(contents) // 2])


def as_a_loop(path: Path) -> None:
    gone(path)
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    gone(path)
    path.symlink_to("nowhere")


def as_a_pipe(path: Path) -> None:
    gone(path)
    os.mkfifo(path)


def moved(path: Path) -> None:
    if not path.exists():
        path.touch()
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


CHANGES: Sequence[Callable[[Path], None]] = [
    *(as_a_folder, as_junk, as_other_json, as_nothing, as_a_mark, as_a_half),
    *(as_a_loop, dangling, as_a_pipe, moved),
]

ADAPTER = "workspace/adapters/clerk@2"
READERS = {
    "journeyman.toml": ["traces list"],
    "crew.toml": ["run", "evaluate"],
    "tasks.jsonl": ["evaluate", "tasks"],
    "chat.jsonl": ["traces import"],
    "workspace": ["traces list", "runs list", "adapters list", "server status"],
    "workspace/spans": ["traces list", "traces import", "traces compact"],
    "workspace/spans/segments": ["traces list", "traces compact"],
    "workspace/spans/segments/day=*": ["traces list", "traces compact"],
    "workspace/spans/segments/day=*/*.parquet": ["traces list", "traces doctor"],
    "workspace/spans/2*.jsonl": ["traces list", "traces tail", "traces compact"],
    "workspace/spans/texts": ["traces show", "traces compact"],
    "workspace/spans/tombstones.jsonl": ["traces list", "traces delete"],
    "workspace/labels.jsonl": ["traces list", "traces delete", "label"],
    "workspace/runs.db": ["runs list", "memory list"],
    "workspace/adapters": ["adapters list"],
    ADAPTER: ["adapters list"],
    **{
        f"{ADAPTER}/{name}": ["adapters list"]
        for name in ("adapter.json", "adapter_config.json", "adapter_model.safetensors", "probe.json", "verdict.json")
    },
    f"{ADAPTER}/registration.json": ["adapters list"],
    "workspace/journal.jsonl": ["adapters list"],
    "workspace/datasets": ["traces lineage", "data list", "data show"],
    "rows.jsonl": ["data show", "data card", "data check", "data diff", "data export", "train"],
    "rows.jsonl.card.json": ["data show", "data card", "train"],
    "workspace/evaluations": ["evaluate"],
    "workspace/server.json": ["server status", "server stop"],
    "workspace/server.log": ["server logs"],
    "workspace/swap.lock": ["adapters swap"],
    "workspace/demo.lock": ["demo"],
}
"""What lies in a project, and the commands that it matters to."""


@pytest.mark.parametrize("where", READERS)
def test_what_is_no_record_gets_one_line(journeyman: Any, tmp_path: Path, busy: int, where: str) -> None:
    readers = [name.split() for name in READERS[where]]
    commands = [command for command in COMMANDS if any(command[: len(name)] == name for name in readers)]
    for number, change in enumerate(CHANGES):
        project = Project(journeyman, tmp_path / str(number), busy)
        path = next(project.folder.glob(where), project.folder / where)
        path.parent.mkdir(parents=True, exist_ok=True)
        change(path)
        project.walk(commands)
