"""Retrieval: a look-up over a list of documents, ranked by BM25."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from journeyman.tools.tool import Tool
from journeyman.traces.errors import ConfigError

NOTHING = "nothing found"


def retrieve(
    documents: Sequence[str],
    *,
    k: int = 2,
    name: str = "search",
    description: str = "Finds the documents that match a query best.",
) -> Tool:
    """A tool `name(query: str) -> str` that returns the `k` best of `documents`, one a line, or "nothing found".

    A document without a word of the query is never returned; of two that match alike the earlier one comes first.
    The index is only read after this returns, so calls may run in any number of threads.
    """
    if k < 1:
        raise ConfigError(f"k is {k}; a look-up returns at least 1 document")
    index = _Index(documents)

    def search(query: str) -> str:
        return "\n".join(index.best(query, k)) or NOTHING

    return Tool(search, name=name, description=description)


def retrieve_from_file(path: Path, k: int = 2) -> Tool:
    """`retrieve` over a file: `.jsonl` with {"text": ...} a line, any other name a document a line.

    Raises `ConfigError` naming the file, and for a broken line its number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if path.suffix == ".jsonl":
        return retrieve([_text(line, f"{path} line {number}") for number, line in numbered], k=k)
    return retrieve([line for _, line in numbered], k=k)


class _Index:
    def __init__(self, documents: Sequence[str]) -> None:
        # Takes a second to import: only those who search should wait for it.
        import bm25s  # type: ignore[import-untyped]

        self._documents = [" ".join(document.split()) for document in documents]
        words = [_words(document) for document in self._documents]
        if not any(words):
            raise ConfigError("there is nothing to search in: no document has a word")
        self._bm25 = bm25s.BM25(backend="numpy")
        self._bm25.index(words, show_progress=False)

    def best(self, query: str, k: int) -> list[str]:
        known = self._bm25.get_tokens_ids(_words(query))
        if not known:
            return []
        scores = self._bm25.get_scores_from_ids(known)
        ranked = (-scores).argsort(kind="stable")[:k]
        return [self._documents[place] for place in ranked if scores[place] > 0]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _text(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f'{where}: not valid JSON ({error.msg}); write {{"text": "..."}}') from None
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise ConfigError(f'{where}: write {{"text": "..."}}, a JSON object with a string')
    return text
