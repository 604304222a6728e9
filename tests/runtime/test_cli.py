"""The command line: one clear line for an error, the exit code that belongs to it, and help that reads like a map."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from journeyman.runtime.cli import build

JOURNEYMAN = str(Path(sys.executable).with_name("journeyman"))


def journeyman(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([JOURNEYMAN, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_the_help_reads_like_a_map_of_the_loop(tmp_path: Path) -> None:
    shown = journeyman("--help", folder=tmp_path).stdout
    places = [shown.index(panel) for panel in ("Set up", "1. Run", "2. Record", "3. Learn", "4. Prove", "5. Serve")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["fly"], 2, "No such command 'fly'"),
        (["run", "--concurrency", "many", "x"], 2, "--concurrency"),
        (["run"], 2, "give either a question or --tasks FILE"),
        (["evaluate", "--crew", "none.toml", "--tasks", "none.jsonl"], 2, "none.jsonl: cannot be read"),
        (["run", "--attach", "http://127.0.0.1:9", "--crew", "none.toml", "hi"], 2, "none.toml: there is no such file"),
        (["traces", "show", "abc"], 1, "no trace 'abc'"),
        (["train", "--agent", "lookup", "--data", "none.jsonl"], 2, "none.jsonl"),
        (["adapters", "promote", "lookup@1"], 1, "there is no adapter lookup@1"),
        (["adapters", "rollback", "lookup"], 1, "lookup"),
        (["server", "logs"], 2, "start a server there with `journeyman server start`"),
        (["run", " "], 2, "the question is empty"),
        (["run", "caf\udce9"], 2, "is not valid UTF-8"),
        (["run", "--attach", "http://127.0.0.1:9", "--crew", ".", "hi"], 2, "Is a directory"),
        (["mcp", "--attach", "http://127.0.0.1:9", "--json"], 2, "--http"),
    ],
)
def test_an_error_is_one_line_on_stderr_with_its_exit_code(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    done = journeyman(*arguments, folder=tmp_path)
    assert done.returncode == code, done.stderr
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert said in error
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_workspace_that_is_a_file_is_one_line_for_every_command(tmp_path: Path) -> None:
    (tmp_path / ".journeyman").write_text("not a folder")
    for arguments in (["traces", "list"], ["adapters", "list"], ["run", "--attach", "http://127.0.0.1:9", "hi"]):
        done = journeyman(*arguments, folder=tmp_path)
        assert done.returncode != 0
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


def test_what_a_crew_names_may_lie_in_the_folder_where_the_command_is_given(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from journeyman.runtime import tool\n@tool\ndef look() -> str: return ''\n")
    (tmp_path / "crew.toml").write_text('name = "c"\n[workers.w]\ntools = ["x"]\n[tools.look]\nuse = "mine:look"\n')
    done = journeyman("run", "--attach", "http://127.0.0.1:9", "--crew", "crew.toml", "hi", folder=tmp_path)
    assert "unknown tool 'x'; the crew has: look" in done.stderr


def test_what_a_person_interrupts_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise KeyboardInterrupt\n")
    (tmp_path / "crew.toml").write_text('name = "c"\n[workers.w]\n[tools.look]\nuse = "mine:look"\n')
    done = journeyman("run", "--attach", "http://127.0.0.1:9", "--crew", "crew.toml", "hi", folder=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (130, 1)
    assert done.stderr.startswith("error: interrupted: run the same command again")


def commands(group: Any, *path: str) -> Iterator[tuple[str, set[str]]]:
    """Every command of `journeyman`, with its options."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield " ".join((*path, name)), {option for one in command.params for option in one.opts}


def test_every_command_takes_json_and_a_workspace() -> None:
    found = dict(commands(typer.main.get_command(build())))
    assert {"run", "mcp", "traces sql", "adapters promote"} <= found.keys()
    assert [name for name, options in found.items() if not {"--json", "-C"} <= options] == []


@pytest.mark.parametrize("group", ["memory", "runs", "traces"])
def test_a_group_without_a_command_shows_its_help_and_nothing_else(group: str, tmp_path: Path) -> None:
    shown = journeyman(group, folder=tmp_path)
    assert (shown.returncode, shown.stderr) == (2, "")
    assert f"journeyman {group} [OPTIONS] COMMAND" in shown.stdout


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    assert "Traceback" in journeyman("--debug", "run", folder=tmp_path).stderr


def test_the_workspace_is_beside_the_project_file(tmp_path: Path) -> None:
    (tmp_path / "journeyman.toml").write_text("[server]\nport = 8123\n")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert f"no trace '1' in {tmp_path / '.journeyman'}" in journeyman("traces", "show", "1", folder=deep).stderr


def test_a_mistake_in_the_project_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "journeyman.toml").write_text("[server]\nprot = 8123\n")
    done = journeyman("server", "start", folder=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "unknown key 'server.prot'" in done.stderr


def test_json_goes_to_stdout_alone(tmp_path: Path) -> None:
    done = journeyman("server", "status", "--json", folder=tmp_path)
    assert json.loads(done.stdout)["condition"] == "none"
