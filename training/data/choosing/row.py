"""A row of any kind on its way into a dataset, read as far as choosing among rows needs it."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from hashlib import sha256
from typing import Any

from pydantic_core import from_json, to_json

from journeyman.agents.trim import CHARS_A_TOKEN

SIDES = ("chosen", "rejected")
IDS = b'token_ids":['
_OF_ONE_RECORD = frozenset({"trace_id", "span_ids", "weight"})


class Row:
    """What a line says, but for token ids: of each list there is only its length."""

    def __init__(self, line: bytes) -> None:
        self.values: dict[str, Any] = from_json(_with_lengths(line))
        sides = [self.values[side] for side in SIDES if side in self.values]
        self.replies: tuple[Mapping[str, Any], ...] = tuple(sides) or (self.values,)
        """The row's own reply; of a pair both, the better one first."""

    @property
    def origin(self) -> str | None:
        return self.values.get("origin")

    @property
    def policy(self) -> str | None:
        """Who gave the reply, of a pair the better one."""
        return self.replies[0].get("policy")

    @property
    def sampled(self) -> bool:
        """Whether that reply has the server's own tokens."""
        return "token_ids" in self.replies[0]

    @property
    def trace_id(self) -> str | None:
        """None for a row that is from no run."""
        return self.values.get("trace_id")

    @property
    def trace_ids(self) -> list[str]:
        """Of pairs both."""
        return [row["trace_id"] for row in (self.values, *self.replies) if "trace_id" in row]

    @property
    def asked(self) -> list[Mapping[str, Any]]:
        """The messages of users and tools; a document is what it gives to read."""
        told = [message for message in self.values.get("messages", ()) if message["role"] in ("user", "tool")]
        return [*told, {"role": "user", "content": self.values["text"]}] if "text" in self.values else told

    @property
    def told(self) -> list[str]:
        """Every text that no agent's author wrote: what was asked, and the replies to it."""
        return [*(message["content"] for message in self.asked), *self._completions]

    def texts(self) -> Iterator[str]:
        """All that is in it, calls of tools and the task as JSON."""
        for message in self.values.get("messages", ()):
            yield message["content"]
            yield from _calls(message)
        for reply in self.replies:
            yield from _calls(reply)
        yield from self._completions
        yield self.values.get("text", "")
        if "task" in self.values:
            yield to_json(self.values["task"]).decode()

    @property
    def tokens(self) -> int:
        """Of the prompt and its longest reply, as the server counted them; else estimated from the letters."""
        prompt = sum(len(message["content"]) for message in self.values.get("messages", ()))
        replies = [reply.get("token_ids") or _estimate(len(reply.get("completion", ""))) for reply in self.replies]
        text = self.values.get("tokens") or _estimate(len(self.values.get("text", "")))
        return int((self.values.get("prompt_token_ids") or _estimate(prompt)) + max(replies) + text)

    @cached_property
    def digest(self) -> bytes:
        """Equal for rows that say the same, whatever runs they are from."""
        values = {name: value for name, value in self.values.items() if name not in _OF_ONE_RECORD}
        for side in SIDES:
            if side in values:
                values[side] = {name: value for name, value in values[side].items() if name not in _OF_ONE_RECORD}
        return sha256(to_json(values)).digest()

    @property
    def _completions(self) -> list[str]:
        return [reply["completion"] for reply in self.replies if "completion" in reply]


def _estimate(letters: int) -> int:
    return round(letters / CHARS_A_TOKEN)


def _calls(said: Mapping[str, Any]) -> Iterator[str]:
    for call in said.get("tool_calls") or ():
        yield to_json(call).decode()


def _with_lengths(line: bytes) -> bytes:
    """The line with a number in the place of each list of token ids: thousands of them take longer than all texts.

    No text can hold the key: there its quotes are escaped.
    """
    parts, end = [], 0
    while (start := line.find(IDS, end)) >= 0:
        start += len(IDS) - 1
        parts.append(line[end:start])
        end = line.index(b"]", start) + 1
        parts.append(b"%d" % (line.count(b",", start, end) + 1))
    return b"".join([*parts, line[end:]])
