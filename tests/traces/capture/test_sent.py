"""What a model call was sent is the same on its span, written piece by piece or at once."""

import json
from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journeyman.traces import attributes as a
from journeyman.traces.capture.growth import GrowingText, Growths
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.capture.sent import Sent
from journeyman.traces.capture.span import shrunk
from journeyman.traces.messages import Message, ToolCall, prompt_attributes

SYSTEM = Message(role="system", content="You mend programs.")
HISTORY = [Message(role="user", content=f"{number} {chr(97 + number) * 3000}") for number in range(12)]

texts = st.text(alphabet=st.characters(exclude_categories=()), max_size=5)
arguments = st.dictionaries(st.sampled_from("ab"), st.sampled_from([0, 0.0, False, 1, True, "1"]), max_size=2)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=texts,
    tool_calls=st.lists(st.builds(ToolCall, id=texts, name=texts, arguments=arguments), max_size=1).map(tuple),
    name=st.none() | st.just("ada"),
)
MADE = st.shared(st.lists(messages, min_size=1, max_size=6), key="made")
"""Of few messages, so that prompts go on from one another, or begin with an equal message that isn't the same."""


def same(sent: Sent, prompt: tuple[Message, ...]) -> bool:
    """Whether the prompt is written as if none had come before it."""
    written = prompt_attributes(prompt)
    digest = sha256("\n".join(written.values()).encode("utf-8", "surrogatepass")).hexdigest()
    return (sent.messages(prompt), sent.digest) == (written, digest)


@settings(deadline=None, max_examples=300)
@given(MADE.flatmap(lambda made: st.lists(st.lists(st.sampled_from(made), max_size=4), max_size=6)), st.booleans())
def test_a_prompt_is_written_as_if_none_had_come_before_it(tails: list[list[Message]], keeps: bool) -> None:
    sent, prompt = Sent(), tuple[Message, ...]()
    for tail in tails:
        prompt = (*prompt[: None if keeps else -1], *tail)
        assert same(sent, prompt)


def test_an_equal_message_that_is_written_otherwise_is_written_anew() -> None:
    one, equal = (Message(role="assistant", content="", tool_calls=(call(value),)) for value in (1, 1.0))
    assert one == equal
    sent = Sent()
    assert same(sent, (one,))
    assert same(sent, (equal, HISTORY[0]))


def call(value: float) -> ToolCall:
    return ToolCall(id="c", name="add", arguments={"value": value})


@settings(deadline=None, max_examples=300)
@given(st.lists(st.lists(st.sampled_from([0, 1, 7, 2**32 - 1, 2**32, -1, 10**30]), max_size=4), max_size=6))
def test_token_ids_are_written_as_if_none_had_come_before_them(tails: list[list[int]]) -> None:
    sent, ids = Sent(), tuple[int, ...]()
    for number, tail in enumerate(tails):
        ids = (*ids[: len(ids) - number % 2], *tail)
        assert json.loads(sent.token_ids(ids)) == [*ids]
        assert " " not in sent.token_ids(ids)


def test_what_grew_from_what_is_known_without_a_comparison(span: SpanRecord) -> None:
    sent = Sent()
    told = [sent.messages((SYSTEM, *HISTORY[:end])) for end in range(3, 12)]
    for earlier, later in pairwise(told):
        before, text = earlier[a.INPUT_MESSAGES], later[a.INPUT_MESSAGES]
        assert isinstance(before, GrowingText) and isinstance(text, GrowingText)
        assert text.goes_on_from(before) and not before.goes_on_from(text) and not text.goes_on_from(str(before))
    other = Sent().messages((SYSTEM, *HISTORY))[a.INPUT_MESSAGES]
    assert isinstance(other, GrowingText) and not other.goes_on_from(told[0][a.INPUT_MESSAGES])


@pytest.mark.parametrize("ends", [range(3, 12), (3, 3, 5, 4, 8, 2, 2, 11)], ids=["grows", "comes and goes"])
def test_a_prompt_grows_the_same_way_known_or_compared(ends: Sequence[int], span: SpanRecord) -> None:
    sent, known, compared = Sent(), Growths(), Growths()
    for number, end in enumerate(ends):
        told = {
            a.OPERATION: "chat",
            a.INPUT_MESSAGES: sent.messages(tuple(HISTORY[:end]))[a.INPUT_MESSAGES],
            a.PROMPT_TOKEN_IDS: sent.token_ids(tuple(range(10_000, 10_000 + 1000 * end))),
        }
        parts = [
            shrunk(span.model_copy(update={"span_id": str(number), "attributes": attributes}), growths)
            for attributes, growths in (({**told}, known), ({name: str(text) for name, text in told.items()}, compared))
        ]
        assert parts[0] == parts[1]
        assert bool(parts[0].grown) == (number > 0)
