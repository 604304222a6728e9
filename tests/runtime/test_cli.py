"""The command line: one clear line for an error, the exit code that belongs to it, and help that reads like a map."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
        (["run", "--crew", "none.toml", "hi"], 1, "no server is running"),
        (["run", "--attach", "http://127.0.0.1:9", "--crew", "none.toml", "hi"], 2, "none.toml: there is no such file"),
        (["traces", "show", "abc"], 1, "no trace 'abc'"),
        (["train", "--agent", "lookup", "--data", "none.jsonl"], 2, "none.jsonl"),
        (["adapters", "promote", "lookup@1"], 1, "there is no adapter lookup@1"),
        (["adapters", "rollback", "lookup"], 1, "lookup"),
        (["server", "logs"], 2, "no server was started there"),
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


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    assert "Traceback" in journeyman("--debug", "run", folder=tmp_path).stderr


def test_the_workspace_is_beside_the_project_file(tmp_path: Path) -> None:
    (tmp_path / "journeyman.toml").write_text("[server]\nport = 8123\n")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert f"no server is running in {tmp_path / '.journeyman'}" in journeyman("run", "hi", folder=deep).stderr


def test_a_mistake_in_the_project_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "journeyman.toml").write_text("[server]\nprot = 8123\n")
    done = journeyman("server", "start", folder=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "unknown key 'server.prot'" in done.stderr


def test_json_goes_to_stdout_alone(tmp_path: Path) -> None:
    done = journeyman("server", "status", "--json", folder=tmp_path)
    assert json.loads(done.stdout)["condition"] == "none"
