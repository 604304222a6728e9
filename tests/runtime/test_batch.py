"""Task files: good lines are read, broken ones are named by number."""

from pathlib import Path

import pytest

from journeyman.runtime.batch import read_tasks
from journeyman.traces.errors import ConfigError


def test_a_broken_line_is_named_by_number_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    lines = ['{"id": "a", "prompt": "one"}', '{"id": "b", "promt": 1}', "", "[1]", '{"prompt"', '{"prompt": "two"}']
    lines.append('{"prompt": " "}')
    path.write_text("\n".join([*lines, '{"id": "a", "prompt": "again"}']))
    tasks, broken = read_tasks(path)
    assert [(task.id, task.prompt) for task in tasks] == [("a", "one"), ("6", "two")]
    assert [line.number for line in broken] == [2, 4, 5, 7, 8]
    assert all(line.reason for line in broken)


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.jsonl: cannot be read"):
        read_tasks(tmp_path / "none.jsonl")


def test_a_line_whose_text_cannot_be_kept_is_broken_and_takes_no_other_with_it(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"prompt": "a\\u0000b"}\n{"prompt": "\\ud800"}\n{"prompt": "\\\\u0000"}\n')
    tasks, broken = read_tasks(path)
    assert [task.prompt for task in tasks] == [r"\u0000"]
    assert broken[0].reason == "it holds a null character, which isn't text: take it out"
    assert "surrogate" in broken[1].reason


def test_a_prompt_may_hold_any_line_separator_of_unicode(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"prompt": "one\u2028two\x85three"}\r\n{"prompt": "four"}\n', encoding="utf-8")
    tasks, broken = read_tasks(path)
    assert ([task.prompt for task in tasks], broken) == (["one\u2028two\x85three", "four"], [])
