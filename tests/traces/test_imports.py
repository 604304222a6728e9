"""What a user names as `module:attribute`: installed, or in the current folder, which is looked into for that alone."""

import sys
from pathlib import Path

import pytest

from journeyman.traces.errors import ConfigError
from journeyman.traces.imports import imported


def test_a_module_of_the_current_folder_is_found_with_what_it_imports_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words_of_this_test.py").write_text("GREETING = 'hello'\n")
    Path("greeter_of_this_test.py").write_text("from words_of_this_test import GREETING\n")
    assert imported("greeter_of_this_test:GREETING", "tool") == "hello"


def test_nothing_else_is_ever_imported_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tool_of_this_test.py").write_text("def send(): ...\n")
    Path("written_by_an_agent.py").write_text("raise SystemExit('it was run')\n")
    imported("json:dumps", "tool")
    imported("tool_of_this_test:send", "tool")
    assert str(tmp_path) not in sys.path
    with pytest.raises(ModuleNotFoundError):
        __import__("written_by_an_agent")


def test_what_cannot_be_had_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken_of_this_test.py").write_text("1 / 0\n")
    for name in ("json", "json:nothing", "no_such_module:tool", "..:tool", "broken_of_this_test:tool"):
        with pytest.raises(ConfigError, match=r"^tool .*$"):
            imported(name, "tool")
