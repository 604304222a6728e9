"""A look-up finds the documents that fit best, in any number of threads, and says when there are none."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from journeyman.tools.call import call_tool
from journeyman.tools.retrieve import retrieve, retrieve_from_file
from journeyman.traces.errors import ConfigError

MOUNTAINS = ["Mount Everest is 8849 m high", "K2 is 8611 m high", "Lhotse stands\nbeside Everest"]


def test_the_best_documents_come_first_one_a_line() -> None:
    search = retrieve(MOUNTAINS).function
    assert search("How high is Mount Everest?") == "Mount Everest is 8849 m high\nK2 is 8611 m high"
    assert search("lhotse") == "Lhotse stands beside Everest"


@pytest.mark.parametrize("query", ["volcano", "", "?!"])
def test_a_query_without_a_known_word_finds_nothing(query: str) -> None:
    assert retrieve(MOUNTAINS).function(query) == "nothing found"


def test_of_two_that_match_alike_the_earlier_one_comes_first() -> None:
    assert retrieve(["red fox", "red owl", "red cat"], k=2).function("red") == "red fox\nred owl"


def test_threads_get_the_answers_that_one_caller_gets() -> None:
    documents = [f"number {number} is called {number * number}" for number in range(300)]
    search = retrieve(documents, k=1).function
    queries = [f"called {number * number}" for number in range(300)] * 4
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(search, queries)) == [search(query) for query in queries]


async def test_it_is_a_tool_that_a_crew_can_call() -> None:
    tool = retrieve(MOUNTAINS, name="facts", description="Finds facts.")
    assert (tool.name, tool.description, list(tool.parameters["properties"])) == ("facts", "Finds facts.", ["query"])
    assert (await call_tool(tool, {"query": "K2"})).content == "K2 is 8611 m high"


def test_it_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    assert retrieve(["red fox"]).function("fox") == "red fox"
    assert capfd.readouterr() == ("", "")


def test_a_file_of_json_lines_or_of_text_is_searched(tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").write_text('{"text": "red fox"}\n\n{"text": "grey owl"}\n')
    (tmp_path / "facts.txt").write_text("red fox\n\ngrey owl\n")
    for name in ("facts.jsonl", "facts.txt"):
        assert retrieve_from_file(tmp_path / name, k=1).function("the owl") == "grey owl"


@pytest.mark.parametrize("line", ["{broken", '"text"', '{"title": "owl"}', '{"text": 3}'])
def test_a_broken_line_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(f'{{"text": "red fox"}}\n\n{line}\n')
    with pytest.raises(ConfigError, match=r"facts\.jsonl line 3: .*write \{"):
        retrieve_from_file(path)


def test_a_file_that_cannot_be_searched_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.txt").write_text("\n")
    for name, why in {
        "none.txt": "cannot be read",
        "binary.txt": "not UTF-8",
        "empty.txt": "nothing to search",
    }.items():
        with pytest.raises(ConfigError, match=why):
            retrieve_from_file(tmp_path / name)
    with pytest.raises(ConfigError, match="at least 1"):
        retrieve(MOUNTAINS, k=0)
