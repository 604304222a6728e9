"""The context of a prompt: what stays when a conversation has outgrown its budget of tokens.

What goes first is what is oldest, in this order:

1. Results of tools, but for those of the last exchange, are cut to their first line.
2. Whole exchanges, but for the last, are left out: an agent's turn and what it was told, never one half of the two.
3. The results of the last exchange are cut to what there is room for.

Instructions, tools, examples, the session's earlier turns and the goal always stay. What stays is the same byte for
byte, and stays cut once it was cut, so that a server's prefix cache serves all that lies before the first cut. Where
something has to go, a quarter of the budget is made free, so that many turns follow before the next cut.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

from journeyman.traces.messages import Message, Usage

CHARS_A_TOKEN = 3.0
"""Before the first reply; English text has about four, code and numbers fewer."""
MESSAGE_CHARS = 24
"""What a chat template puts around a message, as characters."""

LEFT = 0.75
"""Share of its budget that a prompt is cut to."""
NOTE = r"\[left out to save room: [\d,]+ characters\]"

Count = Callable[[Sequence[Message]], int]
Exchange = tuple[Message, ...]


def fit(messages: tuple[Message, ...], limit: int | None, count: Count, *, keep: int) -> tuple[Message, ...]:
    """`messages` as far as they fit into `limit` tokens; the first `keep`, its opening, always stay.

    An opening that is over the limit by itself is given back whole, with what cannot be left out behind it.
    """
    if limit is None or count(messages) <= limit:
        return messages
    opening, exchanges = messages[:keep], _exchanges(messages[keep:])

    def together() -> tuple[Message, ...]:
        return (*opening, *chain.from_iterable(exchanges))

    for number, exchange in enumerate(exchanges[:-1]):
        exchanges[number] = tuple(_first_line(message) for message in exchange)
        if count(together()) <= limit * LEFT:
            return together()
    if count(together()) <= limit:
        return together()
    while len(exchanges) > 1 and count(together()) > limit * LEFT:
        del exchanges[0]
    if exchanges and count(together()) > limit:
        exchanges[0] = _squeezed(exchanges[0], lambda last: count((*opening, *last)) <= limit)
    return together()


class TokenCount:
    """An estimate of a prompt's tokens from its characters, held to what the server counted so far."""

    def __init__(self, tools: Sequence[Mapping[str, Any]] = ()) -> None:
        """`tools` are definitions that the chat template adds to the prompt."""
        self._fixed = len(json.dumps(list(tools))) if tools else 0
        self._tokens_a_char = 1 / CHARS_A_TOKEN

    def __call__(self, messages: Sequence[Message]) -> int:
        return round(self._chars(messages) * self._tokens_a_char)

    def learn(self, messages: Sequence[Message], usage: Usage) -> None:
        """Takes the server's count for `messages` as the measure for what comes."""
        if usage.input_tokens:
            self._tokens_a_char = usage.input_tokens / self._chars(messages)

    def _chars(self, messages: Sequence[Message]) -> int:
        calls = sum(len(call.name) + len(json.dumps(call.arguments)) for one in messages for call in one.tool_calls)
        return self._fixed + calls + sum(len(one.content) + MESSAGE_CHARS for one in messages)


def _exchanges(messages: Sequence[Message]) -> list[Exchange]:
    """Each turn of the agent together with all that it was told before its next one."""
    exchanges: list[Exchange] = []
    for message in messages:
        if message.role == "assistant" or not exchanges:
            exchanges.append((message,))
        else:
            exchanges[-1] = (*exchanges[-1], message)
    return exchanges


def _first_line(message: Message) -> Message:
    line, _, rest = message.content.partition("\n")
    if message.role == "assistant" or not rest or re.fullmatch(NOTE, rest):
        return message
    return _cut(message, len(line))


def _squeezed(exchange: Exchange, fits: Callable[[Exchange], bool]) -> Exchange:
    """The exchange with as much of each result as fits, the same share of all of them."""

    def with_share(percent: int) -> Exchange:
        return tuple(
            one if one.role == "assistant" else _cut(one, len(one.content) * percent // 100) for one in exchange
        )

    return next((cut for percent in range(95, 0, -5) if fits(cut := with_share(percent))), with_share(5))


def _cut(message: Message, chars: int) -> Message:
    note = f"\n[left out to save room: {len(message.content) - chars:,} characters]"
    if chars + len(note) >= len(message.content):
        return message
    return message.model_copy(update={"content": message.content[:chars] + note})
