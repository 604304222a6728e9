"""A look-up finds the documents that fit best, in any number of threads, and says when there are none."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from journeyman.tools.call import call_tool
from journeyman.tools.retrieve import retrieve, retrieve_from
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
        assert retrieve_from(tmp_path / name, k=1).function("the owl") == "grey owl"


def test_lines_end_where_json_says_and_a_byte_order_mark_is_none_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").write_text('\ufeff{"text": "red\u2028fox"}\r\n{"text": "grey\x85owl"}\r\n')
    assert retrieve_from(tmp_path / "facts.jsonl", k=1).function("owl") == "grey owl"
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/birds.md").write_text("\ufeff# Owls\n\nThey hunt.\n")
    assert retrieve_from(tmp_path / "notes", k=1).function("hunt") == "birds.md (Owls): They hunt."


@pytest.mark.parametrize("line", ["{broken", '"text"', '{"title": "owl"}', '{"text": 3}'])
def test_a_broken_line_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(f'{{"text": "red fox"}}\n\n{line}\n')
    with pytest.raises(ConfigError, match=r"facts\.jsonl line 3: .*write \{"):
        retrieve_from(path)


def test_a_file_that_cannot_be_searched_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.txt").write_text("\n")
    for name, why in {
        "none.txt": "cannot be read",
        "binary.txt": "not UTF-8",
        "empty.txt": "nothing to search",
    }.items():
        with pytest.raises(ConfigError, match=why):
            retrieve_from(tmp_path / name)
    with pytest.raises(ConfigError, match="at least 1"):
        retrieve(MOUNTAINS, k=0)


def test_a_folder_of_texts_is_searched_by_passage_with_its_source(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "guide.md").write_text("Intro to birds.\n\n# Owls\nThey hunt\nat night.\n\n## Foxes\n\nThey are red.\n")
    (tmp_path / "deep" / "long.txt").write_text("\n\n".join(f"paragraph {n} {'word ' * 60}" for n in range(20)))
    for ignored in (".hidden/owl.md", ".owl.md", "owl.py"):
        (tmp_path / ignored).write_text("owl night")
    (tmp_path / "link.md").symlink_to(tmp_path / "owl.py")
    search = retrieve_from(tmp_path, k=1).function
    assert search("hunt night") == "guide.md (Owls): They hunt at night."
    assert search("red") == "guide.md (Foxes): They are red."
    assert search("intro") == "guide.md: Intro to birds."
    found = str(search("paragraph 13"))
    assert found.startswith("deep/long.txt: paragraph") and "paragraph 13 " in found and len(found) < 1500


def by_first_letters(texts: list[str]) -> list[list[float]]:
    """A stand-in for an embedding model: words that begin alike point the same way."""
    return [[float(sum(w[0] == letter for w in text.lower().split())) for letter in "abcdefg"] for text in texts]


def test_embeddings_rank_where_a_model_is_given() -> None:
    search = retrieve(["apple ant", "bird bee", "cat ant"], k=2, embed=by_first_letters).function
    assert search("bat") == "bird bee\napple ant"
    assert search("zebra") == "apple ant\nbird bee"


def test_documents_are_embedded_once_however_many_ask_first() -> None:
    asked: list[int] = []

    def counting(texts: list[str]) -> list[list[float]]:
        asked.append(len(texts))
        return by_first_letters(texts)

    search = retrieve(["apple", "bird"], k=1, embed=counting).function
    assert asked == []
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(search, ["boat"] * 16)) == {"bird"}
    assert sorted(asked) == [1] * 16 + [2]


async def test_a_model_with_the_wrong_number_of_vectors_is_told_of() -> None:
    called = await call_tool(retrieve(["apple", "bird"], embed=lambda texts: [[1.0, 2.0]]), {"query": "x"})
    assert called.content == "search: the embedding model gave vectors of shape (1, 2) for 2 texts"


class _Endpoint(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        good = self.path == "/v1/embeddings" and self.headers["authorization"] == "Bearer hush"
        rows = [{"index": n, "embedding": v} for n, v in enumerate(by_first_letters(asked["input"]))]
        body = json.dumps({"data": rows[::-1] if asked["model"] == "letters" else None}).encode()
        self.send_response(200 if good else 401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


async def test_an_endpoint_of_openai_s_api_is_such_a_model(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "facts").write_text("\n".join([*(f"apple {n}" for n in range(100)), "bird bee"]))
    monkeypatch.setenv("EMBEDDING_KEY", "hush")
    facts = tmp_path / "facts"
    tool = retrieve_from(
        facts, k=1, embeddings_url=endpoint, embeddings_model="letters", embeddings_key_env="EMBEDDING_KEY"
    )
    assert (await call_tool(tool, {"query": "boat"})).content == "bird bee"
    keyless = retrieve_from(facts, embeddings_url=endpoint, embeddings_model="letters")
    assert (await call_tool(keyless, {"query": "boat"})).content == f"search: {endpoint}/embeddings answered 401"
    other = retrieve_from(facts, embeddings_url=endpoint, embeddings_model="x", embeddings_key_env="EMBEDDING_KEY")
    assert "something else than embeddings" in (await call_tool(other, {"query": "boat"})).content
    gone = retrieve_from(facts, embeddings_url="http://127.0.0.1:1", embeddings_model="letters")
    assert "cannot be reached" in (await call_tool(gone, {"query": "boat"})).content
    with pytest.raises(ConfigError, match="embeddings need both"):
        retrieve_from(facts, embeddings_url=endpoint)
    with pytest.raises(ConfigError, match="no variable 'NOT_THERE'"):
        retrieve_from(facts, embeddings_url=endpoint, embeddings_model="x", embeddings_key_env="NOT_THERE")
    with pytest.raises(ConfigError, match="embeddings_url: 'localhost:8000' isn't a server's URL"):
        retrieve_from(facts, embeddings_url="localhost:8000", embeddings_model="letters")
    monkeypatch.setenv("EMBEDDING_KEY", "hush\nhush")
    with pytest.raises(ConfigError, match="EMBEDDING_KEY holds a character that no header can") as refused:
        retrieve_from(facts, embeddings_url=endpoint, embeddings_model="x", embeddings_key_env="EMBEDDING_KEY")
    assert "hush" not in str(refused.value)
