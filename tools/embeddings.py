"""Embeddings: documents ranked by the direction of their vectors, which a model makes of text."""

import os
import re
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from journeyman.tools.secret import header_text
from journeyman.traces.errors import ConfigError, ToolError

if TYPE_CHECKING:
    import numpy

Embed = Callable[[list[str]], Sequence[Sequence[float]]]
"""A vector for each text, in order, all of one length."""

BATCH = 64
"""Texts a request."""
SECONDS = 60.0


def embeddings_endpoint(url: str, model: str, key_env: str | None = None) -> Embed:
    """`Embed` by a server that speaks OpenAI's API: `url` is its base, `http://localhost:8000/v1`.

    `key_env` names the variable that holds its key. A failure is a `ToolError`.
    """
    if not re.match(r"https?://[^/]", url):
        raise ConfigError(f"embeddings_url: {url!r} isn't a server's URL: write it as http://host:port/v1")
    headers: dict[str, str] = {}
    if key_env is not None:
        if key_env not in os.environ:
            raise ConfigError(f"the environment has no variable {key_env!r}, which is to hold the key for {url}")
        headers["Authorization"] = f"Bearer {header_text(os.environ[key_env], key_env)}"
    address = f"{url.rstrip('/')}/embeddings"

    def embed(texts: list[str]) -> list[list[float]]:
        import httpx

        vectors: list[list[float]] = []
        with httpx.Client(headers=headers, timeout=SECONDS) as client:
            for start in range(0, len(texts), BATCH):
                body = {"model": model, "input": texts[start : start + BATCH]}
                try:
                    response = client.post(address, json=body).raise_for_status()
                    rows = sorted(response.json()["data"], key=lambda row: row["index"])
                    vectors += [row["embedding"] for row in rows]
                except httpx.HTTPStatusError as error:
                    raise ToolError(f"{address} answered {error.response.status_code}") from None
                except httpx.HTTPError as error:
                    raise ToolError(f"{address} cannot be reached: {error}") from None
                except (ValueError, KeyError, TypeError):
                    raise ToolError(f"{address} answered with something else than embeddings") from None
        return vectors

    return embed


class VectorIndex:
    """Made at the first look-up, since a crew must be readable without a server; then only read."""

    def __init__(self, documents: Sequence[str], embed: Embed) -> None:
        self._documents = list(documents)
        self._embed = embed
        self._making = threading.Lock()
        self._vectors: numpy.ndarray[Any, Any] | None = None

    def best(self, query: str, k: int) -> list[str]:
        """The `k` documents nearest in direction, however far; of two alike the earlier one first."""
        with self._making:
            if self._vectors is None:
                self._vectors = self._unit(self._documents)
        nearness = self._vectors @ self._unit([query])[0]
        return [self._documents[place] for place in (-nearness).argsort(kind="stable")[:k]]

    def _unit(self, texts: list[str]) -> "numpy.ndarray[Any, Any]":
        import numpy as np

        vectors = np.asarray(self._embed(texts), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise ToolError(f"the embedding model gave vectors of shape {vectors.shape} for {len(texts)} texts")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: np.ndarray[Any, Any] = vectors / np.where(lengths == 0, 1, lengths)
        return unit
