"""Documents: a long list is read a member at a time, whatever way it is laid out."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.traces.exchange.documents import FIRST_LINE, opens_list, read_members

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(members=st.lists(JSON, max_size=6), indent=st.sampled_from([0, 1, 4, "\t"]), otlp=st.booleans())
def test_members_are_those_of_the_list(
    members: list[Any], indent: int | str, otlp: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "list.json"
    path.write_text(json.dumps({"resourceSpans": members} if otlp else members, indent=indent, ensure_ascii=False))
    assert list(read_members(path)) == members
    assert opens_list(path) == (otlp or members != [])


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}\n{"a": 2}\n',
        '[{"a": 1}]',
        '[{"a": 1}]\n[{"a": 2}]\n',
        '{\n"a": [\n]}',
        "",
        "\n\n",
        '{"resourceSpans": []}',
    ],
)
def test_lines_and_other_documents_are_no_list(text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text)
    assert not opens_list(tmp_path / "file")


@pytest.mark.parametrize("begin", ["[\n", "\n\n  [\n", '{\n  "resourceSpans" : [\n', '{"resourceSpans": [\n', "{\n\n"])
def test_an_opening_on_a_line_of_its_own_begins_a_list(begin: str, tmp_path: Path) -> None:
    rest = '"resourceSpans": [' if begin == "{\n\n" else ""
    (tmp_path / "file").write_text(begin + rest + '{"a": 1},\n{"a": 2}]' + "}" * ("{" in begin))
    assert opens_list(tmp_path / "file")
    assert list(read_members(tmp_path / "file")) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("separator", [",\n", ", "])
def test_a_long_list_takes_the_memory_of_a_few_members(separator: str, tmp_path: Path) -> None:
    whole = {"text": "ä\\\n" * 30_000}
    member = json.dumps(whole)
    path = tmp_path / "long.json"
    with path.open("w", encoding="utf-8") as file:
        file.write("[" + "\n" * (separator != ", "))
        for number in range(240):
            file.write((separator if number else "") + member)
        file.write("]")
    assert path.stat().st_size > 2 * FIRST_LINE
    tracemalloc.start()
    assert sum(read == whole for read in read_members(path)) == 240
    assert tracemalloc.get_traced_memory()[1] < FIRST_LINE
    tracemalloc.stop()
    assert opens_list(path)


@pytest.mark.parametrize("end", ['{"a": ', '{"a": nul', "", '{"a": 1', "x" * 3_000_000])
def test_a_list_that_breaks_off_gives_what_came_before(end: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text('[\n{"a": 1},\n' + end)
    members = read_members(tmp_path / "file")
    assert next(members) == {"a": 1}
    with pytest.raises(ValueError):
        next(members)
