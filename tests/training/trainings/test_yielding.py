"""A training is as nice as the project's file says."""

import subprocess
import sys
from pathlib import Path

import pytest

YIELD = """
import os, sys
from pathlib import Path
from journeyman.runtime.workspace import Workspace
from journeyman.training.trainings.yielding import give_way
print(give_way(Workspace(Path(sys.argv[1]))), os.getpriority(os.PRIO_PROCESS, 0))
"""


@pytest.mark.parametrize(
    ("config", "said", "nice"),
    [
        ("[training]\nnice = 19\n", "training yields to others on this machine: niceness 19", "19"),
        ("", "None", None),
    ],
)
def test_niceness_is_the_files_and_nothing_changes_without_a_server(
    tmp_path: Path, config: str, said: str, nice: str | None
) -> None:
    (tmp_path / "journeyman.toml").write_text(config)
    ended = subprocess.run(
        [sys.executable, "-c", YIELD, str(tmp_path / ".journeyman")], capture_output=True, text=True, check=True
    )
    told, _, now = ended.stdout.strip().rpartition(" ")
    assert told == said
    assert nice is None or now == nice
