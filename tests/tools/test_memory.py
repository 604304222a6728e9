"""Notes: an agent remembers and recalls through tools, for one user, whichever way they are ranked."""

import pytest

from journeyman.tools.call import call_tool
from journeyman.tools.context import ToolContext
from journeyman.tools.memory import MAX_CHARS, kept_vectors, memory, memory_tools
from journeyman.tools.tool import Tool, toolbox
from journeyman.traces.errors import ConfigError


class Pad:
    """Notes on paper."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    async def add(self, text: str) -> None:
        self.texts.insert(0, text)

    async def all(self) -> list[str]:
        return self.texts


async def used(tool: Tool, pad: Pad | None, **arguments: object) -> tuple[str, str]:
    result = await call_tool(tool, arguments, ToolContext(notes=pad))
    return result.status, result.content


REMEMBER, RECALL = memory()


async def test_what_was_remembered_is_recalled_by_its_words() -> None:
    pad = Pad("Ann's dog is called Rex.", "Ann works nights.")
    assert await used(REMEMBER, pad, text="  Ann drinks\ntea. ") == ("ok", "remembered")
    assert pad.texts[0] == "Ann drinks tea."
    assert await used(RECALL, pad, query="tea or coffee?") == ("ok", "Ann drinks tea.")
    assert await used(RECALL, pad, query="weather") == ("ok", "nothing found")
    assert await used(RECALL, Pad(), query="weather") == ("ok", "nothing found")


async def test_of_many_notes_the_best_are_shown() -> None:
    (_, recall) = memory(k=2)
    _, found = await used(recall, Pad(*[f"tea number {number}" for number in range(5)]), query="tea")
    assert found == "tea number 0\ntea number 1"


async def test_where_nobody_is_named_nothing_can_be_remembered() -> None:
    status, said = await used(REMEMBER, None, text="secret")
    assert status == "failed"
    assert "neither a user nor a session" in said


@pytest.mark.parametrize("text", ["", " … ", "a\0b", "x" * (MAX_CHARS + 1)])
async def test_a_note_without_words_too_long_or_with_a_null_character_is_refused(text: str) -> None:
    pad = Pad()
    assert (await used(REMEMBER, pad, text=text))[0] == "failed"
    assert pad.texts == []


async def test_with_an_embedder_the_nearest_notes_are_shown_and_each_is_embedded_once() -> None:
    asked: list[str] = []

    def embed(texts: list[str]) -> list[list[float]]:
        asked.extend(texts)
        return [[float("dog" in text or "pet" in text), 1.0] for text in texts]

    (_, recall) = memory_tools(k=1, embed=kept_vectors(embed))
    pad = Pad("Ann drinks tea.", "The dog is called Rex.")
    for _ in range(2):
        assert await used(recall, pad, query="which pet?") == ("ok", "The dog is called Rex.")
    assert sorted(asked) == ["Ann drinks tea.", "The dog is called Rex.", "which pet?"]


def test_no_model_sees_the_context_and_permissions_see_what_writes() -> None:
    assert set(REMEMBER.parameters["properties"]) == {"text"}
    assert (REMEMBER.writes, REMEMBER.idempotent, RECALL.writes) == (True, True, False)
    assert set(toolbox("notes", memory())) == {"notes_remember", "notes_recall"}


def test_half_an_endpoint_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="embeddings need both"):
        memory(embeddings_url="http://127.0.0.1:9/v1")
