"""Memory: what agents note down about a person, or within a session, and find again in later runs.

What it keeps apart: notes belong to the user of the task, or to its session where the task names no user. No tool sees
the notes of another. A task that names neither can't remember.

What it does not: a note is text that a model wrote, perhaps after it read something untrusted, and later runs will read
it. Notes are kept as they were written, whatever the record leaves out.
"""

import asyncio
from collections.abc import Sequence

from journeyman.tools.context import Notes, ToolContext
from journeyman.tools.embeddings import Embed, embeddings_endpoint
from journeyman.tools.retrieve import NOTHING, retrieve
from journeyman.tools.tool import Count, Tool
from journeyman.traces.errors import ConfigError, ToolError

MAX_CHARS = 2_000
"""Of one note."""
MAX_VECTORS = 10_000
"""Embeddings that are kept in memory, so that a note is not embedded again for each look-up."""


def memory(
    *,
    k: Count = 4,
    embeddings_url: str | None = None,
    embeddings_model: str | None = None,
    embeddings_key_env: str | None = None,
) -> tuple[Tool, ...]:
    """The tools `remember(text)` and `recall(query)`; a crew gives them its table's name in front.

    `recall` gives the best notes, one a line. Remembering the same text twice keeps it once.

    - `k`: notes that `recall` gives.
    - `embeddings_url`: an endpoint that speaks OpenAI's API; None ranks by BM25.
    - `embeddings_model`: the endpoint's name for its model.
    - `embeddings_key_env`: the environment variable that holds its key.
    """
    if (embeddings_url is None) != (embeddings_model is None):
        raise ConfigError("embeddings need both, embeddings_url and embeddings_model")
    embed = None
    if embeddings_url is not None and embeddings_model is not None:
        embed = kept_vectors(embeddings_endpoint(embeddings_url, embeddings_model, embeddings_key_env))
    return memory_tools(k=k, embed=embed)


def memory_tools(*, k: int = 4, embed: Embed | None = None) -> tuple[Tool, ...]:
    """`memory` with an embedder of one's own."""

    async def remember(text: str, context: ToolContext) -> str:
        """Notes something down for later conversations: one fact, understandable on its own."""
        note = " ".join(text.split())
        if not any(character.isalnum() for character in note):
            raise ToolError("there is nothing to remember in it; write one fact in words")
        if "\0" in note:
            raise ToolError("the note holds a null character, which isn't text; write it without")
        if len(note) > MAX_CHARS:
            raise ToolError(f"the note has {len(note):,} characters; write at most {MAX_CHARS:,}")
        await _notes(context).add(note)
        return "remembered"

    async def recall(query: str, context: ToolContext) -> str:
        """Finds what was noted down in earlier conversations."""
        texts = await _notes(context).all()
        return await asyncio.to_thread(_search, texts, query, k, embed) if texts else NOTHING

    return (
        Tool(remember, writes=True, idempotent=True),
        Tool(recall),
    )


def kept_vectors(embed: Embed) -> Embed:
    """`embed`, asked only for texts that it was not asked for before."""
    known: dict[str, Sequence[float]] = {}

    def look_up(texts: list[str]) -> list[Sequence[float]]:
        if len(known) > MAX_VECTORS:
            known.clear()
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, embed(new), strict=True))
        return [known[text] for text in texts]

    return look_up


def _search(texts: Sequence[str], query: str, k: int, embed: Embed | None) -> str:
    return str(retrieve(texts, k=k, embed=embed).function(query))


def _notes(context: ToolContext) -> Notes:
    if context.notes is None:
        raise ToolError("nothing can be remembered here: the task names neither a user nor a session")
    return context.notes
