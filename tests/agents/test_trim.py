"""What stays of a conversation that has outgrown its budget of tokens."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from journeyman.agents.trim import TokenCount, fit
from journeyman.traces.messages import Message, ToolCall, Usage

OPENING: tuple[Message, ...] = (
    Message(role="system", content="Look it up."),
    Message(role="user", content="How tall is it?"),
)


def letters(messages: Sequence[Message]) -> int:
    return sum(len(message.content) for message in messages)


def exchange(number: int, result: str = "first line\n" + "x" * 300) -> tuple[Message, Message]:
    call = ToolCall(id=f"c{number}", name="facts", arguments={})
    return (
        Message(role="assistant", content=f"call {number}", tool_calls=(call,)),
        Message(role="tool", content=f"{number} {result}", tool_call_id=f"c{number}"),
    )


HISTORY = (*OPENING, *exchange(1), *exchange(2), *exchange(3))


def test_what_fits_stays_as_it_is() -> None:
    assert fit(HISTORY, letters(HISTORY), letters, keep=2) == HISTORY
    assert fit(HISTORY, None, letters, keep=2) == HISTORY


def test_the_oldest_results_are_cut_to_their_first_line_first() -> None:
    kept = fit(HISTORY, letters(HISTORY) - 1, letters, keep=2)
    assert kept[3].content == "1 first line\n[left out to save room: 301 characters]"
    assert (*kept[:3], *kept[4:]) == (*HISTORY[:3], *HISTORY[4:])


def test_then_whole_exchanges_go_and_the_last_one_stays_whole_as_long_as_it_can() -> None:
    kept = fit(HISTORY, letters((*OPENING, *exchange(3))), letters, keep=2)
    assert kept == (*OPENING, *exchange(3))


def test_at_last_the_newest_result_is_cut_to_what_there_is_room_for() -> None:
    kept = fit(HISTORY, 200, letters, keep=2)
    assert kept[:3] == (*OPENING, HISTORY[-2])
    assert kept[3].content.startswith("3 first line\nxxxx")
    assert 150 < letters(kept) <= 200


def test_the_opening_stays_even_where_it_is_over_the_limit_by_itself() -> None:
    assert fit(HISTORY, 5, letters, keep=2)[:2] == OPENING
    assert fit(OPENING, 5, letters, keep=2) == OPENING


def test_what_was_cut_once_stays_the_same_bytes() -> None:
    kept = fit(HISTORY, letters(HISTORY) - 100, letters, keep=2)
    later = fit((*kept, *exchange(4)), letters(kept) + letters(exchange(4)) - 1, letters, keep=2)
    assert later[:6] == kept[:6]


def test_in_a_long_conversation_few_turns_cut_anything() -> None:
    messages, cuts = OPENING, 0
    for number in range(40):
        before = (*messages, *exchange(number, "x" * 50))
        messages = fit(before, 1000, letters, keep=2)
        cuts += messages != before
    assert 1 <= cuts <= 10


@given(
    st.lists(st.tuples(st.booleans(), st.text(max_size=200)), max_size=8),
    st.integers(1, 1500),
    st.lists(st.integers(1, 1500), max_size=2),
)
def test_a_call_and_its_result_are_never_parted(
    turns: list[tuple[bool, str]], limit: int, more_limits: list[int]
) -> None:
    messages: tuple[Message, ...] = OPENING
    for number, (calls, text) in enumerate(turns):
        answered = (Message(role="assistant", content=text), Message(role="user", content="no"))
        messages = (*messages, *(exchange(number, text) if calls else answered))
    for one in (limit, *more_limits):
        kept = fit(messages, one, letters, keep=2)
        assert kept[:2] == OPENING
        assert [c.id for m in kept for c in m.tool_calls] == [m.tool_call_id for m in kept if m.role == "tool"]
        assert kept[2::2] == messages[len(messages) - len(kept) + 2 :: 2]
        assert letters(kept) <= letters(messages)
        messages = kept


def test_the_count_is_held_to_what_the_server_counted() -> None:
    count = TokenCount()
    before = count(HISTORY)
    count.learn(HISTORY, Usage(input_tokens=1000))
    assert count(HISTORY) == 1000 != before
    assert 1000 < count((*HISTORY, *exchange(4))) < 1500
    count.learn(HISTORY, Usage())
    assert count(HISTORY) == 1000


def test_tools_that_the_template_shows_are_counted() -> None:
    assert TokenCount([{"name": "facts", "parameters": {}}])(OPENING) > TokenCount()(OPENING)
