"""Documents: a JSON file that is one long list, read a member at a time, so that it need not fit into memory."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pydantic import JsonValue

from journeyman.traces.base import encoding_of

FIRST_LINE = 16 * 2**20
"""Characters of a first line beyond which it is a document without line breaks, not one of many JSON lines."""

_READ = 2**20
_OPENING = re.compile(r'\s*(?:\[|\{\s*"resourceSpans"\s*:\s*\[)')
_ALONE = re.compile(r'\s*(?:\[|\{|\{\s*"resourceSpans"\s*:\s*\[)\s*')
_BETWEEN = re.compile(r"[\s,]*")

_NEAR = 16
"""What is no JSON so close to the end of what was read may be a token that goes on."""


def opens_list(path: Path) -> bool:
    """Whether the file is a list or an OTLP request, over several lines or too long to be one line of many."""
    with path.open(encoding=encoding_of(path), errors="replace") as file:
        lines = iter(lambda: file.readline(FIRST_LINE), "")
        first = next((line for line in lines if not line.isspace()), "")
        alone = len(first) == FIRST_LINE or _ALONE.fullmatch(first)
        return bool(alone and _OPENING.match(first + file.read(_READ)))


def read_members(path: Path) -> Iterator[JsonValue]:
    """The members of the list; raises `ValueError` where one is broken, because nobody knows where the next begins."""
    with path.open(encoding=encoding_of(path)) as file:
        yield from _Members(file)


class _Members:
    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._decoder = json.JSONDecoder()
        self._text = file.read(_READ)
        opening = _OPENING.match(self._text)
        self._place = len(self._text) if opening is None else opening.end()

    def __iter__(self) -> Iterator[JsonValue]:
        while self._begins():
            yield self._member()

    def _begins(self) -> bool:
        """Goes to the next member, if there is one."""
        while True:
            between = _BETWEEN.match(self._text, self._place)
            assert between is not None
            self._place = between.end()
            if self._place < len(self._text):
                return self._text[self._place] != "]"
            if not self._more():
                raise ValueError("it ends within its list")

    def _member(self) -> JsonValue:
        while True:
            try:
                member, self._place = self._decoder.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                cut_off = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _NEAR
                if not (cut_off and self._more()):
                    raise
            else:
                return member  # type: ignore[no-any-return]

    def _more(self) -> bool:
        """Reads as much again as waits, so that a long member takes few attempts; False at the end of the file."""
        waiting = self._text[self._place :]
        arrived = self._file.read(max(_READ, len(waiting)))
        self._text, self._place = waiting + arrived, 0
        return bool(arrived)
