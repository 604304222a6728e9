"""Plain JSON: a value as a text whose strings are not escaped, for checks: escapes would hide what they look for."""

import json
from collections.abc import Iterator

from pydantic import JsonValue


def write_plain(value: JsonValue) -> tuple[str, list[tuple[int, int]]]:
    """`value` as JSON without escapes, and where each of its strings starts and ends; a key is none of them."""
    strings: list[tuple[int, int]] = []
    pieces: list[str] = []
    at = 0
    for piece, is_string in _pieces(value):
        if is_string:
            strings.append((at, at + len(piece)))
        pieces.append(piece)
        at += len(piece)
    return "".join(pieces), strings


def with_strings(value: JsonValue, strings: Iterator[str]) -> JsonValue:
    """`value` with other strings, in the order in which `_pieces` gives them."""
    if isinstance(value, str):
        return next(strings)
    if isinstance(value, dict):
        return {key: with_strings(one, strings) for key, one in value.items()}
    if isinstance(value, list):
        return [with_strings(one, strings) for one in value]
    return value


def _pieces(value: JsonValue) -> Iterator[tuple[str, bool]]:
    """The text of `value` bit by bit, each with whether it is one of its strings."""
    if isinstance(value, str):
        yield from (('"', False), (value, True), ('"', False))
    elif isinstance(value, dict):
        for number, (key, one) in enumerate(value.items()):
            yield f'{", " if number else "{"}"{key}": ', False
            yield from _pieces(one)
        yield "}" if value else "{}", False
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield ", " if number else "[", False
            yield from _pieces(one)
        yield "]" if value else "[]", False
    else:
        yield json.dumps(value), False
