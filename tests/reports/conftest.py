"""The command line as a user has it, in this process: an exit code and what was printed."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from journeyman.runtime.cli import main

REPORTS = Path(__file__).parents[1] / "data" / "reports"


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Journeyman = Callable[..., Ended]


@pytest.fixture
def journeyman(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Journeyman:
    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["journeyman", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, said.out, said.err)

    return run


@pytest.fixture
def reports() -> Path:
    """The inputs that were reported, a folder for each kind."""
    return REPORTS
