"""`journeyman tasks`, and the names of sets in the commands that take tasks."""

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from journeyman.runtime.cli import build
from journeyman.runtime.console import Exit
from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces.errors import ConfigError, JourneymanError

ROWS = [{"id": f"q{n}", "prompt": sha256(b"%d" % n).hexdigest()[:24], "family": f"f{n % 2}"} for n in range(90)]
"""Prompts of which no two are alike."""


class Tasks:
    def __init__(self, workspace: Workspace) -> None:
        self.folder = workspace.root.parent
        self._root = workspace.root
        self._app = build()

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(self._app, [*arguments, "-C", str(self._root)], env={"COLUMNS": "200"})

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json").stdout)

    def error(self, *arguments: str) -> str:
        result = self(*arguments)
        assert isinstance(result.exception, JourneymanError), result.output
        assert result.exception.exit_code == Exit.USAGE
        return str(result.exception)

    def write(self, name: str, *rows: Any) -> str:
        path = self.folder / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return str(path)

    def sets(self) -> list[str]:
        return [str(self.folder / f"q.{name}.jsonl") for name in ("train", "gate", "test", "vault")]


@pytest.fixture
def tasks(workspace: Workspace) -> Tasks:
    return Tasks(workspace)


def test_a_split_is_clean_and_its_sets_have_names_once_the_project_says_so(tasks: Tasks) -> None:
    split = tasks("tasks", "split", tasks.write("q.jsonl", *ROWS))
    assert split.exit_code == Exit.OK
    table = re.search(r"^\[tasks\]\n(.+\n){4}", split.stderr, re.MULTILINE)
    assert table is not None
    (tasks.folder / PROJECT_FILE).write_text(table[0])
    checked = tasks("tasks", "check")
    assert (checked.exit_code, checked.stdout.startswith("no leaks: ")) == (Exit.OK, True)
    assert tasks.json("tasks", "check", "gate", "test") == tasks.json("tasks", "check", "gate", "test")
    assert sum(each["tasks"] for each in tasks.json("tasks", "show")) == len(ROWS)


def test_a_split_by_a_field_tells_of_near_tasks_across_its_sets(tasks: Tasks) -> None:
    doubled = [*ROWS, *({**row, "id": f"p{row['id']}", "prompt": f"{row['prompt']} Thanks"} for row in ROWS)]
    split = tasks("tasks", "split", tasks.write("q.jsonl", *doubled), "--by", "id")
    assert split.exit_code == Exit.OK and "pairs leak between the sets: see `journeyman tasks check" in split.stderr
    checked = tasks("tasks", "check", *tasks.sets())
    assert checked.exit_code == Exit.FAILED and "pairs leak between sets" in checked.stdout


def test_check_names_the_pairs(tasks: Tasks) -> None:
    train = tasks.write("train.jsonl", ROWS[0], {"id": "t", "prompt": "How many moons has Mars?"})
    gate = tasks.write("gate.jsonl", {"id": "g", "prompt": "How many moon has Mars?"}, {"id": "h", "prompt": "Else?"})
    result = tasks("tasks", "check", train, gate, "--json")
    (leak,) = json.loads(result.stdout)["leaks"]
    assert result.exit_code == Exit.FAILED
    assert (leak["kind"], leak["first"]["id"], leak["second"]["id"]) == ("near", "t", "g")
    assert tasks.json("tasks", "check", train, gate, "--near", "0.9")["leaks"] == []
    assert tasks("tasks", "check", train, gate, "--near", "0.9").exit_code == Exit.OK


def test_show_counts_tasks_references_families_and_letters(tasks: Tasks) -> None:
    path = tasks.write("q.jsonl", {"prompt": "abcd", "reference": 0}, {"prompt": "ab", "family": "f"}, {"prompt": "c"})
    (shown,) = tasks.json("tasks", "show", path)
    counted = {"tasks": 3, "with_reference": 1, "families": {"default": 2, "f": 1}}
    assert shown == {"name": path, **counted, "median_letters": 2, "p90_letters": 4, "longest_letters": 4}
    assert "default 2, f 1" in tasks("tasks", "show", path).stdout


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}], "line 2: id 'a' was used before; mend the line"),
        ([{"prompt": "x"}, "{"], "line 2: it is not valid JSON"),
        ([], "holds no task: write one a line"),
        ([{"prompt": "x", "metadata": {"sub_questions": "y"}}], "metadata.sub_questions isn't a list of texts: write"),
    ],
    ids=["an id twice", "a broken line", "nothing", "sub-questions"],
)
def test_a_file_that_is_no_set_is_refused_by_each_command(tasks: Tasks, rows: list[Any], told: str) -> None:
    path, other = tasks.write("q.jsonl", *rows), tasks.write("other.jsonl", ROWS[0])
    for words in (["split", path], ["check", other, path], ["show", path]):
        assert told in tasks.error("tasks", *words)
    assert sorted(file.name for file in tasks.folder.glob("*.*")) == [".journeyman", "other.jsonl", "q.jsonl"]


def test_a_file_that_cannot_be_read_is_told_in_one_line(tasks: Tasks) -> None:
    for words in (["split", "none.jsonl"], ["check", "none.jsonl", "no.jsonl"], ["show", str(tasks.folder)]):
        assert "cannot be read" in tasks.error("tasks", *words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["split", "FILE", "--train", "0", "--gate", "0", "--test", "0", "--vault", "0"], "all shares are 0: give"),
        (["split", "FILE", "--train", "inf"], "split: 'shares.train'"),
        (["split", "FILE", "--by", "db"], "90 of 90 tasks have no 'db' to group by: give it to lines 1, 2, 3, …"),
        (["split", "FILE", "--by", "family"], "2 groups by 'family' are too few"),
        (["check", "FILE"], "leaks are between sets: name at least two"),
        (["check"], "leaks are between sets: name at least two"),
        (["check", "FILE", "FILE"], "is named twice: name each set once"),
        (["check", "gate", "FILE"], "there is no task set 'gate': write gate = "),
        (["show"], "no task set: name a file"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_done_is_said_with_what_can(tasks: Tasks, words: list[str], told: str) -> None:
    path = tasks.write("q.jsonl", *ROWS)
    assert told in tasks.error("tasks", *(path if word == "FILE" else word for word in words))


@pytest.mark.parametrize("words", [["run", "--out", "OUT"], ["evaluate"]], ids=lambda words: words[0])
def test_a_crew_is_run_on_a_set_by_its_name(tasks: Tasks, words: list[str], files: list[str], url: str) -> None:
    words = [str(tasks.folder / "out.jsonl") if word == "OUT" else word for word in words]
    words += ["--crew", files[1], "--attach", url, "--tasks", "gate"]
    assert "there is no task set 'gate': write gate = " in tasks.error(*words)
    (tasks.folder / PROJECT_FILE).write_text('[tasks]\ngate = "tasks.jsonl"\n')
    assert tasks.json(*words)["tasks"] == 24


def test_only_runs_of_a_set_are_mined_and_none_of_those_held_out(tasks: Tasks, files: list[str], url: str) -> None:
    out = ["--out", str(tasks.folder / "out.jsonl")]
    assert tasks("run", *files, *out, "--attach", url).exit_code == Exit.OK
    tasks.write("train.jsonl", *({"prompt": str(number)} for number in range(4)))
    tasks.write("gate.jsonl", *({"prompt": str(number)} for number in range(2)))
    assert tasks.json("mine", "--agent", "worker")["turns"] == 24
    (tasks.folder / PROJECT_FILE).write_text('[tasks]\ntrain = "train.jsonl"\ngate = "gate.jsonl"\n')
    mined = tasks.json("mine", "--agent", "worker", "--tasks", "train")
    assert (mined["turns"], mined["refused"]) == (2, {"a task of gate": 2})
    assert tasks.json("mine", "--agent", "worker")["turns"] == 22


def test_a_set_lies_where_the_project_says_and_a_file_of_its_name_counts_without_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace.root.parent
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match=r"there is no task set 'gate': write gate = \"FILE\" under \[tasks\] in"):
        workspace.task_file(Path("gate"))
    (folder / "gate").touch()
    assert workspace.task_file(Path("gate")) == Path("gate")
    (folder / PROJECT_FILE).write_text('[tasks]\ngate = "sets/gate.jsonl"\n')
    assert workspace.task_file(Path("gate")) == folder / "sets" / "gate.jsonl"
    assert workspace.task_file(Path("any.jsonl")) == Path("any.jsonl")
