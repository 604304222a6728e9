"""Retrieval: a look-up over documents, ranked by BM25, or by embeddings where a model is given."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from journeyman.tools.embeddings import Embed, VectorIndex, embeddings_endpoint
from journeyman.tools.passages import read_passages
from journeyman.tools.tool import Count, Tool
from journeyman.tools.words import words_asked, words_of
from journeyman.traces.errors import ConfigError

NOTHING = "nothing found"


def retrieve(
    documents: Sequence[str],
    *,
    k: int = 2,
    name: str = "search",
    description: str = "Finds the documents that match a query best.",
    embed: Embed | None = None,
) -> Tool:
    """A tool `name(query: str) -> str` that returns the `k` best of `documents`, one a line, or "nothing found".

    With BM25 a document without a word of the query is never returned; with `embed` the nearest ones are, however far.
    Words are told apart as `tools.words` does, and compared as they are written: no stems, no synonyms. Of two that
    match alike the earlier one comes first. The index is only read, so calls may run in any number of threads.
    """
    if k < 1:
        raise ConfigError(f"k is {k}; a look-up returns at least 1 document")
    lines = [" ".join(document.split()) for document in documents]
    index: _Index = _WordIndex(lines) if embed is None else VectorIndex(_some(lines), embed)

    def search(query: str) -> str:
        return "\n".join(index.best(query, k)) or NOTHING

    return Tool(search, name=name, description=description)


def retrieve_from(
    path: Path,
    *,
    k: Count = 2,
    description: str = "Finds the documents that match a query best.",
    embeddings_url: str | None = None,
    embeddings_model: str | None = None,
    embeddings_key_env: str | None = None,
) -> Tool:
    """A tool `retrieve(query: str) -> str` over a file, or over a folder of text and Markdown files.

    `read_passages` says how they are read. Raises `ConfigError`.

    - `path`: the file or the folder.
    - `k`: documents that a look-up gives.
    - `description`: what agents are told of the tool.
    - `embeddings_url`: an endpoint that speaks OpenAI's API; documents are embedded at the first look-up. None ranks
      by BM25.
    - `embeddings_model`: the endpoint's name for its model.
    - `embeddings_key_env`: the environment variable that holds its key.
    """
    if (embeddings_url is None) != (embeddings_model is None):
        raise ConfigError("embeddings need both, embeddings_url and embeddings_model")
    embed = None
    if embeddings_url is not None and embeddings_model is not None:
        embed = embeddings_endpoint(embeddings_url, embeddings_model, embeddings_key_env)
    return retrieve(read_passages(Path(path)), k=k, description=description, embed=embed)


class _Index(Protocol):
    def best(self, query: str, k: int) -> list[str]: ...


class _WordIndex:
    def __init__(self, documents: list[str]) -> None:
        # Takes a second to import: only those who search should wait for it.
        import bm25s  # type: ignore[import-untyped]

        self._documents = documents
        words = [words_of(document) for document in documents]
        if not any(words):
            raise ConfigError("there is nothing to search in: no document has a word")
        self._bm25 = bm25s.BM25(backend="numpy")
        self._bm25.index(words, show_progress=False)

    def best(self, query: str, k: int) -> list[str]:
        known = self._bm25.get_tokens_ids(words_asked(query))
        if not known:
            return []
        scores = self._bm25.get_scores_from_ids(known)
        ranked = (-scores).argsort(kind="stable")[:k]
        return [self._documents[place] for place in ranked if scores[place] > 0]


def _some(documents: list[str]) -> list[str]:
    written = [document for document in documents if document]
    if not written:
        raise ConfigError("there is nothing to search in: no document has a word")
    return written
