"""The workspace: one job of a kind at a time, whoever asks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from journeyman.runtime.config import ServerConfig
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError

HOLD = """
import sys, pathlib
from journeyman.runtime.workspace import Workspace
with Workspace(pathlib.Path(sys.argv[1])).lock("train"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_doing_the_same_job_is_told_who_does_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workspace.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=rf"pid {other.pid}\) is doing `train`"), workspace.lock("train"):
            pass
        with workspace.lock("swap"):
            pass
        other.kill()
        other.wait()
        with workspace.lock("train"):
            pass


def test_one_that_waits_is_told_for_whom_and_goes_on_when_they_are_done(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workspace.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "held\n"
        told: list[str] = []

        def end(holder: str) -> None:
            assert other.stdin is not None
            told.append(holder)
            other.stdin.close()

        with workspace.lock("train", on_wait=end):
            assert told == [f"another process (pid {other.pid}) is doing `train` in {workspace.root}"]
            assert (workspace.root / "train.lock").read_text() == str(os.getpid())


def test_a_workspace_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        Workspace(tmp_path / "file" / "ws").create()


def test_the_server_listens_on_this_machine_unless_told_otherwise() -> None:
    assert ServerConfig().host == "127.0.0.1"
