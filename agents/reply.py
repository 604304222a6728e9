"""JSON from outside, as values that can be written down again."""

import json
from typing import Any


class UnreadableReplyError(ValueError):
    """A reply that is not what was asked for; the message says why, for the model to read."""


class TruncatedReplyError(Exception):
    """A reply that was cut off at its limit of tokens."""


def read_json(text: str) -> Any:
    """What `text` holds; raises `UnreadableReplyError` with a reason."""
    try:
        said = json.loads(text)
    except json.JSONDecodeError as error:
        raise UnreadableReplyError(f"it is not valid JSON ({error.msg})") from None
    try:
        json.dumps(said, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UnreadableReplyError("it holds half a surrogate pair, which is no character") from None
    return said
